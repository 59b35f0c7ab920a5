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
    let named = false;
    sources.forEach(([s, said]) => {
      const step = plan[s];
      if (d >= step.devices.length) return;
      const mine = step.spans.filter((p) => p[2] === d),
        link = mine.filter((p) => plan.tasks[p[0]][0] === "P");
      rows.push({
        label: named ? "" : step.devices[d],
        said: sources.length > 1 ? said : "",
        source: s,
        device: d,
        link: false,
        first: !named,
        spans: mine.filter((p) => plan.tasks[p[0]][0] !== "P"),
      });
      named = true;
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
  for (const kind of Object.keys(p.sums)) p.sums[kind] *= p.scale;
  for (const s of p.spans) {
    s[3] *= p.scale;
    s[4] *= p.scale;
  }
}
function spell(plan, source, t) {
  return timeText(t / (plan[source].scale || 1), source === "measured" ? "us" : plan.unit);
}

/* a time with as many digits as tell the ends of a span of `length` apart, and three at least */
function spellNear(plan, source, t, length) {
  const scale = plan[source].scale || 1,
    unit = source === "measured" ? "us" : plan.unit,
    [size] = unitOf(t / scale, unit),
    three = size * 10 ** Math.floor(Math.log10(Math.max(t / scale / size, 1e-3)) - 2),
    said = exactText(t / scale, Math.min(length / 10 / scale, three) || three, unit);
  return said.replace(/(\.\d*?)0+ /, "$1 ").replace(". ", " ");
}

function spanText(plan, source, s) {
  const t = plan.tasks[s[0]],
    batch = plan.microbatches > 1 || s[1] ? `, microbatch ${s[1]}` : "",
    [a, b] = [s[3], s[4]].map((v) => spellNear(plan, source, v, s[4] - s[3])),
    c = spell(plan, source, s[4] - s[3]);
  return `${shortTask(plan, t)}${batch}: ${a} to ${b} (${c}), ${source}`;
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
    for (const [kind, us] of Object.entries(plan[s].sums)) {
      const group = GROUP[kind];
      if (!sums.has(group)) sums.set(group, {});
      sums.get(group)[s] = (sums.get(group)[s] || 0) + us;
    }
  const both = sources.length > 1 && plan.unit === "us";
  table.append(make("caption", "Time by kind of task, all tasks of the step on all devices"));
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
