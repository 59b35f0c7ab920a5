/* one drawing: its scene, what is folded, and the view of it that wheel, drag and keys move */
const MOST_OPEN = 28,
  READABLE = 0.8;

class Graph {
  constructor(number) {
    this.number = number;
    this.plan = plans[number];
    this.stage = $("stage" + number);
    this.svg = draw("svg", {
      role: "group",
      "aria-label": `${plural(this.plan.regions.length, "region")}, ${plural(this.plan.pathways.length, "error pathway")}`,
    });
    this.stage.append(this.svg);
    this.view = { x: 0, y: 0, s: 1 };
    this.touched = false;
    this.drag = null;
    this.folded = firstFolds(this.plan);
    listenTo(this);
    this.rebuild();
    this.start();
    new ResizeObserver(() => this.resized()).observe(this.stage);
    listeners.push(() => this.update());
  }

  rebuild() {
    this.wide = this.size()[0];
    this.scene = scene(this.plan, this.folded, [this.wide, 0.68 * innerHeight]);
    const made = paint(this.scene, (b) => this.toggle(b));
    this.shapes = made.shapes;
    this.edges = made.edges;
    this.svg.replaceChildren(made.root);
    this.svg.classList.toggle("large", this.scene.items.length + this.scene.arcs.length > 150);
    this.svg.classList.toggle("across", this.scene.across);
    /* ↑ and ↓ go through boxes and names of open blocks in the order of the model */
    const first = (key) =>
      key[0] === "r"
        ? [Number(key.slice(1)), 1e9]
        : [
            this.plan.byKey.get(key).regions[0],
            this.plan.around[this.plan.byKey.get(key).regions[0]].indexOf(Number(key.slice(1))),
          ];
    this.order = [...this.shapes.keys()]
      .filter((k) => "rb".includes(k[0]))
      .sort((a, b) => first(a)[0] - first(b)[0] || first(a)[1] - first(b)[1]);
    const last = this.order[this.order.length - 1];
    if (last) this.shapes.get(last).g.setAttribute("tabindex", "0");
  }

  /* the shape of a thing: its own, or that of the folded block it is in */
  shapeOf(thing) {
    if (!thing) return null;
    const own = this.shapes.get(thing.key);
    if (own) return own;
    if (thing.kind === "region") return this.shapes.get(this.scene.shownAs[thing.index]);
    if (thing.kind === "pathway") return this.shapes.get(this.scene.shownAs[thing.target]);
    return this.shapes.get(this.scene.shownAs[thing.regions[0]]);
  }

  toggle(block, want) {
    const closed = this.folded.has(block),
      close = want ?? !closed;
    if (close === closed) return;
    const key = "b" + block,
      before = this.shapeOf(this.plan.blocks[block]).g.getBoundingClientRect();
    const focused = this.svg.contains(document.activeElement);
    if (close) this.folded.add(block);
    else this.folded.delete(block);
    this.rebuild();
    if (this.touched) {
      /* what was clicked stays where it was */
      this.apply();
      const now = this.shapeOf(this.plan.blocks[block]).g.getBoundingClientRect();
      this.view.x += (now.left + now.width / 2 - before.left - before.width / 2) / this.view.s;
      this.view.y += (now.top + now.height / 2 - before.top - before.height / 2) / this.view.s;
      this.apply();
    } else this.start();
    if (focused) this.focus(this.shapes.has(key) ? key : this.scene.shownAs[this.plan.blocks[block].regions[0]]);
    show();
  }
  foldAll(close) {
    this.folded = new Set(close ? this.plan.blocks.map((b) => b.index) : []);
    this.touched = false;
    this.rebuild();
    this.start();
  }

  focus(key) {
    const shape = this.shapes.get(key);
    if (!shape) return;
    for (const g of this.svg.querySelectorAll('[tabindex="0"]')) g.setAttribute("tabindex", "-1");
    shape.g.setAttribute("tabindex", "0");
    shape.g.focus({ preventScroll: true });
    this.bring(shape.g);
  }
  step(by) {
    const focused = document.activeElement?.dataset?.key;
    let k = this.order.indexOf(focused);
    if (k < 0) k = this.order.indexOf(this.svg.querySelector('[tabindex="0"]')?.dataset.key);
    else k += by;
    this.focus(this.order[Math.min(Math.max(k, 0), this.order.length - 1)]);
  }

