/* the timeline: lanes of devices on a canvas; wheel and keys zoom, dragging moves, pointing and arrows explain */
function showTimeline(view) {
  const plan = plans[0];
  oneScale(plan);
  const rows = timeRows(plan),
    until = Math.max(...SOURCES.map(([s]) => plan[s]?.until || 0)) || 1;
  const unit = plan.measured ? "us" : plan.unit,
    sources = SOURCES.filter(([s]) => plan[s]).map(([s]) => s);
  const at = { from: 0, span: until };
  let spot = null,
    over = null,
    drag = null;

  const cut = SOURCES.filter(([s]) => plan[s] && plan[s].spans.length < plan[s].all).map(
    ([s]) => `the first ${count(plan[s].spans.length)} of ${count(plan[s].all)} ${s} tasks`,
  );
  const bar = make("div", undefined, "bar"),
    zooms = make("div", undefined, "group"),
    canvas = make("canvas"),
    box = make("div", undefined, "canvas"),
    tip = make("div", undefined, "tip"),
    told = make("p", undefined, "told");
  zooms.append(
    button("−", () => zoom(1 / 1.5), "zoom out of time"),
    button("Fit", () => place(0, until)),
    button("+", () => zoom(1.5), "zoom into time"),
  );
  bar.append(
    zooms,
    button("Save Perfetto trace", () => download(`${plan.name}.json`, perfetto(plan))),
  );
  if (cut.length) bar.append(make("span", `holds ${cut.join(", ")}`, "hint"));
  canvas.tabIndex = 0;
  canvas.id = "canvas";
  canvas.setAttribute("role", "img");
  canvas.setAttribute(
    "aria-label",
    `timeline of ${count(rows.reduce((n, r) => n + r.spans.length, 0))} tasks; arrow keys go from task to task`,
  );
  told.setAttribute("aria-live", "polite");
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;
  const takes =
    sources.map((s) => `${s} ${spell(plan, s, plan[s].until)}`).join(", ") +
    (plan.predicted?.scale ? ", drawn to one length" : "");
  view.append(
    make("h2", "Timeline"),
    make(
      "p",
      `One step: ${takes}${cut.length ? `; shown: ${cut.join(", ")}` : ""}. The numbers in bars are microbatches.`,
      "hint",
    ),
    legendOf([...new Set(rows.flatMap((r) => r.spans.map((s) => GROUP[plan.tasks[s[0]][0]])))].sort()),
    bar,
  );
  box.append(canvas, tip);
  view.append(box, told, timeTable(plan));

  let y = 6;
  rows.forEach((r, k) => {
    if (k && !r.link) y += r.first ? 12 : 3;
    r.y = y;
    r.h = r.link ? WIRE : LANE;
    y += r.h + (r.link ? 0 : 1);
  });
  const height = y + AXIS;
  canvas.style.height = `${height}px`;

  const width = () => canvas.clientWidth || 800,
    scale = () => (width() - GUTTER - 14) / at.span;
  const x = (t) => GUTTER + (t - at.from) * scale();

  function place(from, span) {
    at.span = Math.min(until, Math.max(until / 50000, span));
    at.from = Math.min(until - at.span, Math.max(0, from));
    canvas.dataset.from = at.from;
    canvas.dataset.span = at.span;
    repaint();
  }
  function zoom(by, t) {
    const middle = t ?? (spot ? (spot.span[3] + spot.span[4]) / 2 : at.from + at.span / 2),
      span = Math.min(until, at.span / by);
    place(middle - ((middle - at.from) * span) / at.span, span);
  }

  let waiting = false;
  function repaint() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      paintTime(canvas, { plan, rows, sources, unit, at, x, spot, over, width: width(), height });
    });
  }

  function under(e) {
    const r = canvas.getBoundingClientRect(),
      px = e.clientX - r.left,
      py = e.clientY - r.top,
      t = at.from + (px - GUTTER) / scale();
    const row = px >= GUTTER && rows.find((o) => py >= o.y && py < o.y + o.h);
    if (!row) return { t, px, py, hit: null };
    const near = 2 / scale();
    let best = null;
    for (let i = firstAfter(row, t - near); i < row.spans.length && row.spans[i][3] <= t + near; i++) {
      const away = Math.max(row.spans[i][3] - t, t - row.spans[i][4], 0);
      if (away <= near && (!best || away < best.away)) best = { row, span: row.spans[i], i, away };
    }
    return { t, px, py, hit: best };
  }
  function tell() {
    const shown = spot || over;
    told.replaceChildren();
    if (!shown) {
      told.append("Wheel or + and − zoom, dragging moves, arrows go from task to task, 0 shows all.");
      return;
    }
    const [other, twin] = twinOf(plan, shown.row.source, shown.span);
    told.append(
      `${plan[shown.row.source].devices[shown.row.device]}: ${spanText(plan, shown.row.source, shown.span)}`,
      twin ? `; ${other}: ${spell(plan, other, twin[4] - twin[3])} ` : " ",
    );
    const thing = taskThing(plan, plan.tasks[shown.span[0]]);
    if (spot && thing)
      told.append(
        button("Show in the graph", () => {
          openView("graph");
          jump(0, thing.key);
        }),
      );
  }
  function select(hit) {
    spot = hit;
    if (hit && (hit.span[3] < at.from || hit.span[4] > at.from + at.span))
      place((hit.span[3] + hit.span[4] - at.span) / 2, at.span);
    tell();
    repaint();
  }

  box.addEventListener(
    "wheel",
    (e) => {
      if (Math.abs(e.deltaX) > Math.abs(e.deltaY)) {
        e.preventDefault();
        return place(at.from + (e.deltaX / 900) * at.span, at.span);
      }
      if (!e.ctrlKey && !e.altKey && canvas.offsetHeight > box.clientHeight) return undefined;
      e.preventDefault();
      return zoom(Math.exp(-e.deltaY * (e.deltaMode === 1 ? 0.05 : 0.0016)), under(e).t);
    },
    { passive: false },
  );
  canvas.addEventListener("pointerdown", (e) => {
    if (e.button !== 0) return;
    drag = { x: e.clientX, from: at.from, moved: false };
    canvas.setPointerCapture(e.pointerId);
  });
  canvas.addEventListener("pointermove", (e) => {
    if (e.buttons === 0) drag = null; /* it was let go elsewhere */
    if (drag && (drag.moved || Math.abs(e.clientX - drag.x) > 4)) {
      if (!drag.moved) {
        drag.moved = true;
        tip.hidden = true;
      }
      return place(drag.from - (e.clientX - drag.x) / scale(), at.span);
    }
    const u = under(e);
    over = u.hit;
    tip.hidden = !over;
    if (over) {
      tip.textContent = spanText(plan, over.row.source, over.span);
      tip.style.left = tip.style.top = "0";
      tip.style.left = `${Math.max(0, Math.min(u.px + 12, width() - tip.offsetWidth - 4))}px`;
      /* above the pointer where there is no room below: a tip that overflows would make the box scroll */
      const below = u.py + 18 + tip.offsetHeight <= box.scrollTop + box.clientHeight;
      tip.style.top = `${below ? u.py + 18 : Math.max(0, u.py - tip.offsetHeight - 2)}px`;
    }
    if (!spot) tell();
    return repaint();
  });
  canvas.addEventListener("pointerleave", () => {
    over = null;
    tip.hidden = true;
    tell();
    repaint();
  });
  canvas.addEventListener("pointerup", (e) => {
    const d = drag;
    drag = null;
    if (d && !d.moved) {
      const u = under(e);
      select(u.hit && spot?.span === u.hit.span ? null : u.hit);
    }
  });
  canvas.addEventListener("pointercancel", () => {
    drag = null;
  });
  canvas.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    const along = { ArrowRight: 1, ArrowLeft: -1 }[e.key],
      across = { ArrowDown: 1, ArrowUp: -1 }[e.key];
    if (along && e.shiftKey) place(at.from + along * 0.2 * at.span, at.span);
    else if (along) {
      const row = spot?.row || rows.find((r) => r.spans.length),
        i = spot ? spot.i + along : 0;
      if (row?.spans[i]) select({ row, span: row.spans[i], i });
    } else if (across) {
      const full = rows.filter((r) => r.spans.length),
        k = spot ? full.indexOf(spot.row) + across : 0,
        row = full[k];
      if (row) {
        const t = spot ? spot.span[3] : 0,
          i = Math.min(firstAfter(row, t), row.spans.length - 1);
        select({ row, span: row.spans[i], i });
      }
    } else if (e.key === "+" || e.key === "=") zoom(1.5);
    else if (e.key === "-") zoom(1 / 1.5);
    else if (e.key === "0") place(0, until);
    else if (e.key === "Escape") select(null);
    else return;
    e.preventDefault();
    e.stopPropagation();
  });
  new ResizeObserver(repaint).observe(canvas);
  listeners.push(repaint);
  themeChanged.push(repaint);
  place(0, until);
  tell();
}
