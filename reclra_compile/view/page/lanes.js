/* the devices: which regions are where, in which order each device works, and what devices send to each other */
const GROUP = { F: 1, L: 2, D: 2, T: 2, U: 3, V: 4, M: 4, S: 5, P: 6, R: 7 };
const GROUPS = [
  "",
  "forward pass",
  "errors",
  "weight update",
  "synapse update",
  "settling",
  "messages",
  "waiting for a message",
];
const WORDS = {
  F: "forward pass of",
  L: "loss at",
  D: "displacement over",
  T: "error neurons of",
  U: "weight update of",
  V: "synapse update of",
  M: "mirror of",
  S: "settling",
  P: "post",
  R: "receive",
};
const MOST_TASKS = 240,
  MOST_COLUMNS = 16;

function taskThing(plan, task) {
  const name = task[1]
    .replace(/[>|]\d+$/, "")
    .replace(/^[a-z]+\./, "")
    .replace(/#\d+$/, "");
  return (
    plan.regions.find((r) => r.name === task[1]) ||
    plan.pathways.find((p) => p.name === task[1]) ||
    plan.regions.find((r) => r.name === name) ||
    null
  );
}

/* F conv1, or for messages → cuda:1 z.conv1 and ← z.conv1 */
function shortTask(plan, t) {
  const cut = Math.max(t[1].lastIndexOf(">"), t[1].lastIndexOf("|")),
    value = t[1].slice(0, cut);
  if (t[0] === "P") return `→ ${plan.devices[t[1].slice(cut + 1)]?.name} ${value}`;
  return t[0] === "R" ? `← ${value}` : `${t[0]} ${t[1]}`;
}

function legendOf(kinds) {
  const ul = make("ul", undefined, "legend");
  for (const k of kinds) {
    const li = make("li", undefined, "k" + k);
    li.append(make("i", undefined, "block"), GROUPS[k]);
    ul.append(li);
  }
  return ul;
}

function showLanes(view) {
  const plan = plans[0],
    mine = plan.devices.map(() => []);
  plan.tasks.forEach((t, i) => {
    if (t[0] !== "X") mine[t[2]].push([t, i]);
  });
  const busy = plan.devices.map(() => 0);
  for (const s of plan.predicted?.spans || []) if (!"PR".includes(plan.tasks[s[0]][0])) busy[s[2]] += s[4] - s[3];
  const all = plan.predicted && plan.predicted.spans.length === plan.predicted.all ? plan.predicted.until : 0;
  const many = plan.microbatches > 1 ? `, for each of ${plan.microbatches} microbatches` : "";
  view.append(
    make("h2", "Devices"),
    make(
      "p",
      `Regions by device, and each device's tasks in order${many}. A click shows the region in the graph.`,
      "hint",
    ),
  );
  view.append(legendOf([...new Set(mine.flat().map(([t]) => GROUP[t[0]]))].sort()));
  const lanes = make("div", undefined, "lanes");
  plan.devices.forEach((d, k) => {
    const lane = make("section", undefined, "lane"),
      regions = plan.regions.filter((r) => r.device === k);
    lane.setAttribute("aria-label", `device ${d.name}`);
    const said = [plural(regions.length, "region"), parametersText(regions.reduce((n, r) => n + r.parameters, 0))];
    if (all) said.push(`busy ${Math.round((100 * busy[k]) / all)} % of the step`);
    if (d.peak) said.push(`${bytesText(d.peak)}${d.memory ? ` of ${bytesText(d.memory)}` : ""} at most`);
    const head = make("header");
    head.append(make("h3", `${d.name} (${d.kind})`), make("p", said.join(" · ")));
    lane.append(
      head,
      chips(
        "regions",
        regions.map((r) => [r.name, r.wave >= 0 ? "w" + r.wave : "none", r, `region ${r.name}`]),
      ),
    );
    const tasks = mine[k].map(([t]) => [
      shortTask(plan, t),
      "k" + GROUP[t[0]],
      taskThing(plan, t),
      `${WORDS[t[0]]} ${t[1]}${t[5] ? `, ${timeText(t[5], plan.unit)}` : ""}`,
    ]);
    lane.append(chips("tasks", tasks.slice(0, MOST_TASKS), tasks.length - MOST_TASKS));
    lanes.append(lane);
  });
  view.append(lanes);
  messages(view, plan);
}

/* one tab stop for a row of chips: arrows go from one to the next */
function chips(what, list, more) {
  const row = make("div", undefined, "chips " + what);
  row.setAttribute("role", "toolbar");
  row.setAttribute("aria-label", what);
  list.forEach(([said, look, thing, about], i) => {
    const b = button(
      said,
      () => {
        if (thing) {
          openView("graph");
          jump(0, thing.key);
        }
      },
      about,
    );
    b.className = look;
    b.title = about;
    b.tabIndex = i ? -1 : 0;
    row.append(b);
  });
  if (more > 0) row.append(make("span", `and ${count(more)} more`, "hint"));
  row.addEventListener("keydown", (e) => {
    const to = { ArrowRight: "nextSibling", ArrowLeft: "previousSibling" }[e.key],
      next = to && document.activeElement[to];
    if (!to) return;
    e.stopPropagation();
    e.preventDefault();
    if (next?.focus && next.tagName === "BUTTON") {
      document.activeElement.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    }
  });
  return row;
}

function messages(view, plan) {
  const sent = new Map();
  for (const t of plan.tasks) {
    if (t[0] !== "P") continue;
    const key = `${t[2]},${t[1].slice(t[1].lastIndexOf(">") + 1)}`,
      s = sent.get(key) || [0, 0];
    sent.set(key, [s[0] + plan.microbatches, s[1] + t[4]]);
  }
  if (!sent.size) return;
  const caption = "Bytes sent in a step, from (row) to (column), and in how many messages",
    table = make("table"),
    head = make("tr");
  if (plan.devices.length > MOST_COLUMNS) {
    const [messages, bytes] = [...sent.values()].reduce((a, s) => [a[0] + s[0], a[1] + s[1]], [0, 0]),
      whole = `${bytesText(bytes)} in ${plural(messages, "message")} are sent in a step`;
    view.append(make("p", `${whole}; a table of who sends to whom is shown up to ${MOST_COLUMNS} devices.`, "hint"));
    return;
  }
  table.append(make("caption", caption));
  head.append(make("th", ""), ...plan.devices.map((d) => make("th", d.name, "n")));
  table.append(head);
  plan.devices.forEach((d, a) => {
    const row = make("tr"),
      name = make("th", d.name);
    name.scope = "row";
    row.append(name);
    plan.devices.forEach((_, b) => {
      const s = sent.get(`${a},${b}`),
        cell = make("td", s ? `${bytesText(s[1])} in ${s[0]}` : a === b ? "" : "–", "n");
      row.append(cell);
    });
    table.append(row);
  });
  const scroll = make("section", undefined, "scroll");
  scroll.tabIndex = 0;
  scroll.setAttribute("aria-label", "messages");
  scroll.append(table);
  view.append(scroll);
}