  /* keys of what shows along the way of the error to a thing, from the output on */
  errorPath(thing) {
    const plan = this.plan,
      found = new Set(),
      seen = new Set(),
      todo = [];
    const visit = (r) => {
      if (!seen.has(r)) {
        seen.add(r);
        todo.push(r);
      }
    };
    if (thing.kind === "block") thing.regions.forEach(visit);
    else if (thing.kind === "region") visit(thing.index);
    else {
      visit(thing.source);
      found.add(thing.key);
      found.add(this.scene.shownAs[thing.target]);
    }
    if (thing.kind === "block") found.add(thing.key);
    while (todo.length) {
      const r = todo.pop();
      found.add(this.scene.shownAs[r]);
      for (const p of plan.into[r]) {
        found.add(p.key);
        visit(p.source);
      }
    }
    return found;
  }

  update() {
    const main = chosen();
    const thing = this.number === state.plan ? main : counterpart(main, this.plan);
    const path = thing ? this.errorPath(thing) : null,
      pinned = byPlan(this.number, state.pinned);
    const wave = state.wave,
      hits = state.query ? new Set(state.hits.filter((h) => h.plan === this.number).map((h) => h.thing.key)) : null;
    const groups = new Map();
    for (const [key, s] of this.shapes) {
      if (!s.lead) continue;
      if (!groups.has(s.g)) groups.set(s.g, { s, keys: [] });
      groups.get(s.g).keys.push(key);
    }
    const hitShapes = new Set();
    if (hits)
      for (const k of hits) {
        const s = this.shapeOf(this.plan.byKey.get(k));
        if (s) hitShapes.add(s.g);
      }
    for (const [g, { s, keys }] of groups) {
      const reached = wave === null || s.waves.some((w) => w >= 0 && w <= wave);
      g.classList.toggle("off", !reached && !s.open);
      g.classList.toggle("now", wave !== null && s.waves.includes(wave));
      g.classList.toggle(
        "dim",
        Boolean(path ? !keys.some((k) => path.has(k)) : hits && !hitShapes.has(g)) && !s.open,
      );
      g.classList.toggle("on", Boolean(path && keys.some((k) => path.has(k))));
      g.classList.toggle("hitting", hitShapes.has(g));
      g.classList.toggle("pinned", Boolean(pinned) && keys.includes(pinned.key));
      g.setAttribute("aria-pressed", String(Boolean(pinned) && keys.includes(pinned.key)));
      if (s.block)
        for (const r of g.querySelectorAll(".stripes rect"))
          r.classList.toggle("later", wave !== null && Number(r.dataset.wave) > wave);
    }
    const quiet = Boolean(path || hits);
    for (const e of this.edges) e.g.classList.toggle("dim", quiet);
    for (const key of ["loss", ...this.plan.inputs.map((_, i) => "i" + i)])
      this.shapes.get(key).g.classList.toggle("dim", quiet && !(path && key === "loss"));
    if (this.scene.seed) {
      this.scene.seed.g.classList.toggle("off", wave !== null && wave < 0);
      this.scene.seed.g.classList.toggle("now", wave === 0);
      this.scene.seed.g.classList.toggle("dim", Boolean(hits));
    }
    this.svg.classList.toggle("forward", wave === -1);
    this.svg.classList.toggle("stepping", wave !== null && wave >= 0);
  }

