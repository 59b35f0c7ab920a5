"""Lower rule equilibrium (E13): all regions settle together, freely and then nudged by ±β towards the labels."""

from __future__ import annotations

from reclra_compile.ir import Region, Target, Task

RULE = "equilibrium"


def settles(targets: tuple[Target, ...]) -> bool:
    """True where the regions of a plan settle to an equilibrium."""
    return any(t.rule == RULE for t in targets)


def options(target: Target) -> tuple[float, int, int, float, float]:
    """What all regions that settle together have in common: β, the steps of both phases, their size, feedback."""
    return target.beta, target.free_steps, target.nudged_steps, target.step, target.feedback


def states(regions: tuple[Region, ...], targets: tuple[Target, ...]) -> tuple[Region, ...]:
    """The regions that have a state of their own, in the model's order: those with parameters, but the output."""
    ruled = {t.region for t in targets if t.rule == RULE}
    return tuple(r for r in regions if r.name in ruled and r.parameters)


def moving(regions: tuple[Region, ...], targets: tuple[Target, ...]) -> frozenset[str]:
    """Regions that read a state, directly or through regions without one: the others' h never changes."""
    names = {r.name for r in states(regions, targets)}
    alive: set[str] = set()
    found: set[str] = set()
    for r in regions:
        if alive & set(r.inputs):
            found.add(r.name)
        if r.name in names or r.name in found:
            alive |= set(r.outputs)
    return frozenset(found)


def levels_of(regions: tuple[Region, ...], targets: tuple[Target, ...]) -> dict[str, int]:
    """For each region the number of states on the longest way to it from the inputs."""
    names = {r.name for r in states(regions, targets)}
    reached: dict[str, int] = {}
    levels: dict[str, int] = {}
    for r in regions:
        levels[r.name] = max((reached[v] for v in r.inputs if v in reached), default=0)
        reached.update(dict.fromkeys(r.outputs, levels[r.name] + (r.name in names)))
    return levels


def inputs_of(regions: tuple[Region, ...]) -> tuple[str, ...]:
    """The model's inputs that regions read."""
    made = {v for r in regions for v in r.outputs}
    return tuple(dict.fromkeys(v for r in regions for v in r.inputs if v not in made))


def phases(regions: tuple[Region, ...], targets: tuple[Target, ...], root: str) -> list[Task]:
    """The free phase, from the forward pass to `s.R`, and the nudged ones, from there to `n.R`.

    `s.values` and `n.values` are all values that regions read, where the states have settled.
    """
    own, given = states(regions, targets), inputs_of(regions)
    free, nudged = _steps(targets)
    still, each, top = _flops(regions, targets, root)
    start = tuple(f"z.{r.name}" if r.tail else r.outputs[0] for r in own)
    settled = tuple(f"s.{r.name}" for r in own)
    return [
        Task("S", "free", (*given, *start), (*settled, f"s.{root}", "s.values"), wave=0,
             flops=still + free * each + top.forward_flops),
        Task("S", "nudged", (*given, *settled, "y", "loss"), (*(f"n.{r.name}" for r in own), "n.values"), wave=1,
             flops=2 * still + 2 * nudged * (each + top.forward_flops + top.input_flops)),
    ]  # fmt: skip


def settled_updates(
    region: Region, target: Target, root: str, wave: int
) -> list[Task]:
    """Task U: of a state, the contrast of its nudged phases; of the output, the loss's gradient after the free one."""
    if not target.trainable:
        return []
    top = region.name == root
    reads = (f"e.{root}", "s.values") if top else (f"n.{region.name}", "n.values", "loss")
    flops = (1 if top else 2) * (region.forward_flops + region.weight_flops)
    return [Task("U", region.name, reads, (f"g.{region.name}",), wave, flops=flops)]


def _steps(targets: tuple[Target, ...]) -> tuple[int, int]:
    ruled = [t for t in targets if t.rule == RULE]
    return max(t.free_steps for t in ruled), max(t.nudged_steps for t in ruled)


def _flops(regions: tuple[Region, ...], targets: tuple[Target, ...], root: str) -> tuple[int, int, Region]:
    """FLOPs of what is computed once a phase and of one step, and the output region."""
    alive = moving(regions, targets)
    top = next(r for r in regions if r.name == root)
    inner = [r for r in regions if r is not top]
    still = sum(r.forward_flops for r in inner if r.name not in alive)
    return still, sum(r.forward_flops + r.input_flops for r in inner if r.name in alive), top
