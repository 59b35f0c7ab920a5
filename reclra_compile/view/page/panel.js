/* what is known about the chosen thing: facts, and what it hears and is heard by */
const panel = $("panel");
let described;

function describe() {
  const thing = chosen(),
    folded = thing?.kind === "block" && graphs[state.plan].folded.has(thing.index),
    name = `${state.plan}${thing?.key}${folded}`;
  if (described === name) return;
  described = name;
  const inside = panel.contains(document.activeElement);
  panel.replaceChildren();
  fill(thing);
  /* whoever chose something here goes on from here */
  if (inside) {
    const head = panel.querySelector("h2");
    head.tabIndex = -1;
    head.focus();
  }
}

function fill(thing) {
  if (!thing) return hint();
  const home = plans[state.plan],
    other = plans.length > 1 ? plans[1 - state.plan] : null;
  panel.append(make("h2", thing.name));
  const kind = make("div", undefined, `kind of${state.plan}${thing.wave >= 0 ? " w" + thing.wave : ""}`);
  kind.append(
    make("span", undefined, "dot"),
    make("span", { region: "region", pathway: "error pathway", block: "block" }[thing.kind]),
  );
  panel.append(kind);
  if (thing.kind === "block") return describeBlock(thing, home);
  const twin = other ? counterpart(thing, other) : null;
  if (other) panel.append(twin?.facts ? pairTable(thing, twin) : make("p", elsewhere(twin, other), "hint"));
  if (!twin?.facts) panel.append(factList(thing.facts));
  if (thing.kind === "pathway") {
    links("between", [
      [home.regions[thing.source], "from"],
      [home.regions[thing.target], "to"],
    ]);
    return;
  }
  plans.forEach((plan, k) => {
    const mine = plan === home ? thing : twin,
      said = (p) => [p, `${p.kernel}, ${p.update}`],
      where = plans.length > 1 ? `${plan.name}: ` : "";
    if (mine?.kind !== "region") return;
    links(`${where}errors arrive by`, plan.into[mine.index].map(said), k);
    links(`${where}errors leave by`, plan.outOf[mine.index].map(said), k);
  });
  const around = home.around[thing.index].map((i) => home.blocks[i]);
  links(
    "in the blocks",
    around.map((b) => [b, plural(b.regions.length, "region")]),
  );
}

function elsewhere(twin, other) {
  return twin ? `In ${other.name} it is the block ${twin.name}.` : `${other.name} has none.`;
}

function hint() {
  panel.append(make("h2", "Details"));
  panel.append(make("p", "Point at a region, a block or an error pathway; a click keeps it.", "hint"));
  const plan = plans[0],
    list = [
      ["regions", count(plan.regions.length)],
      ["error pathways", count(plan.pathways.length)],
      ["waves", count(plan.waves)],
    ];
  list.push(["parameters", count(plan.regions.reduce((n, r) => n + r.parameters, 0))]);
  list.push(["error synapses", count(plan.pathways.reduce((n, p) => n + p.synapses, 0))]);
  if (plan.blocks.length) list.push(["blocks", count(plan.blocks.length)]);
  if (plans.length === 1) panel.append(factList(list));
  const keys = make("p", undefined, "hint keys");
  for (const [k, what] of [
    ["←", ""],
    ["→", "waves"],
    ["Space", "play"],
    ["↑", ""],
    ["↓", "regions"],
    ["/", "search"],
  ]) {
    keys.append(make("kbd", k), ` ${what} `);
  }
  panel.append(keys);
}

function factList(facts) {
  const list = make("dl");
  for (const [k, v] of facts) {
    const pair = make("div");
    pair.append(make("dt", k), make("dd", v));
    list.append(pair);
  }
  return list;
}

/* the facts of one thing in two wirings; those that differ stand out */
function pairTable(a, b) {
  const [x, y] = state.plan === 0 ? [a, b] : [b, a],
    first = new Map(x.facts),
    second = new Map(y.facts);
  const table = make("table", undefined, "pair"),
    head = make("tr");
  const named = x.name === y.name ? ["", ""] : [`: ${x.name}`, `: ${y.name}`];
  head.append(make("td"), ...plans.map((p, i) => make("th", p.name + named[i])));
  table.append(head);
  for (const key of new Set([...first.keys(), ...second.keys()])) {
    const values = [first.get(key) ?? "–", second.get(key) ?? "–"],
      row = make("tr", undefined, values[0] === values[1] ? "" : "differs");
    const head = make("th", key);
    head.scope = "row";
    row.append(head);
    if (values[0] === values[1]) {
      const cell = make("td", values[0]);
      cell.colSpan = 2;
      row.append(cell);
    } else row.append(...values.map((v) => make("td", v)));
    table.append(row);
  }
  return table;
}

function describeBlock(b, home) {
  const waves = [...new Set(b.waves.filter((w) => w >= 0))].sort((x, y) => x - y);
  const inside = (r) => b.regions.includes(r);
  const within = home.pathways.filter((p) => inside(p.source) && inside(p.target)).length;
  const graph = graphs[state.plan],
    closed = graph.folded.has(b.index);
  panel.append(
    factList([
      ["regions", count(b.regions.length)],
      ["parameters", count(b.parameters)],
      ["forward and weights", amount(b.flops, "FLOP")],
      ["pathways inside", count(within)],
      ["waves", waves.length > 6 ? `${waves[0]} to ${waves[waves.length - 1]}` : waves.join(", ") || "none"],
    ]),
  );
  panel.append(button(closed ? "Open the block" : "Fold the block", () => graph.toggle(b.index)));
  const into = home.pathways.filter((p) => !inside(p.source) && inside(p.target));
  const out = home.pathways.filter((p) => inside(p.source) && !inside(p.target));
  links(
    "errors arrive by",
    into.map((p) => [p, p.kernel]),
  );
  links(
    "errors leave by",
    out.map((p) => [p, p.kernel]),
  );
  links(
    "regions",
    b.regions.map((r) => [home.regions[r], ""]),
  );
}

function links(title, list, where = state.plan) {
  if (!list.length) return;
  const ul = make("ul", undefined, "of" + where),
    most = 24;
  for (const [t, more] of list.slice(0, most)) {
    const li = make("li", undefined, t.wave >= 0 ? "w" + t.wave : ""),
      b = button("", () => jump(where, t.key));
    b.append(make("span", undefined, "dot"), make("span", t.name));
    if (more) b.append(make("small", more));
    li.append(b);
    ul.append(li);
  }
  if (list.length > most) ul.append(make("li", `and ${count(list.length - most)} more`, "hint"));
  panel.append(make("h3", title), ul);
}