  /* the view: the point of the drawing at the stage's top left corner, and pixels per unit */
  size() {
    return [this.stage.clientWidth || 800, this.stage.clientHeight || 500];
  }
  apply() {
    const [w, h] = this.size(),
      { x, y, s } = this.view;
    this.svg.setAttribute("viewBox", [x, y, w / s, h / s].map(round).join(" "));
  }
  centre(s) {
    const [w, h] = this.size();
    Object.assign(this.view, { s, x: (this.scene.width - w / s) / 2, y: (this.scene.height - h / s) / 2 });
  }
  fit() {
    const [w, h] = this.size();
    this.centre(Math.min((w - 36) / this.scene.width, (h - 36) / this.scene.height, 1.5));
    this.apply();
  }
  start() {
    /* a flat drawing gets a flat stage */
    const high =
      Math.round((this.scene.height * Math.min((this.stage.clientWidth - 36) / this.scene.width, 1.5) + 60) / 20) *
      20;
    this.stage.style.height = `clamp(var(--flat), ${high}px, 68vh)`;
    const [w, h] = this.size();
    this.fit();
    if (this.view.s < READABLE) {
      /* a tall or wide graph starts readable, at the output: its top, or its right end. The names of blocks stand at
         the left of one that runs upward */
      this.centre(Math.min(0.9, Math.max((w - 36) / this.scene.width, (h - 36) / this.scene.height, READABLE)));
      if (this.scene.height * this.view.s > h) this.view.y = -18 / this.view.s;
      if (this.scene.width * this.view.s > w)
        this.view.x = this.scene.across ? this.scene.width - (w - 18) / this.view.s : -18 / this.view.s;
      this.apply();
    }
  }
  resized() {
    if (this.touched || !this.stage.clientWidth) return this.apply();
    /* a stage of another shape may want another direction */
    if (Math.abs(this.stage.clientWidth - this.wide) > 0.15 * this.wide) {
      this.rebuild();
      this.update();
    }
    return this.start();
  }
  zoom(by, px, py) {
    const [w, h] = this.size(),
      s = Math.min(6, Math.max(0.02, this.view.s * by)),
      x = px ?? w / 2,
      y = py ?? h / 2;
    this.view.x += x / this.view.s - x / s;
    this.view.y += y / this.view.s - y / s;
    this.view.s = s;
    this.touched = true;
    this.apply();
  }
  bring(g) {
    const box = g.getBoundingClientRect(),
      frame = this.stage.getBoundingClientRect(),
      edge = 24;
    const x = box.left + box.width / 2 - frame.left,
      y = box.top + box.height / 2 - frame.top;
    if (x > edge && y > edge && x < frame.width - edge && y < frame.height - edge) return;
    this.view.x += (x - frame.width / 2) / this.view.s;
    this.view.y += (y - frame.height / 2) / this.view.s;
    this.touched = true;
    this.apply();
  }
  /* open the blocks around a thing and bring it into view */
  reveal(thing) {
    if (!thing) return;
    const ends =
      thing.kind === "pathway" ? [thing.source, thing.target] : thing.kind === "region" ? [thing.index] : [];
    const closed = [...new Set(ends.flatMap((r) => this.plan.around[r]))].filter((b) => this.folded.has(b));
    if (closed.length) {
      for (const b of closed) this.folded.delete(b);
      this.rebuild();
      if (!this.touched) this.start();
      else this.apply();
      this.update();
    }
    const shape = this.shapeOf(thing);
    if (shape) this.bring(shape.g);
  }
}

function byPlan(number, key) {
  const thing = plans[state.plan].byKey.get(key) || null;
  return number === state.plan ? thing : counterpart(thing, plans[number]);
}

/* a big model starts folded: the outer blocks open first, as long as not too many boxes show */
function firstFolds(plan) {
  const folded = new Set(plan.blocks.map((b) => b.index)),
    inside = (p) => plan.blocks.filter((b) => b.parent === p);
  if (plan.regions.length <= MOST_OPEN) return new Set();
  const direct = (p) =>
    (p < 0
      ? plan.regions.filter((_, r) => !plan.around[r].length).length
      : plan.blocks[p].regions.filter((r) => plan.around[r][plan.around[r].length - 1] === p).length) +
    inside(p).length;
  let shown = direct(-1),
    todo = inside(-1);
  while (todo.length) {
    const more = todo.reduce((n, b) => n + direct(b.index) - 1, 0);
    if (shown + more > MOST_OPEN) break;
    shown += more;
    for (const b of todo) folded.delete(b.index);
    todo = todo.flatMap((b) => inside(b.index));
  }
  return folded;
}
