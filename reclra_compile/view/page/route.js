/* routes for lines, so that none runs through a box it does not touch; the rules are those of route.py.
   u runs along the model, v across it. A node is {column, du, v, dv, top, bottom}, a wire {source, target, side}. */
function router(nodes, wires, space) {
  const columns = Math.max(...nodes.map((n) => n.column)) + 1;
  const wayOf = (node, other) => (nodes[other].column < nodes[node].column ? -1 : 1);
  const group = (map, key, value) => (map.has(key) ? map.get(key).push(value) : map.set(key, [value]));

  const bundles = wires.map((_, i) => i),
    fans = new Map();
  wires.forEach((w, i) => group(fans, `${w.source},${w.side},${wayOf(w.source, w.target)}`, i));
  for (const members of fans.values()) {
    const most = wires[members[0]].side > 0 ? space.bundle : 1;
    if (members.length > most) for (const i of members) bundles[i] = members[0];
  }

  const endOf = (wire, node, other) => {
    const n = nodes[node],
      way = wayOf(node, other),
      outer = wires[wire].side > 0 ? n.top : n.bottom;
    const port = outer && n.column !== nodes[other].column;
    const channel = way > 0 ? n.column : n.column - 1;
    const cell = port ? 4 * n.column + (way > 0 ? 1 : 0) : 4 * channel + (way > 0 ? 2 : 3);
    return { wire, node, way, port, cell, channel, track: 0, seat: 0, seats: 1 };
  };
  const ends = wires.map((w, i) => [endOf(i, w.source, w.target), endOf(i, w.target, w.source)]);
  const spanOf = (i) => {
    const [a, b] = ends[i];
    return [Math.min(a.cell, b.cell), Math.max(a.cell, b.cell)];
  };
  const width0 = (i) => {
    const [a, b] = spanOf(i);
    return b - a;
  };

  /* tracks: lower boxes and shorter wires turn farther from the box, so that they stay inside the others */
  const used = new Map();
  const inChannels = [];
  for (const pair of ends) for (const end of pair) if (!end.port) inChannels.push([end, end === pair[0]]);
  const height = (e) => -wires[e.wire].side * nodes[e.node].v;
  inChannels.sort(([a], [b]) => height(a) - height(b) || width0(b.wire) - width0(a.wire) || a.wire - b.wire);
  for (const [end, shared] of inChannels) {
    const channel = 2 * end.channel + (end.way < 0 ? 1 : 0);
    if (!used.has(channel)) used.set(channel, new Map());
    const mine = used.get(channel),
      key = `${end.node},${shared ? bundles[end.wire] : ~end.wire}`;
    if (!mine.has(key)) mine.set(key, mine.size);
    end.track = mine.get(key);
  }
  const lengthOf = (i) => width0(i) - ends[i].reduce((s, e) => s + (e.port ? 0 : e.track), 0) / 1024;

  /* seats: longer wires nest outside shorter ones */
  const faces = new Map();
  for (const [source, target] of ends) {
    for (const [end, shared] of [
      [source, true],
      [target, false],
    ]) {
      const face = `${end.node},${wires[end.wire].side},${end.port ? 0 : end.way}`;
      if (!faces.has(face)) faces.set(face, new Map());
      group(faces.get(face), shared ? bundles[end.wire] : ~end.wire, end);
    }
  }
  for (const groups of faces.values()) {
    const ranked = [...groups.values()].map((list) => {
      const long = Math.max(...list.map((e) => lengthOf(e.wire))),
        way = list[0].port ? list[0].way : 1;
      return { list, way, long: -way * long, wire: list[0].wire };
    });
    ranked.sort((a, b) => a.way - b.way || a.long - b.long || a.wire - b.wire);
    ranked.forEach((r, k) => {
      for (const e of r.list) {
        e.seat = k;
        e.seats = ranked.length;
      }
    });
  }

  /* columns: wide enough for their ports, channels wide enough for their tracks */
  const ports = new Array(columns).fill(0),
    width = new Array(columns).fill(0),
    left = [0];
  for (const n of nodes) width[n.column] = Math.max(width[n.column], n.du);
  for (const pair of ends) {
    for (const e of pair) if (e.port) ports[nodes[e.node].column] = Math.max(ports[nodes[e.node].column], e.seats);
  }
  for (let c = 0; c < columns; c++) width[c] = Math.max(width[c], 16 + (space.port / 2) * ports[c]);
  const size = (k) => (used.has(k) ? used.get(k).size : 0);
  for (let c = 0; c < columns - 1; c++) {
    const tracks = size(2 * c) + size(2 * c + 1);
    left.push(left[c] + width[c] + space.channel + (tracks ? 14 + space.track * (tracks - 1) : 0));
  }

  /* lanes beyond the boxes, as near to them as the boxes and the shorter wires below allow */
  const local = (i) => ends[i].every((e) => !e.port) && ends[i][0].channel === ends[i][1].channel;
  const levels = new Array(wires.length).fill(null);
  for (const side of [1, -1]) {
    const free = new Array(4 * columns).fill(-Infinity);
    for (const n of nodes) {
      const rim = side * n.v + n.dv / 2 + space.firstLane - space.lane;
      for (const cell of [4 * n.column, 4 * n.column + 1]) free[cell] = Math.max(free[cell], rim);
    }
    const groups = new Map();
    wires.forEach((w, i) => {
      if (w.side === side && !local(i)) group(groups, bundles[i], i);
    });
    const hulls = [...groups].map(([g, m]) => {
      const spans = m.map(spanOf);
      return {
        g,
        m,
        a: Math.min(...spans.map((s) => s[0])),
        b: Math.max(...spans.map((s) => s[1])),
        long: Math.max(...m.map(lengthOf)),
      };
    });
    hulls.sort((x, y) => x.b - x.a - (y.b - y.a) || x.long - y.long || x.g - y.g);
    for (const { m, a, b } of hulls) {
      let level = -Infinity;
      for (let c = a; c <= b; c++) level = Math.max(level, free[c]);
      level += space.lane;
      free.fill(level, a, b + 1);
      for (const i of m) levels[i] = side * level;
    }
  }

  function leave(end) {
    const n = nodes[end.node],
      side = wires[end.wire].side,
      x = left[n.column],
      w = width[n.column];
    if (end.port) {
      const step = end.seats > 1 ? Math.min(space.port, (w - 14) / (end.seats - 1)) : 0;
      return [[x + w / 2 + (end.seat - (end.seats - 1) / 2) * step, n.v + (side * n.dv) / 2]];
    }
    /* the middle of this face is where forward edges meet the box */
    const step = end.seats > 1 ? Math.min(7, (n.dv / 2 - 16) / (end.seats - 1)) : 0;
    const v = n.v + side * (n.dv / 2 - 8 - end.seat * step),
      edge = end.way > 0 ? x + w : x;
    return [
      [edge, v],
      [edge + end.way * (18 + space.track * end.track), v],
    ];
  }
  function points(i) {
    const first = leave(ends[i][0]),
      last = leave(ends[i][1]),
      level = levels[i];
    if (level === null) return tidy([...first, [first[1][0], last[0][1]], last[0]]);
    return tidy([
      ...first,
      [first[first.length - 1][0], level],
      [last[last.length - 1][0], level],
      ...last.reverse(),
    ]);
  }
  return { points, left, width };
}

/* points without repetitions and without those on a straight line between their neighbours */
function tidy(points) {
  const kept = [],
    near = (a, b) => Math.abs(a - b) < 1e-9;
  for (const p of points) {
    const end = kept[kept.length - 1];
    if (end && near(p[0], end[0]) && near(p[1], end[1])) continue;
    const straight = (a, b) => [0, 1].some((k) => near(Math.abs(a[k] - b[k]) + Math.abs(b[k] - p[k]), 0));
    while (kept.length > 1 && straight(kept[kept.length - 2], kept[kept.length - 1])) kept.pop();
    kept.push(p);
  }
  return kept;
}
