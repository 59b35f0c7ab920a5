/* what the pointer does in a drawing: hovering, clicks, the wheel, dragging, two fingers */
function listenTo(graph) {
  const stage = graph.stage,
    keyOf = (e) => e.target.closest?.("[data-key]")?.dataset.key;
  stage.addEventListener("pointerover", (e) => {
    /* what was chosen stays, whatever the pointer passes */
    const key = keyOf(e) || null;
    if (graph.drag || state.pinned || (key === state.over && (!key || state.plan === graph.number))) return;
    if (key) state.plan = graph.number;
    state.over = key;
    show();
  });
  stage.addEventListener("pointerleave", () => {
    if (state.over) {
      state.over = null;
      show();
    }
  });
  stage.addEventListener("dblclick", (e) => {
    const key = keyOf(e);
    if (key && key[0] === "b" && !again(e)) graph.toggle(Number(key.slice(1)));
  });
  stage.addEventListener(
    "wheel",
    (e) => {
      e.preventDefault();
      const r = stage.getBoundingClientRect();
      graph.zoom(Math.exp(-e.deltaY * (e.deltaMode === 1 ? 0.05 : 0.0016)), e.clientX - r.left, e.clientY - r.top);
    },
    { passive: false },
  );
  /* two fingers zoom */
  const fingers = new Map();
  stage.addEventListener("pointerdown", (e) => {
    if (e.pointerType === "touch") fingers.set(e.pointerId, [e.clientX, e.clientY]);
    if (e.button === 0 && !again(e)) graph.drag = { x: e.clientX, y: e.clientY, moved: false, on: keyOf(e) };
  });
  stage.addEventListener("pointermove", (e) => {
    /* it was let go where nothing told of it */
    if (graph.drag && e.buttons === 0) end(e);
    const d = graph.drag,
      other = [...fingers].find(([id]) => id !== e.pointerId)?.[1],
      was = fingers.get(e.pointerId);
    if (other && was) {
      const r = stage.getBoundingClientRect(),
        far = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
      graph.zoom(
        far([e.clientX, e.clientY]) / far(was),
        (other[0] + e.clientX) / 2 - r.left,
        (other[1] + e.clientY) / 2 - r.top,
      );
      fingers.set(e.pointerId, [e.clientX, e.clientY]);
      if (d) d.moved = true;
      return;
    }
    if (!d || (!d.moved && Math.hypot(e.clientX - d.x, e.clientY - d.y) < 5)) return;
    if (!d.moved) {
      d.moved = true;
      stage.setPointerCapture(e.pointerId);
      stage.classList.add("drag");
    }
    graph.view.x -= (e.clientX - d.x) / graph.view.s;
    graph.view.y -= (e.clientY - d.y) / graph.view.s;
    d.x = e.clientX;
    d.y = e.clientY;
    graph.touched = true;
    graph.apply();
  });
  const end = (e) => {
    fingers.delete(e.pointerId);
    graph.drag = null;
    stage.classList.remove("drag");
  };
  addEventListener("pointerup", (e) => {
    const d = graph.drag;
    end(e);
    if (d && !d.moved) choose(graph.number, d.on || null);
  });
  addEventListener("pointercancel", end);
}
