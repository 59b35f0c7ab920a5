"""The texts of a drawing: what stands in boxes, the title and the legend."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import ceil

from reclra_compile.ir import Plan
from reclra_compile.view.drawing import Box, Key, Text
from reclra_compile.view.facts import Facts, hover, output_region, region_facts, shape_text, wave_of
from reclra_compile.view.label import plural, shorten, width
from reclra_compile.view.palette import few

MARGIN = 28.0
NAME, DETAIL, PAD = 12.0, 10.0, 11.0
#: the narrowest picture, so that the legend has room
NARROWEST = 600.0


@dataclass(frozen=True, slots=True)
class Caption:
    """What stands in one box, from the name down."""

    name: str
    kind: str
    details: tuple[str, ...]
    wave: int
    frozen: bool
    hover: str


def captions(plan: Plan, across: bool, compact: bool) -> tuple[Caption, ...]:
    """The captions of the inputs, the regions and the loss, in this order."""
    waves, targets = wave_of(plan), {t.region: t for t in plan.targets}
    found = []
    for name, shape, dtype in plan.inputs:
        facts: Facts = (("shape", shape_text(shape)), ("type", dtype))
        found.append(
            Caption(name, "input", () if compact else (shape_text(shape),), -1, False, hover(name, facts))
        )
    for r in plan.regions:
        what = r.op if r.phi == "identity" else f"{r.op} · {r.phi}"
        lines: tuple[str, ...] = (
            (what, shape_text(r.shape)) if across else (f"{what} · {shape_text(r.shape)}",)
        )
        target = targets.get(r.name)
        facts = region_facts(r, target, waves.get(r.name))
        frozen = target is not None and not target.trainable and r.parameter_count > 0
        lines = () if compact else lines
        found.append(Caption(r.name, "region", lines, waves.get(r.name, -1), frozen, hover(r.name, facts)))
    found.append(Caption("loss", "loss", (), -1, False, "loss: of the model's output and the target y"))
    return tuple(found)


def box_sizes(texts: tuple[Caption, ...], across: bool, compact: bool) -> list[tuple[float, float]]:
    """The width and height of each box, common to all regions; longer names are shortened."""
    least, most = (78.0, 132.0) if across else (128.0, 250.0)
    need = [width(t.name, NAME, True) + (26 if compact else 0) for t in texts]
    need += [width(d, DETAIL) + (20 if d is t.details[-1] else 0) for t in texts for d in t.details]
    wide = ceil(min(max([least, *(n + 2 * PAD for n in need)]), most))
    region = (float(wide), 64.0 if across else 24.0 if compact else 40.0)
    small = (min(region[0], 84.0), 40.0) if across else (region[0] * 0.6, 24.0 if compact else 34.0)
    return [region if t.kind == "region" else small for t in texts]


def box(t: Caption, x: float, y: float, w: float, h: float) -> Box:
    """The box of a caption at a place, with its lines of text set."""
    small = t.kind != "region"
    middle, room = x + w / 2, w - 2 * (6 if small else PAD)
    badge = None
    texts = []
    if small:
        lines = [(shorten(t.name, room, NAME, True), NAME, True)]
        lines += [(shorten(d, room, DETAIL), DETAIL, False) for d in t.details]
        base = y + h / 2 + 4 - 7.5 * (len(lines) - 1)
        for i, (line, size, bold) in enumerate(lines):
            texts.append(Text(middle, base + 15 * i, line, size, "middle", bold, "faint" if i else "ink"))
    else:
        pitch = 15.0
        base = y + h / 2 + 4 - pitch / 2 * len(t.details)
        short = 26 if not t.details else 0
        texts.append(Text(x + PAD, base, shorten(t.name, room - short, NAME, True), NAME, bold=True))
        for i, d in enumerate(t.details):
            last = 20 if i == len(t.details) - 1 else 0
            texts.append(
                Text(x + PAD, base + pitch * (i + 1), shorten(d, room - last, DETAIL), DETAIL, tone="faint")
            )
        if t.wave >= 0:
            badge = Text(
                x + w - PAD - 4, texts[-1].y - (4.5 if not t.details else 3.5), str(t.wave), 8.5, "middle"
            )
    return Box(t.name, t.kind, x, y, w, h, t.wave, t.frozen, tuple(texts), t.hover, badge)


def heading(plan: Plan) -> tuple[Text, ...]:
    """The title, and under it the model and the counts."""
    parts = [
        plan.model,
        plural(len(plan.regions), "region"),
        plural(len(plan.pathways), "error pathway"),
        plural(len(plan.waves), "wave"),
    ]
    if plan.cost.backprop_flops:
        parts.append(f"{plan.cost.ratio:.2f}× the FLOPs of backprop")
    return (
        Text(MARGIN, MARGIN + 15, shorten(plan.name, 900, 19, True), 19, bold=True),
        Text(MARGIN, MARGIN + 37, shorten("  ·  ".join(p for p in parts if p), 1000, 12), 12, tone="faint"),
    )


def page_width(texts: tuple[Text, ...], graph: float) -> float:
    """The width of a picture that holds its heading and a graph of this width."""
    return max(NARROWEST, graph + 2 * MARGIN, *(MARGIN + t.x + width(t.text, t.size, t.bold) for t in texts))


def legend(plan: Plan, room: float) -> tuple[Key, ...]:
    """What the lines and colours mean, in rows no wider than `room`."""
    waves = wave_of(plan)
    into = Counter(waves.get(p.target, -1) for p in plan.pathways)
    entries: list[tuple[str, int, str]] = []
    if output_region(plan):
        entries.append(("arc", 0, "wave 0: from the loss"))
    last = len(plan.waves) - 1
    if few(len(plan.waves)):
        for k in range(1, last + 1):
            entries.append(("arc", k, f"wave {k}: {plural(into[k], 'pathway')}"))
    else:
        entries.append(("scale", 1, f"waves 1 to {last}"))
    entries.append(("forward", -1, "forward"))
    if any(p.edge for p in plan.pathways):
        entries.append(("tied", -1, "along the model's own edge"))
    if any(not t.trainable and plan.region(t.region).parameter_count for t in plan.targets):
        entries.append(("frozen", -1, "frozen"))
    keys = []
    x, y = MARGIN, MARGIN + 64
    for kind, wave, text in entries:
        sample = 96.0 if kind == "scale" else 24.0
        need = sample + 8 + width(text, 11)
        if x > MARGIN and x + need > room - MARGIN:
            x, y = MARGIN, y + 20
        keys.append(Key(kind, wave, x, y, Text(x + sample + 8, y + 4, text, 11)))
        x += need + 14
    return tuple(keys)
