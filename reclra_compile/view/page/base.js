/* what all parts share: elements, the data, and the state of the page */
const $ = (id) => document.getElementById(id);
const plans = JSON.parse($("plan").textContent);
const SVG = "http://www.w3.org/2000/svg";

function make(tag, text, name) {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  if (name) e.className = name;
  return e;
}
function button(text, act, label) {
  const b = make("button", text);
  b.type = "button";
  if (label) b.setAttribute("aria-label", label);
  b.addEventListener("click", act);
  return b;
}
function draw(tag, attributes, ...inside) {
  const e = document.createElementNS(SVG, tag);
  for (const [k, v] of Object.entries(attributes)) if (v !== undefined) e.setAttribute(k, v);
  e.append(...inside);
  return e;
}

const ruler = document.createElement("canvas").getContext("2d");
const FONT = 'Inter, system-ui, "Helvetica Neue", Helvetica, Arial, "DejaVu Sans", sans-serif';
function widthOf(text, size, bold) {
  ruler.font = `${bold ? "600 " : ""}${size}px ${FONT}`;
  return ruler.measureText(text).width;
}
/* the end of a dotted name says more than its start */
function shorten(text, room, size, bold) {
  if (widthOf(text, size, bold) <= room) return text;
  let low = 0,
    high = text.length - 1,
    best = "…";
  while (low <= high) {
    const kept = (low + high) >> 1,
      tail = Math.floor(((kept + 1) * 3) / 5);
    const short = text.slice(0, kept - tail) + "…" + text.slice(text.length - tail);
    if (widthOf(short, size, bold) <= room) {
      best = short;
      low = kept + 1;
    } else high = kept - 1;
  }
  return best;
}

function count(n) {
  return String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}
const PREFIXES = [
  [1e15, "P"],
  [1e12, "T"],
  [1e9, "G"],
  [1e6, "M"],
  [1e3, "k"],
];
function amount(n, unit) {
  for (const [limit, prefix] of PREFIXES) {
    if (n >= 0.9995 * limit) return `${Number((n / limit).toPrecision(Math.max(3, String(Math.floor(n / limit)).length)))} ${prefix}${unit}`;
  }
  return `${Number(n.toPrecision(3))} ${unit}`;
}
function plural(n, what) {
  return `${count(n)} ${what}${n === 1 ? "" : "s"}`;
}
function parametersText(n) {
  return `${amount(n, "")
    .replace(/ (?=.$)/, "")
    .trim()} parameters`;
}
function timeText(us, unit) {
  if (unit === "flops") return amount(us, "FLOPs");
  if (us < 999.5) return `${Number(us.toPrecision(3))} µs`;
  if (us < 999500) return `${Number((us / 1e3).toPrecision(3))} ms`;
  return `${Number((us / 1e6).toPrecision(4))} s`;
}
/* the unit of times up to `most`, and its name */
function unitOf(most, unit) {
  if (unit === "flops") {
    const [limit, prefix] = PREFIXES.find(([l]) => most >= 0.9995 * l) || [1, ""];
    return [limit, `${prefix}FLOPs`];
  }
  return most < 999.5 ? [1, "µs"] : most < 999500 ? [1e3, "ms"] : [1e6, "s"];
}
/* a time with as many decimals as tell it from one that is `step` later */
function exactText(t, step, unit, most) {
  const [size, name] = unitOf(most ?? t, unit),
    digits = step > 0 ? Math.ceil(-Math.log10(step / size) - 1e-4) : 3;
  return `${(t / size).toFixed(Math.min(9, Math.max(0, digits)))} ${name}`;
}
function bytesText(n) {
  const k = n ? Math.min(4, Math.floor(Math.log2(n) / 10)) : 0;
  return `${Number((n / 1024 ** k).toPrecision(3))} ${["B", "KiB", "MiB", "GiB", "TiB"][k]}`;
}

/* things that can be selected: regions r#, pathways p# and blocks b# of each plan */
for (const plan of plans) {
  plan.into = plan.regions.map(() => []);
  plan.outOf = plan.regions.map(() => []);
  plan.byKey = new Map();
  const add = (kind, letter) => (d, i) => {
    const t = Object.assign(d, { kind, index: i, key: letter + i });
    plan.byKey.set(t.key, t);
    return t;
  };
  plan.regions.forEach(add("region", "r"));
  plan.pathways.forEach(add("pathway", "p"));
  plan.blocks.forEach(add("block", "b"));
  for (const p of plan.pathways) {
    plan.into[p.target].push(p);
    plan.outOf[p.source].push(p);
  }
  plan.things = [...plan.regions, ...plan.pathways];
  for (const t of plan.things) t.words = [t.name, ...t.facts.map((f) => f[1])].join("\n").toLowerCase();
  for (const b of plan.blocks) {
    const mine = b.regions.map((r) => plan.regions[r]);
    b.waves = mine.map((r) => r.wave);
    b.wave = Math.min(...b.waves.filter((w) => w >= 0), Infinity);
    if (b.wave === Infinity) b.wave = -1;
    b.parameters = mine.reduce((n, r) => n + r.parameters, 0);
    b.flops = mine.reduce((n, r) => n + r.flops, 0);
  }
  /* the blocks around a region, the outermost first: parents stand before what is in them */
  plan.around = plan.regions.map(() => []);
  for (const b of plan.blocks) for (const r of b.regions) plan.around[r].push(b.index);
}

/* `wave` is null where all waves show, −1 for the forward pass alone */
const state = { view: "graph", wave: null, plan: 0, pinned: null, over: null, query: "", hits: [], hit: -1 };
const lastWave = Math.max(...plans.map((p) => p.waves), 1) - 1;
const graphs = [];
const listeners = [];
function show() {
  for (const f of listeners) f();
}

/* what another plan calls the same thing: the region or block of that name, or where its regions are cut in another
   way the one that this is a part of; the pathway into the same region */
function counterpart(thing, plan) {
  if (!thing) return null;
  if (thing.kind !== "pathway") {
    const own = thing.kind === "block" ? [...plan.blocks, ...plan.regions] : [...plan.regions, ...plan.blocks];
    for (let name = thing.name; name; name = name.slice(0, Math.max(name.lastIndexOf("."), 0))) {
      const found = own.find((t) => t.name === name);
      if (found) return found;
    }
    return null;
  }
  const home = plans.find((p) => p.pathways[thing.index] === thing);
  const target = home.regions[thing.target].name,
    source = home.regions[thing.source].name;
  const same = plan.pathways.filter((p) => plan.regions[p.target].name === target);
  return same.find((p) => plan.regions[p.source].name === source) || same[0] || null;
}
function chosen() {
  return plans[state.plan].byKey.get(state.pinned || state.over) || null;
}
function choose(plan, key, keep) {
  const same = state.plan === plan && state.pinned === key;
  state.plan = plan;
  state.pinned = same && !keep ? null : key;
  state.over = null;
  show();
}
function jump(plan, key) {
  choose(plan, key, true);
  for (const g of graphs)
    g.reveal(g.plan === plans[plan] ? plans[plan].byKey.get(key) : counterpart(plans[plan].byKey.get(key), g.plan));
}
