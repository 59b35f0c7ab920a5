/* marks on blocks: the waves of their regions, and what opens and folds them */

/* along the lower rim of a folded block: how many of its regions are in which wave */
function stripes(b, x, y, w, h) {
  const g = draw("g", { class: "stripes" }),
    sorted = [...b.waves].sort((p, q) => p - q),
    each = (w - 16) / sorted.length;
  let from = 0;
  for (let i = 1; i <= sorted.length; i++) {
    if (i < sorted.length && sorted[i] === sorted[from]) continue;
    const wave = sorted[from];
    g.append(
      draw("rect", {
        class: wave >= 0 ? `fill w${wave}` : "fill none",
        "data-wave": wave,
        x: round(x + 8 + each * from),
        y: round(y + h - 6),
        width: round(Math.max(each * (i - from) - (sorted.length < 60 ? 0.8 : 0), 0.5)),
        height: 3,
      }),
    );
    from = i;
  }
  return g;
}

/* the second half of a double click: what was clicked has moved, and something else may be there now */
let toggled = { at: -Infinity, x: 0, y: 0 };
function again(e) {
  const near = Math.hypot(e.clientX - toggled.x, e.clientY - toggled.y) < 8;
  return e.isTrusted && near && performance.now() - toggled.at < 500;
}

function toggleShape(cx, cy, closed, block, toggle) {
  const g = draw(
    "g",
    { class: "toggle", "aria-hidden": "true" },
    draw("circle", { class: "pad", cx: round(cx), cy: round(cy), r: 11 }),
    draw("circle", { class: "ring", cx: round(cx), cy: round(cy), r: 7 }),
    draw("path", { d: `M${round(cx - 3.5)} ${round(cy)}h7${closed ? `M${round(cx)} ${round(cy - 3.5)}v7` : ""}` }),
  );
  g.append(draw("title", {}, closed ? `open ${block.name}` : `fold ${block.name}`));
  g.addEventListener("pointerup", (e) => {
    e.stopPropagation();
    if (again(e)) return;
    toggled = { at: performance.now(), x: e.clientX, y: e.clientY };
    toggle(block.index);
  });
  g.addEventListener("pointerdown", (e) => e.stopPropagation());
  return g;
}
