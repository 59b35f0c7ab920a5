/* where everything is: the visible regions and folded blocks in columns, pathways re-attached to them, frames of
   open blocks with their names in strips beside the model */
const NAME = 12.5,
  DETAIL = 10.5,
  PAD = 11,
  WIDEST = 14,
  COMPACT = 70;

function scene(plan, folded, room) {
  const shownAs = plan.regions.map((_, r) => {
    const b = plan.around[r].find((i) => folded.has(i));
    return b === undefined ? "r" + r : "b" + b;
  });
  /* the boxes: inputs, then what shows of the model in its order, then the loss */
  const items = plan.inputs.map((d, i) => ({
    key: "i" + i,
    kind: "input",
    name: d.name,
    lines: [d.shape],
    wave: -1,
  }));
  const at = new Map();
  shownAs.forEach((key, r) => {
    if (at.has(key)) return;
    at.set(key, items.length);
    items.push(key[0] === "r" ? regionItem(plan, r) : blockItem(plan, plan.byKey.get(key)));
  });
  const loss = items.length;
  items.push({ key: "loss", kind: "loss", name: "loss", lines: [], wave: -1 });
  const node = [...plan.inputs.map((_, i) => i), ...shownAs.map((k) => at.get(k)), loss];
  const links = unique(plan.links.map(([a, b]) => [node[a], node[b]]).filter(([a, b]) => a !== b));

  const [columns, places] = layered(items.length, links);
  /* to the right where that is legible or at least larger than upward */
  const long = Math.max(...columns);
  measure(items, true, false);
  const rightward = room[0] / ((long + 1) * (items[loss - 1].size[0] + 50)),
    upward = room[1] / ((long + 1) * 74);
  const across = long < WIDEST && (rightward > 0.75 || rightward > upward);
  const compact = !across && long >= COMPACT;
  measure(items, across, compact);

  /* pathways between the same two boxes are one line; those inside a folded block do not show */
  const arcs = new Map();
  for (const p of plan.pathways) {
    const s = node[plan.inputs.length + p.source],
      t = node[plan.inputs.length + p.target];
    if (s === t) continue;
    const key = `${s},${t}`;
    if (!arcs.has(key)) arcs.set(key, { source: s, target: t, of: [], wave: p.wave, tied: true });
    const a = arcs.get(key);
    a.of.push(p);
    a.wave = a.wave < 0 ? p.wave : p.wave < 0 ? a.wave : Math.min(a.wave, p.wave);
    a.tied &&= p.tied;
  }
  const lines = [...arcs.values()],
    fan = new Map();
  for (const a of lines) fan.set(a.source, (fan.get(a.source) || 0) + 1);
  for (const a of lines) a.bundled = fan.get(a.source) > 14;
  const output = plan.output >= 0 ? at.get(shownAs[plan.output]) : -1;
  const errors = lines.map((a) => ({ source: a.source, target: a.target, side: 1 }));
  if (output >= 0) errors.push({ source: loss, target: output, side: 1 });
  const far = links.filter(([a, b]) => Math.abs(columns[b] - columns[a]) !== 1);
  const wires = [...errors, ...far.map(([a, b]) => ({ source: a, target: b, side: -1 }))];

  const frames = framesOf(plan, folded, at);
  const deep = frames.reduce((n, f) => Math.max(n, f.height), 0);
  const nodes = nodesOf(items, columns, places, across);
  const space = {
    channel: (across ? 44 : compact ? 14 : 24) + 4 * deep,
    port: 13,
    track: 9,
    lane: 13,
    firstLane: 24 + 3 * deep + (lines.some((a) => a.bundled && a.of.length > 1) ? 16 : 0),
    bundle: 14,
  };
  const routed = router(nodes, wires, space);
  const routes = wires.map((_, i) => routed.points(i));
  const rims = nodes.map((n) => {
    const u = routed.left[n.column];
    return [u, n.v - n.dv / 2, u + routed.width[n.column], n.v + n.dv / 2];
  });
  placeFrames(frames, rims, routes, across);

  /* into pixels: the model runs to the right, or upward with pathways at its right */
  const all = [
    ...rims.flatMap((r) => [
      [r[0], r[1]],
      [r[2], r[3]],
    ]),
    ...routes.flat(),
    ...frames.flatMap((f) => [
      [f.rect[0], f.rect[1]],
      [f.rect[2], f.rect[3]],
      [f.bar[0], f.bar[1]],
      [f.bar[2], f.bar[3]],
    ]),
  ];
  const us = all.map((p) => p[0]),
    vs = all.map((p) => p[1]);
  const low = [least(us), least(vs)],
    high = [-least(us.map((u) => -u)), -least(vs.map((v) => -v))];
  const point = ([u, v]) => (across ? [u - low[0], high[1] - v] : [v - low[1], high[0] - u]);
  const rect = ([u1, v1, u2, v2]) => {
    const [x1, y1] = point([u1, v1]),
      [x2, y2] = point([u2, v2]);
    return { x: Math.min(x1, x2), y: Math.min(y1, y2), w: Math.abs(x1 - x2), h: Math.abs(y1 - y2) };
  };
  items.forEach((item, i) => Object.assign(item, rect(rims[i])));
  for (const f of frames) {
    f.box = rect(f.rect);
    f.label = rect(f.bar);
  }
  lines.forEach((a, i) => {
    a.points = routes[i].map(point);
  });
  const seed = output >= 0 ? { source: loss, target: output, points: routes[lines.length].map(point) } : null;
  const edges = links.map((l) => {
    const k = far.indexOf(l);
    if (k >= 0) return { source: l[0], target: l[1], points: routes[errors.length + k].map(point), swing: false };
    const [a, b] = columns[l[0]] < columns[l[1]] ? l : [l[1], l[0]];
    return {
      source: l[0],
      target: l[1],
      points: [point([rims[a][2], nodes[a].v]), point([rims[b][0], nodes[b].v])],
      swing: true,
    };
  });
  const width = across ? high[0] - low[0] : high[1] - low[1],
    height = across ? high[1] - low[1] : high[0] - low[0];
  return { items, arcs: lines, edges, seed, frames, across, compact, width, height, shownAs };
}

