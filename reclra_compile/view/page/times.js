/* what a timeline shows: rows of spans, predicted and measured, and both as a trace for Perfetto */
const SOURCES = [
  ["predicted", "predicted"],
  ["measured", "measured"],
];

/* rows of {label, source, device, link, spans}; a row's spans stand in order of time */
function timeRows(plan) {
  const rows = [],
    sources = SOURCES.filter(([s]) => plan[s]);
  const many = Math.max(...sources.map(([s]) => plan[s].devices.length));
  for (let d = 0; d < many; d++) {
    sources.forEach(([s, said], k) => {
      const step = plan[s];
      if (d >= step.devices.length) return;
      const mine = step.spans.filter((p) => p[2] === d),
        link = mine.filter((p) => plan.tasks[p[0]][0] === "P");
      rows.push({
        label: k ? "" : step.devices[d],
        said: sources.length > 1 ? said : "",
        source: s,
        device: d,
        link: false,
        first: !k,
        spans: mine.filter((p) => plan.tasks[p[0]][0] !== "P"),
      });
      if (link.length)
        rows.push({ label: "", said: "", source: s, device: d, link: true, first: false, spans: link });
    });
  }
  return rows;
}

/* predictions without rates are in FLOPs: beside a measured step they are drawn to its length */
function oneScale(plan) {
  const p = plan.predicted;
  if (plan.unit !== "flops" || !p || !plan.measured || p.scale) return;
  p.scale = plan.measured.until / p.until || 1;
  p.until *= p.scale;
  for (const s of p.spans) {
    s[3] *= p.scale;
    s[4] *= p.scale;
  }
}
function spell(plan, source, t) {
  return timeText(t / (plan[source].scale || 1), source === "measured" ? "us" : plan.unit);
}

function spanText(plan, source, s) {
  const t = plan.tasks[s[0]],
    batch = plan.microbatches > 1 || s[1] ? `, microbatch ${s[1]}` : "",
    [a, b, c] = [s[3], s[4], s[4] - s[3]].map((v) => spell(plan, source, v));
  return `${t[0]} ${t[1]}${batch}: ${a} to ${b} (${c}), ${source}`;
}

/* the same task and microbatch in the other source */
function twinOf(plan, source, s) {
  const other = source === "predicted" ? "measured" : "predicted";
  return plan[other] ? [other, plan[other].spans.find((o) => o[0] === s[0] && o[1] === s[1])] : [other, null];
}

function perfetto(plan) {
  const events = [];
  SOURCES.forEach(([source], k) => {
    const step = plan[source];
    if (!step) return;
    step.devices.forEach((name, d) => {
      const pid = k * 10000 + d;
      events.push(
        { ph: "M", name: "process_name", pid, args: { name: `${name} (${source})` } },
        { ph: "M", name: "process_sort_index", pid, args: { sort_index: 2 * d + k } },
      );
      ["compute", "link"].forEach((thread, tid) =>
        events.push({ ph: "M", name: "thread_name", pid, tid, args: { name: thread } }),
      );
    });
    for (const [task, microbatch, d, start, end] of step.spans) {
      const t = plan.tasks[task];
      events.push({
        ph: "X",
        name: `${t[0]} ${t[1]}`,
        cat: t[0],
        ts: start,
        dur: end - start,
        pid: k * 10000 + d,
        tid: t[0] === "P" ? 1 : 0,
        args: { microbatch, wave: t[3] },
      });
    }
  });
  return JSON.stringify({ traceEvents: events, displayTimeUnit: "ms", otherData: { plan: plan.name } });
}

function download(name, text) {
  const a = make("a"),
    url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  a.href = url;
  a.download = name;
  a.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/* what kinds of tasks take in all, predicted beside measured */
function timeTable(plan) {
  const sources = SOURCES.filter(([s]) => plan[s]),
    table = make("table"),
    head = make("tr"),
    sums = new Map();
  for (const [s] of sources)
    for (const p of plan[s].spans) {
      const group = GROUP[plan.tasks[p[0]][0]];
      if (!sums.has(group)) sums.set(group, {});
      sums.get(group)[s] = (sums.get(group)[s] || 0) + p[4] - p[3];
    }
  const both = sources.length > 1 && plan.unit === "us";
  table.append(make("caption", "Time by kind of task, all devices together"));
  head.append(
    make("th", "Kind"),
    ...sources.map(([s]) => make("th", s, "n")),
    ...(both ? [make("th", "measured ÷ predicted", "n")] : []),
  );
  table.append(head);
  const line = (name, values) => {
    const row = make("tr"),
      label = make("th", name);
    label.scope = "row";
    row.append(
      label,
      ...sources.map(([s]) => make("td", values[s] === undefined ? "–" : spell(plan, s, values[s]), "n")),
    );
    if (both)
      row.append(
        make(
          "td",
          values.predicted && values.measured !== undefined
            ? (values.measured / values.predicted).toPrecision(3)
            : "–",
          "n",
        ),
      );
    table.append(row);
  };
  line("the step", Object.fromEntries(sources.map(([s]) => [s, plan[s].until])));
  for (const [group, values] of [...sums].sort((a, b) => a[0] - b[0])) if (GROUPS[group]) line(GROUPS[group], values);
  const scroll = make("section", undefined, "scroll");
  scroll.append(table);
  return scroll;
}
