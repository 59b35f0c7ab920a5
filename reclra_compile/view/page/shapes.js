/* a scene as SVG: frames at the back, then forward edges, error pathways, and boxes on top */
const HEAD = 9,
  ROUND = 14;

function paint(s, toggle) {
  const shapes = new Map();
  const root = draw("g", {});
  for (const f of [...s.frames].sort((a, b) => b.height - a.height)) root.append(frameShape(f, s, toggle, shapes));
  const tags = [];
  for (const e of s.edges) {
    const g = lineShape(e.points, e.swing, s.across, 7.5, "edge");
    root.append(g);
    tags.push({ g, ends: [s.items[e.source].key, s.items[e.target].key] });
  }
  if (s.seed) root.append((s.seed.g = lineShape(s.seed.points, false, s.across, HEAD, "seed w0")));
  const reach = (a) =>
    a.points
      .slice(1)
      .reduce((sum, p, i) => sum + Math.abs(p[0] - a.points[i][0]) + Math.abs(p[1] - a.points[i][1]), 0);
  /* long pathways first: short ones, near the boxes, stay on top and easy to point at */
  for (const a of [...s.arcs].sort((x, y) => reach(y) - reach(x))) root.append(arcShape(a, s, shapes));
  for (const item of s.items) root.append(boxShape(item, s.across, toggle, shapes));
  return { root, shapes, edges: tags };
}

function text(x, y, said, size, tone, anchor, bold) {
  return draw(
    "text",
    {
      x: round(x),
      y: round(y),
      "font-size": size,
      class: tone,
      "text-anchor": anchor,
      "font-weight": bold ? 600 : undefined,
    },
    said,
  );
}
function round(v) {
  return Math.round(v * 100) / 100;
}

function lineShape(points, swing, across, head, name) {
  const [d, tip] = linePath(points, swing, across, head);
  return draw(
    "g",
    { class: name },
    draw("path", { class: "line", d }),
    draw("polygon", { class: "fill", points: tip }),
  );
}

function arcShape(a, s, shapes) {
  const [d, tip] = linePath(a.points, false, s.across, HEAD);
  const from = s.items[a.source].name,
    to = s.items[a.target].name,
    many = a.of.length;
  const said =
    many > 1
      ? `${many} pathways from ${from} to ${to}`
      : `pathway ${a.of[0].name} from ${from} to ${to}, wave ${Math.max(a.wave, 0)}`;
  const g = draw(
    "g",
    {
      class: `arc ${a.wave >= 0 ? "w" + a.wave : "none"}${a.tied ? " tied" : ""}${many > 1 ? " many" : ""}`,
      "data-key": a.of[0].key,
      role: "button",
      tabindex: "-1",
      "aria-label": said,
    },
    draw("path", { class: "hit", d }),
    draw("path", { class: "line", d }),
    draw("polygon", { class: "fill", points: tip }),
  );
  if (many > 1) {
    /* how many pathways one line stands for, on its longest stretch */
    let best = 0,
      where = a.points[0];
    for (let i = 1; i < a.points.length; i++) {
      const [x, y] = a.points[i - 1],
        [p, q] = a.points[i],
        length = Math.abs(p - x) + Math.abs(q - y);
      if (length > best) {
        best = length;
        where = [(x + p) / 2, (y + q) / 2];
      }
    }
    const label = "×" + many,
      w = widthOf(label, 9.5, true) + 8;
    if (a.bundled) {
      /* lines of one source share a lane: the number stands where its line is alone, before the head */
      const [p, q] = a.points.slice(-2),
        size = Math.hypot(q[0] - p[0], q[1] - p[1]) || 1,
        back = HEAD + 2 + (s.across ? 7 : w / 2);
      where = [q[0] + ((p[0] - q[0]) / size) * back, q[1] + ((p[1] - q[1]) / size) * back];
    }
    g.append(
      draw("rect", {
        class: "chip fill",
        x: round(where[0] - w / 2),
        y: round(where[1] - 7),
        width: round(w),
        height: 14,
        rx: 7,
      }),
      text(where[0], where[1] + 3.4, label, 9.5, "onwave", "middle", true),
    );
  }
  for (const p of a.of) shapes.set(p.key, { g, lead: a.of[0], waves: a.of.map((o) => o.wave), many });
  return g;
}