function least(values) {
  return values.reduce((a, b) => Math.min(a, b), Infinity);
}
function unique(links) {
  return [...new Map(links.map((l) => [l.join(), l])).values()];
}

function regionItem(plan, r) {
  const d = plan.regions[r],
    inner = plan.around[r]
      .map((i) => plan.blocks[i].name)
      .reverse()
      .find((n) => d.name.startsWith(n + "."));
  const short = inner ? d.name.slice(inner.length + 1) : d.name;
  /* a number alone says too little */
  const name = inner && /^\d+$/.test(short) ? `${inner.slice(inner.lastIndexOf(".") + 1)}.${short}` : short;
  return { key: "r" + r, kind: "region", name, lines: [d.line, d.shape], wave: d.wave, frozen: d.frozen, thing: d };
}
function blockItem(plan, b) {
  const n = plural(b.regions.length, "region");
  return {
    key: b.key,
    kind: "block",
    name: b.parent < 0 ? b.name : b.label,
    lines: [n, parametersText(b.parameters)],
    wave: b.wave,
    thing: b,
  };
}

/* boxes of one size, as wide as the texts need within limits */
function measure(items, across, compact) {
  const [narrow, wide] = across ? [84, 150] : [140, 260];
  let need = narrow;
  for (const t of items) {
    t.lines = compact ? [] : across || t.lines.length < 2 ? t.lines : [t.lines.join(" · ")];
    const mark = t.kind === "block" ? 26 : compact ? 26 : 0;
    need = Math.max(
      need,
      widthOf(t.name, NAME, true) + mark + 2 * PAD,
      ...t.lines.map((l) => widthOf(l, DETAIL) + 22 + 2 * PAD),
    );
  }
  const w = Math.ceil(Math.min(need, wide)),
    h = across ? 66 : compact ? 26 : 44;
  for (const t of items) {
    const small = t.kind === "input" || t.kind === "loss";
    t.size = small ? (across ? [Math.min(w, 88), 42] : [Math.round(w * 0.6), compact ? 24 : 36]) : [w, h];
  }
}

