"""Plans that pages are made of in tests, and what is found on a page."""

from __future__ import annotations

from typing import Any

import test_view as plans
from synthetic import chain

from reclra_compile.ir import Plan
from reclra_compile.machine import Machine
from reclra_compile.view.recorded import Recorded, Span, of_simulation

#: boxes that overlap, and the keys of lines that do not begin and end on the rims of boxes or run through one
ENDS = """() => {
  const box = (e) => { const b = e.getBBox(); return [b.x, b.y, b.x + b.width, b.y + b.height]; };
  const boxes = [...document.querySelectorAll('svg .body')].map(box), wrong = [];
  const rim = ([x, y]) => boxes.some(([a, b, c, d]) => x > a - 1 && x < c + 1 && y > b - 1 && y < d + 1
    && Math.min(Math.abs(x - a), Math.abs(x - c), Math.abs(y - b), Math.abs(y - d)) < 1);
  boxes.forEach(([a, b, c, d], i) => boxes.slice(i + 1).forEach(([p, q, r, s]) => {
    if (a < r && p < c && b < s && q < d) wrong.push(`boxes ${i}`);
  }));
  for (const g of document.querySelectorAll('svg .arc')) {
    const numbers = g.querySelector('.line').getAttribute('d').match(/-?[\\d.]+/g).map(Number);
    const tip = g.querySelector('polygon').getAttribute('points').split(' ')[0].split(',').map(Number);
    if (!rim(numbers.slice(0, 2)) || !rim(tip)) wrong.push(`ends of ${g.dataset.key}`);
    const points = [];
    for (let i = 0; i < numbers.length; i += 2) points.push([numbers[i], numbers[i + 1]]);
    for (let i = 1; i < points.length; i++) {
      const [x, y] = points[i - 1], [u, v] = points[i];
      if (boxes.some(([a, b, c, d]) => Math.max(x, u) > a + 1 && Math.min(x, u) < c - 1
        && Math.max(y, v) > b + 1 && Math.min(y, v) < d - 1)) wrong.push(`${g.dataset.key} crosses a box`);
    }
  }
  return wrong;
}"""


def blocky() -> Plan:
    """A model of two blocks of two layers each, whose layers hear the head."""
    names = ["stem", "a.0", "a.1", "b.0", "b.1", "head"]
    regions = [plans.region(n, f"z.{names[i - 1]}" if i else "x0") for i, n in enumerate(names)]
    return plans.make("blocky", regions, [("head", n) for n in ("b.1", "b.0", "a.1", "stem")] + [("b.0", "a.0")])


def timed() -> tuple[Plan, Recorded]:
    """A plan of four devices, and a step that took twice as long as predicted."""
    p = chain(8).on(Machine(devices="h100:4", microbatches=4))
    spans = [Span(s.task, s.microbatch, s.device, 2 * s.start_us, 2 * s.end_us) for s in of_simulation(p).spans]
    return p, Recorded(tuple(d.name for d in p.devices), tuple(spans), "measured")


def keys(page: Any, selector: str) -> set[str]:
    """The keys of the shapes that a selector finds."""
    found: list[str] = page.eval_on_selector_all(f"svg {selector}", "all => all.map((e) => e.dataset.key)")
    return {k for k in found if k}


def region_key(plan: Plan, *names: str) -> set[str]:
    return {f"r{i}" for i, r in enumerate(plan.regions) if r.name in names}