function boxShape(item, across, toggle, shapes) {
  const { x, y, w, h } = item,
    rect = (name, more) =>
      draw("rect", { class: name, x: round(x), y: round(y), width: round(w), height: round(h), rx: 8, ...more });
  if (item.kind === "input" || item.kind === "loss") {
    const g = draw("g", { class: item.kind }, rect("body", { rx: Math.min(h / 2, 20) }));
    const lines = [[item.name, NAME, "ink", true], ...item.lines.map((l) => [l, DETAIL, "faint", false])];
    const base = y + h / 2 + 4.2 - 7.5 * (lines.length - 1);
    lines.forEach(([said, size, tone, bold], i) =>
      g.append(text(x + w / 2, base + 15 * i, shorten(said, w - 14, size, bold), size, tone, "middle", bold)),
    );
    shapes.set(item.key, { g, waves: [] });
    return g;
  }
  const d = item.thing,
    block = item.kind === "block",
    where = d.wave >= 0 ? "w" + d.wave : "none";
  const reach = d.wave < 0 ? "no error neurons" : block ? `first in wave ${d.wave}` : `wave ${d.wave}`;
  const label = block
    ? `folded block ${d.name}, ${plural(d.regions.length, "region")}, ${reach}`
    : `region ${d.name}, ${reach}`;
  const g = draw("g", {
    class: `${item.kind} ${where}${item.frozen ? " frozen" : ""}`,
    "data-key": item.key,
    role: "button",
    tabindex: "-1",
    "aria-label": label,
    "aria-expanded": block ? "false" : undefined,
    "aria-keyshortcuts": block ? "O" : undefined,
  });
  /* the card behind peeps out where no pathway arrives */
  if (block) g.append(rect("behind", { x: round(x + 5), y: round(across ? y + 5 : y - 5), width: round(w - 10) }));
  g.append(rect("body"), rect("tint rim"));
  const pitch = 15,
    base = y + h / 2 + 4.4 - (pitch / 2) * item.lines.length,
    mark = block || !item.lines.length ? 24 : 0;
  g.append(text(x + PAD, base, shorten(item.name, w - 2 * PAD - mark, NAME, true), NAME, "ink", "start", true));
  item.lines.forEach((l, i) => {
    const last = !block && i === item.lines.length - 1 ? 20 : 0;
    g.append(text(x + PAD, base + pitch * (i + 1), shorten(l, w - 2 * PAD - last, DETAIL), DETAIL, "faint", "start"));
  });
  if (block) {
    g.append(toggleShape(x + w - 15, y + (item.lines.length ? 16 : h / 2), true, d, toggle), stripes(d, x, y, w, h));
  } else if (d.wave >= 0) {
    const cx = x + w - PAD - 5,
      cy = item.lines.length ? base + pitch * item.lines.length - 3.6 : y + h / 2;
    g.append(
      draw("circle", { class: "fill", cx: round(cx), cy: round(cy), r: d.wave < 100 ? 7.5 : 9.5 }),
      text(cx, cy + 3.2, String(d.wave), d.wave < 100 ? 9 : 8, "onwave", "middle", true),
    );
  }
  shapes.set(item.key, { g, lead: d, waves: block ? d.waves : [d.wave], block });
  return g;
}