function nodesOf(items, columns, places, across) {
  const extents = items.map((t) => (across ? t.size : [t.size[1], t.size[0]]));
  const pitch = Math.max(...extents.map((e) => e[1])) + 28,
    ends = new Map();
  columns.forEach((c, i) => {
    const [a, b] = ends.get(c) || [places[i], places[i]];
    ends.set(c, [Math.min(a, places[i]), Math.max(b, places[i])]);
  });
  return items.map((_, i) => {
    const [a, b] = ends.get(columns[i]),
      p = places[i],
      [du, dv] = extents[i];
    const first = p === a,
      last = p === b;
    return across
      ? { column: columns[i], du, v: -p * pitch, dv, top: first, bottom: last }
      : { column: columns[i], du, v: p * pitch, dv, top: last, bottom: first };
  });
}

/* the open blocks, with the boxes inside each and how many frames are nested in it */
function framesOf(plan, folded, at) {
  const hidden = (b) => b >= 0 && (folded.has(b) || hidden(plan.blocks[b].parent));
  const frames = new Map();
  for (const b of plan.blocks) if (!hidden(b.index)) frames.set(b.index, { block: b, inside: new Set(), height: 1 });
  for (const f of [...frames.values()].reverse()) {
    const up = frames.get(f.block.parent);
    if (up) up.height = Math.max(up.height, f.height + 1);
    for (const r of f.block.regions) {
      const b = plan.around[r].find((i) => folded.has(i));
      f.inside.add(at.get(b === undefined ? "r" + r : "b" + b));
    }
  }
  return [...frames.values()];
}

function placeFrames(frames, rims, routes, across) {
  if (!frames.length) return;
  let edge = Infinity;
  for (const r of rims) edge = Math.min(edge, r[1]);
  for (const line of routes) for (const p of line) edge = Math.min(edge, p[1]);
  const thick = new Map(),
    taken = new Map();
  for (const f of frames) {
    f.text = f.block.parent < 0 ? f.block.name : f.block.label;
    const mine = [...f.inside].map((i) => rims[i]),
      pad = 5 + 3.5 * (f.height - 1);
    f.u = [Math.min(...mine.map((r) => r[0])) - pad, Math.max(...mine.map((r) => r[2])) + pad];
    f.v = [Math.min(...mine.map((r) => r[1])) - pad - 2, Math.max(...mine.map((r) => r[3])) + pad + 2];
  }
  for (const f of [...frames].sort((a, b) => a.height - b.height || a.u[0] - b.u[0])) {
    /* one strip for each depth of nesting; blocks side by side get strips of their own */
    f.strip = f.height - 1;
    const clash = (s) => (taken.get(s) || []).some((o) => o.u[0] < f.u[1] && f.u[0] < o.u[1]);
    while (clash(f.strip)) f.strip++;
    taken.set(f.strip, [...(taken.get(f.strip) || []), f]);
    const need = across ? 22 : Math.min(150, widthOf(f.text, 11.5, true) + 34);
    thick.set(f.strip, Math.max(thick.get(f.strip) || 0, need));
  }
  const starts = [];
  let v = edge - 16;
  for (let s = 0; s <= Math.max(...thick.keys()); s++) {
    starts.push(v);
    v -= (thick.get(s) || 0) + 5;
  }
  for (const f of frames) {
    const near = starts[f.strip],
      far = near - thick.get(f.strip);
    const others = rims.some((r, i) => !f.inside.has(i) && r[0] < f.u[1] && r[2] > f.u[0] && r[1] < f.v[1]);
    f.bar = [f.u[0], far, f.u[1], near];
    /* the frame reaches to its name, unless other boxes stand between */
    f.rect = others ? [f.u[0], f.v[0], f.u[1], f.v[1]] : [f.u[0], far, f.u[1], f.v[1]];
    f.loose = others;
  }
}
