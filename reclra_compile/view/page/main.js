/* puts the page together: views, theme, keys */
const themeChanged = [];
const views = [...document.querySelectorAll('[role="tab"]')].map((t) => t.id.slice(4));
const made = new Set(["graph"]);

function openView(name) {
  if (!views.includes(name) && name !== "graph") return;
  state.view = name;
  /* keys are not for what is hidden */
  const on = document.activeElement;
  if (on?.closest(".view, .other") && !$("view-" + name).contains(on)) on.blur();
  for (const v of views) {
    $("view-" + v).hidden = v !== name;
    $("tab-" + v).setAttribute("aria-selected", String(v === name));
    $("tab-" + v).tabIndex = v === name ? 0 : -1;
  }
  $("bar").hidden = $("told").hidden = name !== "graph";
  if (made.has(name)) return;
  made.add(name);
  ({ devices: showLanes, timeline: showTimeline })[name]($("view-" + name));
}
for (const v of views) {
  $("tab-" + v).addEventListener("click", () => openView(v));
  $("tab-" + v).addEventListener("keydown", (e) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
    if (!by) return;
    e.preventDefault();
    e.stopPropagation();
    const next = views[(views.indexOf(v) + by + views.length) % views.length];
    openView(next);
    $("tab-" + next).focus();
  });
}

const THEMES = ["system", "light", "dark"];
function theme(to) {
  const root = document.documentElement;
  if (to === "system") delete root.dataset.theme;
  else root.dataset.theme = to;
  $("theme").textContent = `Colours: ${to}`;
  $("theme").setAttribute("aria-label", `colours: ${to}; switch`);
  for (const f of themeChanged) f();
}
function nextTheme() {
  theme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme || "system") + 1) % 3]);
}
$("theme").addEventListener("click", nextTheme);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => themeChanged.forEach((f) => f()));
$("help").addEventListener("click", () => $("keys").showModal());

/* one legend for each drawing: a colour for each wave, or a scale where they are many */
function legend(plan, ul) {
  const few = plan.waves <= 6,
    add = (look, said, wave) => {
      const li = make("li", undefined, wave === undefined ? "" : "w" + wave);
      li.append(make("i", undefined, look), said);
      ul.append(li);
    };
  if (plan.output >= 0) add("arc", "wave 0: the loss", 0);
  if (few)
    for (let w = 1; w < plan.waves; w++) {
      const n = plan.pathways.filter((p) => p.wave === w).length;
      add("arc", `wave ${w}: ${n} pathway${n === 1 ? "" : "s"}`, w);
    }
  else add("scale", `waves 1 to ${plan.waves - 1}`);
  add("forward", "forward");
  if (plan.pathways.some((p) => p.tied)) add("tied", "along the model's own edge");
  if (plan.regions.some((r) => r.frozen)) add("frozen", "frozen");
}

plans.forEach((plan, i) => {
  legend(plan, $("legend" + i));
  graphs.push(new Graph(i));
});
listeners.push(describe, tellWave, tellFound, markRows);
const active = () => graphs[graphs.length > 1 && state.plan === 1 ? 1 : 0];
if (!plans.some((p) => p.blocks.length)) $("folding").hidden = true;
$("open").addEventListener("click", () => {
  graphs.forEach((g) => g.foldAll(false));
  show();
});
$("fold").addEventListener("click", () => {
  graphs.forEach((g) => g.foldAll(true));
  show();
});
$("in").addEventListener("click", () => graphs.forEach((g) => g.zoom(1.25)));
$("out").addEventListener("click", () => graphs.forEach((g) => g.zoom(0.8)));
const fitAll = () =>
  graphs.forEach((g) => {
    g.touched = true;
    g.fit();
  });
$("fit").addEventListener("click", fitAll);

function act(e, shape) {
  const graph = graphs.find((g) => g.svg.contains(document.activeElement)) || active();
  switch (e.key) {
    case "ArrowLeft":
      stop();
      return step(-1);
    case "ArrowRight":
      stop();
      return step(1);
    case "ArrowUp":
    case "ArrowDown":
      return graph.step(e.key === "ArrowDown" ? 1 : -1);
    case " ":
      return play();
    case "Enter":
      return choose(graph.number, shape);
    case "o":
    case "O": {
      const key = shape || byPlan(graph.number, state.pinned)?.key,
        thing = graph.plan.byKey.get(key);
      if (thing?.kind === "block") return graph.toggle(thing.index);
      const inner =
        thing?.kind === "region"
          ? graph.plan.around[thing.index].filter((b) => !graph.folded.has(b)).pop()
          : undefined;
      return inner === undefined ? undefined : graph.toggle(inner);
    }
    case "a":
    case "A":
      stop();
      return stepTo(null);
    case "+":
    case "=":
      return graphs.forEach((g) => g.zoom(1.25));
    case "-":
      return graphs.forEach((g) => g.zoom(0.8));
    case "0":
      return fitAll();
  }
  return undefined;
}
document.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || e.defaultPrevented || $("keys").open) return;
  const on = e.target,
    typing = on === $("search"),
    shape = on.closest?.("svg [data-key]")?.dataset.key;
  if (e.key === "Escape") {
    if (typing) {
      on.value = "";
      find();
      on.blur();
    }
    state.pinned = state.over = null;
    show();
  } else if (typing) {
    return;
  } else if (e.key === "/") {
    e.preventDefault();
    openView("graph");
    $("search").focus();
  } else if ("123".includes(e.key) && views[Number(e.key) - 1]) {
    openView(views[Number(e.key) - 1]);
    /* the keys of the timeline are its canvas's */
    if (state.view === "timeline") $("canvas").focus({ preventScroll: true });
  }
  else if (e.key === "t" || e.key === "T") nextTheme();
  else if (e.key === "?") $("keys").showModal();
  else if (state.view === "graph") {
    /* buttons and the slider keep the keys that mean something to them */
    const own =
      on.closest?.("button, a, input, summary") &&
      (e.key === " " || e.key === "Enter" || (on.type === "range" && e.key.startsWith("Arrow")));
    const scrolls =
      e.key.startsWith("Arrow") && (e.key === "ArrowUp" || e.key === "ArrowDown") && !shape && !on.closest?.(".stages");
    if (own || scrolls || (e.key === "Enter" && !shape)) return;
    if (
      [
        "ArrowLeft",
        "ArrowRight",
        "ArrowUp",
        "ArrowDown",
        " ",
        "Enter",
        "o",
        "O",
        "a",
        "A",
        "+",
        "=",
        "-",
        "0",
      ].includes(e.key)
    ) {
      e.preventDefault();
      act(e, shape);
    }
  }
});
addEventListener("beforeprint", () =>
  graphs.forEach((g) => {
    g.before = { ...g.view };
    g.fit();
  }),
);
addEventListener("afterprint", () =>
  graphs.forEach((g) => {
    Object.assign(g.view, g.before);
    g.apply();
  }),
);

theme("system");
openView("graph");
show();
document.body.dataset.ready = "true";
