"""The tables of a report's page: what it came to, with which settings, on what. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reclra_compile.report.summary import Group, Report, Series
from reclra_compile.view.label import count, xml

_ENVIRONMENT = (
    ("reclra_compile", "reclra-compile"), ("torch", "PyTorch"), ("python", "Python"), ("system", "System"),
    ("processor", "Processor"), ("cores", "Cores"), ("gpus", "GPUs"), ("threads", "Threads of torch"),
)  # fmt: skip


def headline(report: Report) -> str:
    """Under which terms."""
    runs = report.runs
    data = next((r.about["data"] for r in runs if r.about.get("data")), None)
    seeds = sorted({r.seed for r in runs})
    epochs = max(len(r.epochs) for r in runs)
    terms = [] if data is None else [
        str(data.get("name")),
        f"{count(int(data.get('train') or 0))} training, " + (
            f"{count(int(data['valid']))} validation, " if data.get("valid") else ""
        ) + f"{count(int(data.get('test') or 0))} test samples",
    ]  # fmt: skip
    terms += [f"{epochs} epochs", f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"]
    begun = sorted(str(r.about["begun"])[:10] for r in runs if r.about.get("begun"))
    terms += begun[:1]
    return f"<p>{xml(' · '.join(terms))}</p>"


def results(report: Report) -> str:
    """A row of final numbers for each wiring; of those that are finished the lowest error stands out."""
    what = report.measure
    columns = [("test_error", f"test {what}"), ("valid_error", f"validation {what}"),
               ("train_error", f"training {what}"), ("loss", "training loss")]  # fmt: skip
    columns = [c for c in columns if any(c[0] in g.series for g in report.groups)]
    heads = ["wiring", *(title for _, title in columns), "seeds", "FLOPs ÷ backprop", "time"]
    whole = {k: g.series.get(columns[0][0]) for k, g in enumerate(report.groups) if g.whole}
    finals = {k: s.last[0] for k, s in whole.items() if s is not None and s.count[-1] == len(s.each)}
    best = min(finals, key=lambda k: finals[k]) if len(finals) > 1 else -1
    rows = []
    for k, group in enumerate(report.groups):
        cells = [_final(group.series.get(name), name, what) for name, _ in columns]
        plan = group.plan
        last = group.series.get(columns[0][0])
        cells += [_seeds(last, len(group.runs)), f"{plan.cost.ratio:.3f}" if plan else "", _time(group.seconds)]
        tag = ' class="best"' if k == best else ""
        named = f'<th scope="row" class="c{k}"><i></i>{xml(group.label)}</th>'
        rows.append(f"<tr{tag}>{named}{''.join(f'<td>{xml(c)}</td>' for c in cells)}</tr>")
    return _table(heads, rows, "results")


def settings_table(report: Report) -> str:
    """Settings by wiring; those that differ stand out."""
    groups = [g for g in report.groups if g.runs[0].settings]
    if not groups:
        return ""
    names = list(dict.fromkeys(name for g in groups for name in g.runs[0].settings))
    rows = []
    for name in names:
        values = [_plain(g.runs[0].settings.get(name)) for g in groups]
        tag = ' class="differs"' if len(set(values)) > 1 else ""
        cells = "".join(f"<td>{xml(v)}</td>" for v in values)
        rows.append(f'<tr{tag}><th scope="row">{xml(name.replace("_", " "))}</th>{cells}</tr>')
    rows += _facts(groups)
    return _table(["setting", *(g.label for g in groups)], rows, "settings")


def _facts(groups: Sequence[Group]) -> list[str]:
    """What else belongs to the terms of a run: how data was treated, devices and processes, what was learned."""
    def row(title: str, values: list[str]) -> str:
        return f'<tr><th scope="row">{xml(title)}</th>{"".join(f"<td>{xml(v)}</td>" for v in values)}</tr>'

    about = [g.runs[0].about for g in groups]
    rows = [
        row(title, [_plain((a.get("data") or {}).get(key)) for a in about])
        for key, title in (("preprocess", "preprocessing"), ("augment", "augmentation"))
    ]
    rows.append(row("processes", [_plain(a.get("processes")) for a in about]))
    plans = [g.plan for g in groups]
    rows.append(row("parameters", [count(sum(r.parameter_count for r in p.regions)) if p else "" for p in plans]))
    rows.append(row("error synapses", [count(sum(w.synapses for w in p.pathways)) if p else "" for p in plans]))
    return rows


def environment_table(environments: Sequence[dict[str, Any]]) -> str:
    """What the runs ran on; a column for each that differs."""
    if not environments:
        return ""
    rows = [
        f'<tr><th scope="row">{title}</th>{"".join(f"<td>{xml(_plain(e.get(key)))}</td>" for e in environments)}</tr>'
        for key, title in _ENVIRONMENT
    ]
    heads = ["", *(f"run on {k + 1}" for k in range(len(environments)))] if len(environments) > 1 else []
    return _table(heads, rows, "environment")


def _table(heads: Sequence[str], rows: Sequence[str], name: str) -> str:
    head = "".join(f'<th scope="col">{xml(h)}</th>' for h in heads)
    top = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f'<div class="scroll" tabindex="0"><table class="{name}" aria-label="{name}">{top}\n<tbody>\n' \
           f"{chr(10).join(rows)}</tbody></table></div>"  # fmt: skip


def _final(series: Series | None, name: str, measure: str) -> str:
    if series is None:
        return ""
    mean, deviation = series.last
    percent = name.endswith("error") and measure == "error"
    text = f"{mean:.2f}" if percent else f"{mean:.4g}"
    if series.count[-1] > 1:
        text += f" ± {deviation:.2f}" if percent else f" ± {deviation:.2g}"
    return text + (" %" if percent else "")


def _seeds(series: Series | None, runs: int) -> str:
    """Over how many seeds the final numbers are."""
    known = runs if series is None else series.count[-1]
    return str(runs) if known == runs else f"{known} of {runs} seeds"


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
