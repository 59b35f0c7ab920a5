"use strict";
(() => {
  const { left, right, until } = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const svg = $("chart"), stage = $("stage"), about = $("about"), hint = about.textContent;
  const bars = [...svg.querySelectorAll(".bar")].map((g) => ({
    start: Number(g.dataset.s), end: Number(g.dataset.e), rect: g.querySelector("rect"), text: g.querySelector("text"),
  }));
  const ticks = [...svg.querySelectorAll(".tick")].map((g) => ({ at: Number(g.dataset.t), g, x: null }));
  for (const t of ticks) t.x = Number(/M([\d.-]+)/.exec(t.g.querySelector("path").getAttribute("d"))[1]);
  const view = { from: 0, span: until };

  function show() {
    const scale = (right - left) / view.span;
    for (const b of bars) {
      const x = left + (b.start - view.from) * scale, w = Math.max((b.end - b.start) * scale, 0.4);
      const there = x < right && x + w > left;
      b.rect.parentNode.style.display = there ? "" : "none";
      if (!there) continue;
      b.rect.setAttribute("x", x.toFixed(2));
      b.rect.setAttribute("width", (w - (w > 3 ? 0.6 : 0)).toFixed(2));
      if (!b.text) continue;
      const middle = (Math.max(x, left) + Math.min(x + w, right)) / 2;
      b.text.setAttribute("x", middle.toFixed(2));
      b.text.setAttribute("visibility", w > 6.4 * b.text.textContent.length + 3 ? "visible" : "hidden");
    }
    for (const t of ticks) t.g.setAttribute("transform", `translate(${left + (t.at - view.from) * scale - t.x} 0)`);
  }

  function place(from, span) {
    view.span = Math.min(until, Math.max(until / 20000, span));
    view.from = Math.min(until - view.span, Math.max(0, from));
    show();
  }
  function zoom(by, at) {
    const t = at ?? view.from + view.span / 2, span = Math.min(until, view.span / by);
    place(t - (t - view.from) * span / view.span, span);
  }
  function timeAt(clientX) {
    const r = svg.getBoundingClientRect();
    const x = (clientX - r.left) / r.width * svg.viewBox.baseVal.width;
    return view.from + (x - left) / (right - left) * view.span;
  }

  stage.addEventListener("wheel", (e) => {
    if (!e.ctrlKey && Math.abs(e.deltaX) > Math.abs(e.deltaY)) {
      e.preventDefault();
      place(view.from + e.deltaX / 900 * view.span, view.span);
    } else if (e.target.closest(".plot, .lane")) {
      e.preventDefault();
      zoom(Math.exp(-e.deltaY * (e.deltaMode === 1 ? 0.05 : 0.0016)), timeAt(e.clientX));
    }
  }, { passive: false });

  let drag = null, held = null;
  stage.addEventListener("pointerdown", (e) => {
    if (e.button === 0) drag = { x: e.clientX, from: view.from, moved: false, on: e.target.closest(".bar") };
  });
  stage.addEventListener("pointermove", (e) => {
    if (!drag) return;
    if (!drag.moved && Math.abs(e.clientX - drag.x) < 4) return;
    if (!drag.moved) { drag.moved = true; stage.setPointerCapture(e.pointerId); stage.classList.add("drag"); }
    const r = svg.getBoundingClientRect();
    const width = r.width / svg.viewBox.baseVal.width * (right - left);
    place(drag.from - (e.clientX - drag.x) / width * view.span, view.span);
  });
  addEventListener("pointerup", () => {
    const d = drag;
    drag = null;
    stage.classList.remove("drag");
    if (!d || d.moved) return;
    if (held) held.classList.remove("held");
    held = d.on === held ? null : d.on;
    if (held) held.classList.add("held");
    tell(held);
  });
  addEventListener("pointercancel", () => { drag = null; stage.classList.remove("drag"); });

  function tell(bar) {
    const shown = bar || held;
    about.textContent = shown ? shown.dataset.about : hint;
    about.classList.toggle("on", Boolean(shown));
  }
  svg.addEventListener("pointerover", (e) => tell(e.target.closest(".bar")));
  svg.addEventListener("pointerleave", () => tell(null));

  document.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    if (e.key === "+" || e.key === "=") zoom(1.4);
    else if (e.key === "-") zoom(1 / 1.4);
    else if (e.key === "0") place(0, until);
    else if (e.key === "ArrowLeft" || e.key === "ArrowRight") {
      e.preventDefault();
      place(view.from + (e.key === "ArrowRight" ? 0.2 : -0.2) * view.span, view.span);
    }
  });
  $("in").addEventListener("click", () => zoom(1.4));
  $("out").addEventListener("click", () => zoom(1 / 1.4));
  $("fit").addEventListener("click", () => place(0, until));
  $("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  document.body.dataset.ready = "true";
})();
