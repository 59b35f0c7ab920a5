/* columns of a directed graph and places across them, as the still pictures have them: layers.py has the same rules */
function layered(count, links) {
  const after = [],
    before = [];
  for (let n = 0; n < count; n++) {
    after.push([]);
    before.push([]);
  }
  for (const [a, b] of links) {
    after[a].push(b);
    before[b].push(a);
  }
  const columns = new Array(count).fill(0),
    open = before.map((l) => l.length),
    done = new Array(count).fill(false);
  let ready = [];
  for (let n = 0; n < count; n++) if (!open[n]) ready.push(n);
  for (let left = count; left > 0; left--) {
    /* folded blocks can wait for each other in a circle: then the first in the model's order goes first */
    const n = ready.length ? ready.shift() : done.indexOf(false);
    done[n] = true;
    for (const m of after[n]) {
      if (done[m]) continue;
      columns[m] = Math.max(columns[m], columns[n] + 1);
      if (!--open[m]) ready.push(m);
    }
  }
  for (let n = 0; n < count; n++) {
    /* an input that only a late region reads stands next to that region */
    if (!before[n].length && after[n].length) columns[n] = Math.min(...after[n].map((m) => columns[m])) - 1;
  }
  const least = Math.min(...columns, 0);
  if (least < 0) for (let n = 0; n < count; n++) columns[n] -= least;
  const rows = [];
  for (let n = 0; n < count; n++) (rows[columns[n]] ||= []).push(n);
  for (let c = 0; c < rows.length; c++) rows[c] ||= [];
  orderRows(rows, before, after);
  return [columns, spreadRows(rows, columns, before, after)];
}

function orderRows(rows, before, after) {
  const place = [];
  const set = (row) =>
    row.forEach((n, i) => {
      place[n] = i - (row.length - 1) / 2;
    });
  rows.forEach(set);
  for (let sweep = 0; sweep < 6; sweep++) {
    const forward = sweep % 2 === 0;
    for (const row of forward ? rows : [...rows].reverse()) {
      const centre = new Map();
      for (const n of row) {
        const near = forward ? before[n] : after[n];
        centre.set(n, near.length ? near.reduce((s, m) => s + place[m], 0) / near.length : place[n]);
      }
      row.sort((a, b) => centre.get(a) - centre.get(b) || place[a] - place[b]);
      set(row);
    }
  }
}

function spreadRows(rows, columns, before, after) {
  const at = [];
  rows.forEach((row) =>
    row.forEach((n, i) => {
      at[n] = i - (row.length - 1) / 2;
    }),
  );
  for (let sweep = 0; sweep < 8; sweep++) {
    const forward = sweep % 2 === 0;
    for (const row of forward ? rows : [...rows].reverse()) {
      const wish = row.map((n) => {
        const near = (forward ? before[n] : after[n]).filter((m) => Math.abs(columns[m] - columns[n]) === 1);
        return near.length ? near.reduce((s, m) => s + at[m], 0) / near.length : at[n];
      });
      apart(wish).forEach((v, i) => {
        at[row[i]] = v;
      });
    }
  }
  const middle = (Math.max(...at) + Math.min(...at)) / 2;
  return at.map((v) => Math.round((v - middle) * 1000) / 1000);
}

/* the places nearest to `wish` that are 1 or more apart, in the same order */
function apart(wish) {
  const blocks = [];
  wish.forEach((w, i) => {
    let mean = w - i,
      size = 1;
    while (blocks.length && blocks[blocks.length - 1][0] >= mean) {
      const [m, k] = blocks.pop();
      mean = (mean * size + m * k) / (size + k);
      size += k;
    }
    blocks.push([mean, size]);
  });
  const flat = [];
  for (const [mean, size] of blocks) for (let k = 0; k < size; k++) flat.push(mean);
  return flat.map((f, i) => f + i);
}