function frameShape(f, s, toggle, shapes) {
  const { box, label, block } = f,
    depth = Math.min(f.height, 3);
  const g = draw("g", { class: `frame${f.loose ? " loose" : ""}`, "data-depth": depth });
  g.append(
    draw("rect", {
      class: "area",
      x: round(box.x),
      y: round(box.y),
      width: round(box.w),
      height: round(box.h),
      rx: 10,
    }),
  );
  if (f.loose)
    g.append(
      draw("rect", {
        class: "strip",
        x: round(label.x),
        y: round(label.y),
        width: round(label.w),
        height: round(label.h),
        rx: 5,
      }),
    );
  /* the name stands in the strip beside the model: in its middle, or at its upper end */
  const head = draw("g", {
    class: "name",
    "data-key": block.key,
    role: "button",
    tabindex: "-1",
    "aria-label": `open block ${block.name}, ${plural(block.regions.length, "region")}`,
    "aria-expanded": "true",
    "aria-keyshortcuts": "O",
  });
  const room = label.w - 30,
    said = shorten(f.text, Math.max(room, 16), 11.5, true);
  const x = s.across
    ? Math.max(label.x + 4, label.x + label.w / 2 - (widthOf(said, 11.5, true) + 22) / 2)
    : label.x + 4;
  const y = s.across ? label.y + label.h / 2 : label.y + 15;
  head.append(
    draw("rect", {
      class: "pad",
      x: round(x - 2),
      y: round(y - 10),
      width: round(widthOf(said, 11.5, true) + 30),
      height: 20,
      rx: 6,
    }),
  );
  head.append(toggleShape(x + 9, y, false, block, toggle), text(x + 21, y + 4, said, 11.5, "ink", "start", true));
  g.append(head);
  shapes.set(block.key, { g: head, lead: block, waves: block.waves, open: true });
  return g;
}

/* the path of a line with rounded corners, and its arrow head */
function linePath(points, swing, across, head) {
  const end = points[points.length - 1];
  let before = points[points.length - 2];
  if (swing) before = across ? [end[0] - 1, end[1]] : [end[0], end[1] + 1];
  const size = Math.hypot(end[0] - before[0], end[1] - before[1]) || 1;
  const ux = (end[0] - before[0]) / size,
    uy = (end[1] - before[1]) / size;
  const neck = [end[0] - ux * head, end[1] - uy * head],
    wing = head * 0.42;
  const tip = [end, [neck[0] - uy * wing, neck[1] + ux * wing], [neck[0] + uy * wing, neck[1] - ux * wing]]
    .map((p) => `${round(p[0])},${round(p[1])}`)
    .join(" ");
  const line = [...points.slice(0, -1), [neck[0] + ux, neck[1] + uy]],
    pair = (p) => `${round(p[0])} ${round(p[1])}`;
  if (swing) {
    const [[x, y], [p, q]] = line,
      mx = (x + p) / 2,
      my = (y + q) / 2;
    return [`M${pair(line[0])}C${(across ? [mx, y, mx, q, p, q] : [x, my, p, my, p, q]).map(round).join(" ")}`, tip];
  }
  const parts = [`M${pair(line[0])}`];
  const toward = (corner, other, r) => {
    const d = Math.hypot(other[0] - corner[0], other[1] - corner[1]) || 1;
    return [corner[0] + ((other[0] - corner[0]) * r) / d, corner[1] + ((other[1] - corner[1]) * r) / d];
  };
  for (let i = 1; i < line.length - 1; i++) {
    const [a, corner, b] = [line[i - 1], line[i], line[i + 1]];
    const inward = Math.hypot(corner[0] - a[0], corner[1] - a[1]),
      outward = Math.hypot(corner[0] - b[0], corner[1] - b[1]);
    /* half of each side is left to the next corner, except at the ends of the line */
    const r = Math.min(ROUND, inward / (i === 1 ? 1 : 2), outward / (i === line.length - 2 ? 1 : 2));
    parts.push(`L${pair(toward(corner, a, r))}Q${pair(corner)} ${pair(toward(corner, b, r))}`);
  }
  parts.push(`L${pair(line[line.length - 1])}`);
  return [parts.join(""), tip];
}
