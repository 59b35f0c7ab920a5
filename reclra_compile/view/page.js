"use strict";
(() => {
  const data = JSON.parse(document.getElementById("plan").textContent);
  const $ = (id) => document.getElementById(id);
  const svg = $("graph"), stage = $("stage"), panel = $("panel"), search = $("search");
  const things = [
    ...data.regions.map((d, i) => ({ ...d, kind: "region", index: i, key: "r" + i })),
    ...data.pathways.map((d, i) => ({ ...d, kind: "pathway", index: i, key: "p" + i })),
  ];
  const byKey = new Map(things.map((t) => [t.key, t]));
  const into = data.regions.map(() => []), outOf = data.regions.map(() => []);
  for (const t of things) {
    t.shape = $(t.key);
    t.row = $("t" + t.key);
    t.words = [t.name, ...t.facts.map((f) => f[1])].join("\n").toLowerCase();
    if (t.kind === "pathway") {
      into[t.target].push(t);
      outOf[t.source].push(t);
    }
  }
  const others = [...svg.querySelectorAll(".edge, .input")];
  const origin = [...svg.querySelectorAll(".loss, .seed")];
  const first = data.regions.findIndex((r) => r.wave === 0);
  /* fading hundreds of shapes at once is slow to paint */
  svg.classList.toggle("large", things.length > 150);
  const last = Math.max(data.waves - 1, 0);
  const state = { wave: last, pinned: null, over: null, query: "" };

  /* the shapes through which errors reach a region or pathway, from the output down */
  function errorPath(thing) {
    const found = new Set([thing.key]), todo = [];
    const regions = new Set();
    const visit = (r) => { if (!regions.has(r)) { regions.add(r); todo.push(r); } };
    visit(thing.kind === "region" ? thing.index : thing.source);
    if (thing.kind === "pathway") found.add("r" + thing.target);
    while (todo.length) {
      const r = todo.pop();
      found.add("r" + r);
      for (const p of into[r]) { found.add(p.key); visit(p.source); }
    }
    return found;
  }

  function show() {
    const chosen = byKey.get(state.over) || byKey.get(state.pinned) || null;
    const path = chosen ? errorPath(chosen) : null;
    let hits = 0;
    for (const t of things) {
      const match = !state.query || t.words.includes(state.query);
      hits += match;
      t.shape.classList.toggle("off", t.wave > state.wave);
      t.shape.classList.toggle("dim", path ? !path.has(t.key) : !match);
      t.shape.classList.toggle("on", Boolean(path && path.has(t.key)));
      t.shape.setAttribute("aria-pressed", String(state.pinned === t.key));
      t.row.hidden = !match;
      t.row.classList.toggle("on", Boolean(chosen && chosen.key === t.key));
    }
    for (const o of others) o.classList.toggle("dim", Boolean(path || state.query));
    for (const o of origin) o.classList.toggle("dim", path ? !path.has("r" + first) : Boolean(state.query));
    $("wave").textContent = `wave ${state.wave} of ${last}`;
    $("prev").disabled = state.wave === 0;
    $("next").disabled = state.wave === last;
    $("found").textContent = state.query ? `${hits} of ${things.length}` : "";
    describe(chosen);
  }

  function make(tag, text, name) {
    const e = document.createElement(tag);
    if (text !== undefined) e.textContent = text;
    if (name) e.className = name;
    return e;
  }

  let described;
  function describe(thing) {
    if (described === thing) return;
    described = thing;
    panel.replaceChildren();
    if (!thing) {
      panel.append(make("h2", "Details"));
      panel.append(make("p", "Point at a region or an error pathway. Click keeps it, Escape lets it go.", "hint"));
      return;
    }
    panel.append(make("h2", thing.name));
    const kind = make("div", undefined, "kind" + (thing.wave >= 0 ? " w" + thing.wave : ""));
    kind.append(make("span", undefined, "dot"), make("span", thing.kind === "region" ? "region" : "error pathway"));
    const list = make("dl");
    for (const [k, v] of thing.facts) {
      const pair = make("div");
      pair.append(make("dt", k), make("dd", v));
      list.append(pair);
    }
    panel.append(kind, list);
    if (thing.kind === "region") {
      links("errors arrive by", into[thing.index]);
      links("errors leave by", outOf[thing.index]);
    } else {
      links("between", [byKey.get("r" + thing.source), byKey.get("r" + thing.target)]);
    }
  }

  function links(title, list) {
    if (!list.length) return;
    const ul = make("ul");
    for (const t of list) {
      const li = make("li"), b = make("button", t.name);
      b.type = "button";
      b.addEventListener("click", () => { state.over = null; pin(t.key, true); });
      li.append(b);
      ul.append(li);
    }
    panel.append(make("h3", title), ul);
  }

  function pin(key, keep) {
    state.pinned = state.pinned === key && !keep ? null : key;
    show();
  }

  function step(to) {
    state.wave = Math.min(last, Math.max(0, to));
    show();
  }

  let timer = 0;
  function stop() {
    clearInterval(timer);
    timer = 0;
    $("play").textContent = "Play";
  }
  $("play").addEventListener("click", () => {
    if (timer) return stop();
    step(state.wave === last ? 0 : state.wave + 1);
    $("play").textContent = "Pause";
    timer = setInterval(() => {
      if (state.wave === last) return stop();
      step(state.wave + 1);
    }, Math.max(120, Math.min(900, 12000 / (last + 1))));
  });
  $("prev").addEventListener("click", () => { stop(); step(state.wave - 1); });
  $("next").addEventListener("click", () => { stop(); step(state.wave + 1); });
  $("all").addEventListener("click", () => { stop(); step(last); });

  for (const t of things) {
    const over = (key) => () => { if (!drag) { state.over = key; show(); } };
    t.shape.addEventListener("pointerenter", over(t.key));
    t.shape.addEventListener("pointerleave", over(null));
    t.shape.addEventListener("focus", () => { if (t.shape.matches(":focus-visible")) { state.over = t.key; reveal(t); show(); } });
    t.shape.addEventListener("blur", over(null));
    t.row.querySelector("button").addEventListener("click", () => { pin(t.key, true); reveal(t); stage.scrollIntoView({ block: "nearest" }); });
  }

  search.addEventListener("input", () => { state.query = search.value.trim().toLowerCase(); show(); });
  search.addEventListener("keydown", (e) => {
    if (e.key !== "Enter") return;
    const hit = things.find((t) => state.query && t.words.includes(state.query));
    if (hit) { pin(hit.key, true); reveal(hit); }
  });

  document.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    const typing = e.target === search;
    if (e.key === "Escape") {
      if (typing) { search.value = ""; state.query = ""; search.blur(); }
      state.pinned = state.over = null;
      show();
    } else if (typing) {
      return;
    } else if (e.key === "/") {
      e.preventDefault();
      search.focus();
    } else if (e.key === "ArrowLeft" || e.key === "ArrowRight") {
      e.preventDefault();
      stop();
      step(state.wave + (e.key === "ArrowRight" ? 1 : -1));
    } else if (e.key === "+" || e.key === "=") {
      zoom(1.25);
    } else if (e.key === "-") {
      zoom(0.8);
    } else if (e.key === "0") {
      touched = true;
      fit();
    } else if ((e.key === "Enter" || e.key === " ") && byKey.has(e.target.id)) {
      e.preventDefault();
      pin(e.target.id);
    }
  });

  /* the view: the point of the graph at the stage's top left corner, and pixels per unit */
  const [bx, by, bw, bh] = svg.getAttribute("viewBox").split(" ").map(Number);
  const view = { x: bx, y: by, s: 1 };
  let touched = false, drag = null;
  const size = () => [stage.clientWidth || 1, stage.clientHeight || 1];

  function apply() {
    const [w, h] = size();
    svg.setAttribute("viewBox", [view.x, view.y, w / view.s, h / view.s].join(" "));
  }
  function centre(s) {
    const [w, h] = size();
    view.s = s;
    view.x = bx + (bw - w / s) / 2;
    view.y = by + (bh - h / s) / 2;
  }
  function fit() {
    const [w, h] = size();
    centre(Math.min(w / bw, h / bh, 1.6));
    apply();
  }
  function start() {
    const [w, h] = size();
    fit();
    if (view.s < 0.5) {
      /* a tall or wide graph starts readable, at the output: its top, or its right end */
      centre(Math.min(1, Math.max(w / bw, h / bh)));
      if (bh * view.s > h) view.y = by;
      if (bw * view.s > w) view.x = bx + bw - w / view.s;
      apply();
    }
  }
  function zoom(by, px, py) {
    const [w, h] = size();
    const s = Math.min(6, Math.max(0.02, view.s * by));
    const x = px ?? w / 2, y = py ?? h / 2;
    view.x += x / view.s - x / s;
    view.y += y / view.s - y / s;
    view.s = s;
    touched = true;
    apply();
  }
  function reveal(t) {
    const box = t.shape.getBoundingClientRect(), frame = stage.getBoundingClientRect();
    const dx = box.left + box.width / 2 - frame.left, dy = box.top + box.height / 2 - frame.top;
    if (dx > 0 && dy > 0 && dx < frame.width && dy < frame.height) return;
    view.x += (dx - frame.width / 2) / view.s;
    view.y += (dy - frame.height / 2) / view.s;
    touched = true;
    apply();
  }
  stage.addEventListener("wheel", (e) => {
    e.preventDefault();
    const r = stage.getBoundingClientRect();
    zoom(Math.exp(-e.deltaY * (e.deltaMode === 1 ? 0.05 : 0.0016)), e.clientX - r.left, e.clientY - r.top);
  }, { passive: false });
  stage.addEventListener("pointerdown", (e) => {
    if (e.button !== 0) return;
    drag = { x: e.clientX, y: e.clientY, moved: false, on: e.target.closest("[id].region, [id].arc") };
  });
  stage.addEventListener("pointermove", (e) => {
    if (!drag) return;
    if (!drag.moved && Math.hypot(e.clientX - drag.x, e.clientY - drag.y) < 5) return;
    if (!drag.moved) { drag.moved = true; stage.setPointerCapture(e.pointerId); stage.classList.add("drag"); }
    view.x -= (e.clientX - drag.x) / view.s;
    view.y -= (e.clientY - drag.y) / view.s;
    drag.x = e.clientX;
    drag.y = e.clientY;
    touched = true;
    apply();
  });
  addEventListener("pointerup", () => {
    const d = drag;
    drag = null;
    stage.classList.remove("drag");
    if (d && !d.moved) pin(d.on ? d.on.id : null);
  });
  addEventListener("pointercancel", () => { drag = null; stage.classList.remove("drag"); });
  $("in").addEventListener("click", () => zoom(1.25));
  $("out").addEventListener("click", () => zoom(0.8));
  $("fit").addEventListener("click", () => { touched = true; fit(); });
  addEventListener("resize", () => (touched ? apply() : start()));

  $("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  start();
  show();
  document.body.dataset.ready = "true";
})();
