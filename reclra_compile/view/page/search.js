/* search: hits are marked in the drawings and tables; Enter goes from one to the next and opens its blocks */
const rows = [...document.querySelectorAll("tr[data-row]")].map((row) => {
  const [plan, key] = row.dataset.row.split(":");
  return { row, plan: Number(plan), key };
});

/* a table without a hit says so */
const tables = new Map();
for (const { row } of rows) {
  const body = row.parentElement;
  if (!tables.has(body)) {
    const none = make("tr", undefined, "none"),
      cell = make("td", "none");
    cell.colSpan = row.children.length;
    none.append(cell);
    none.hidden = true;
    body.append(none);
    tables.set(body, { none, rows: [] });
  }
  tables.get(body).rows.push(row);
}

function find() {
  state.query = $("search").value.trim().toLowerCase();
  state.hits = state.query
    ? plans.flatMap((p, plan) =>
        p.things.filter((t) => t.words.includes(state.query)).map((thing) => ({ plan, thing })),
      )
    : [];
  /* those that have it in their name come first */
  const named = (h) => (h.thing.name.toLowerCase().includes(state.query) ? 0 : 1);
  state.hits.sort((a, b) => named(a) - named(b));
  state.hit = -1;
  const found = new Set(state.hits.map((h) => `${h.plan}:${h.thing.key}`));
  for (const r of rows) r.row.hidden = Boolean(state.query) && !found.has(`${r.plan}:${r.key}`);
  for (const t of tables.values()) t.none.hidden = t.rows.some((row) => !row.hidden);
  show();
}
function go(by) {
  const n = state.hits.length;
  if (!n) return;
  state.hit = (state.hit + by + n + (state.hit < 0 && by < 0 ? 1 : 0)) % n;
  jump(state.hits[state.hit].plan, state.hits[state.hit].thing.key);
}
function tellFound() {
  const n = state.hits.length,
    all = plans.reduce((s, p) => s + p.things.length, 0);
  $("found").textContent = !state.query
    ? ""
    : !n
      ? "none"
      : state.hit >= 0
        ? `${state.hit + 1} of ${n}`
        : `${n} of ${all}`;
  $("before").disabled = $("after").disabled = !n;
}
function markRows() {
  const thing = chosen();
  for (const r of rows) r.row.classList.toggle("on", Boolean(thing) && r.plan === state.plan && r.key === thing.key);
}

$("search").addEventListener("input", find);
$("search").addEventListener("keydown", (e) => {
  if (e.key === "Enter") {
    e.preventDefault();
    go(e.shiftKey ? -1 : 1);
  }
});
$("before").addEventListener("click", () => go(-1));
$("after").addEventListener("click", () => go(1));
for (const r of rows) {
  r.row.querySelector("button").addEventListener("click", () => {
    openView("graph");
    jump(r.plan, r.key);
    $("view-graph").scrollIntoView({ block: "nearest" });
  });
}
