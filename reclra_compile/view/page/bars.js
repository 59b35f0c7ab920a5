/* the picture of a timeline: axis, lanes, bars, and where steps end */
const LANE = 22,
  WIRE = 6,
  GUTTER = 132,
  AXIS = 26;

function paintTime(canvas, v) {
  const { plan, rows, sources, unit, at, x, spot, over, width: w, height } = v,
    dots = devicePixelRatio || 1,
    c = canvas.getContext("2d"),
    style = getComputedStyle(document.documentElement),
    css = (n) => style.getPropertyValue(n).trim();
  const colours = {
    ground: css("--ground"),
    ink: css("--ink"),
    faint: css("--faint"),
    line: css("--line"),
  };
  const fills = ["", css("--k1"), css("--k2"), css("--k3"), css("--k4"), css("--k5"), css("--rim"), css("--rim")];
  canvas.width = Math.round(w * dots);
  canvas.height = Math.round(height * dots);
  c.setTransform(dots, 0, 0, dots, 0, 0);
  c.clearRect(0, 0, w, height);
  c.font = `11px ${FONT}`;
  c.textBaseline = "middle";
  const right = w - 14,
    bottom = height - AXIS;
  const marks = ticks(at.from, at.span, Math.max(3, Math.floor((w - GUTTER) / 110))),
    step = marks.length > 1 ? marks[1] - marks[0] : at.span;
  canvas.dataset.ticks = marks.map((t) => exactText(t, step, unit, at.from + at.span)).join("|");
  for (const t of marks) {
    c.fillStyle = colours.line;
    c.fillRect(Math.round(x(t)), 0, 1, bottom + 4);
    c.fillStyle = colours.faint;
    c.textAlign = "center";
    const said = exactText(t, step, unit, at.from + at.span),
      half = c.measureText(said).width / 2;
    c.fillText(said, Math.min(x(t), w - half - 2), bottom + 15);
  }
  for (const r of rows) {
    c.fillStyle = colours.line;
    c.globalAlpha = 0.45;
    c.fillRect(GUTTER, r.y, right - GUTTER, r.h);
    c.globalAlpha = 1;
    c.textAlign = "left";
    if (r.label) {
      c.fillStyle = colours.ink;
      c.font = `600 11.5px ${FONT}`;
      c.fillText(shorten(r.label, r.said ? GUTTER - 70 : GUTTER - 16, 11.5, true), 6, r.y + r.h / 2);
      c.font = `11px ${FONT}`;
    }
    if (r.said) {
      c.fillStyle = colours.faint;
      c.textAlign = "right";
      c.fillText(r.said, GUTTER - 8, r.y + r.h / 2);
    }
    c.textAlign = "center";
    let edge = -1;
    for (let i = firstAfter(r, at.from); i < r.spans.length && r.spans[i][3] < at.from + at.span; i++) {
      const s = r.spans[i],
        a = Math.max(x(s[3]), GUTTER),
        b = Math.min(Math.max(x(s[4]), a + 0.6), right);
      if (b <= edge + 0.3) continue;
      edge = b;
      const same = spot && spot.span[0] === s[0] && spot.span[1] === s[1];
      c.fillStyle = fills[GROUP[plan.tasks[s[0]][0]]];
      c.globalAlpha = (spot && !same && spot.span[1] !== s[1] ? 0.45 : 1) * (plan.tasks[s[0]][0] === "R" ? 0.35 : 1);
      const gap = b - a > 3 ? 0.8 : 0;
      c.fillRect(a, r.y, b - a - gap, r.h);
      c.globalAlpha = 1;
      if (same || over?.span === s) {
        c.strokeStyle = colours.ink;
        c.lineWidth = 2;
        c.strokeRect(a + 1, r.y + 1, Math.max(b - a - gap - 2, 1), r.h - 2);
      }
      const t = plan.tasks[s[0]],
        full = b - a > 60 ? shorten(shortTask(plan, t), b - a - 8, 10.5) : "",
        said = full.length > 4 ? full : String(s[1]);
      if (!r.link && b - a > (full ? 60 : 7 * said.length + 4) && (full || plan.microbatches > 1)) {
        c.fillStyle = t[0] === "R" ? colours.ink : colours.ground;
        c.font = `10.5px ${FONT}`;
        c.fillText(said, (a + b - gap) / 2, r.y + r.h / 2 + 0.5);
        c.font = `11px ${FONT}`;
      }
    }
  }
  for (const s of sources) {
    const end = x(plan[s].until);
    if (end < GUTTER || end > right + 1) continue;
    c.strokeStyle = colours.ink;
    c.lineWidth = 1;
    c.setLineDash([3, 3]);
    c.beginPath();
    c.moveTo(end, 2);
    c.lineTo(end, bottom);
    c.stroke();
    c.setLineDash([]);
  }
}

/* before the number that comes back, no span ends after t; those of a row can overlap where they were measured */
function firstAfter(row, t) {
  if (!row.ends) {
    let end = -Infinity;
    row.ends = row.spans.map((s) => (end = Math.max(end, s[4])));
  }
  let low = 0,
    high = row.ends.length;
  while (low < high) {
    const m = (low + high) >> 1;
    if (row.ends[m] < t) low = m + 1;
    else high = m;
  }
  return low;
}
function ticks(from, span, most) {
  const raw = span / most,
    power = 10 ** Math.floor(Math.log10(raw)),
    step = [1, 2, 5, 10].map((f) => f * power).find((f) => f >= raw * (1 - 1e-9));
  const found = [];
  for (let k = Math.ceil(from / step - 1e-9); k * step <= from + span * (1 + 1e-9); k++) found.push(k * step);
  return found;
}
