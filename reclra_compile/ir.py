"""The frozen data that flows between the stages of the compiler.

Nothing here holds a tensor and nothing imports torch: a plan can be made, read, checked, drawn
and simulated without the model. Shapes are those of one sample (the batch dimension, always the
first, is left out). FLOPs are per batch of `Plan.batch` samples, counted as torch does (one
multiply-add is two).

Values are named by what they are: `x0` a model input, `y` the training target, `loss`,
`z.R` the output of region R (`z.R#1` a further output; `o.R` where a tail follows z), `h.R` its
pre-activation, `e.R` its error neurons, `d.P` the displacement that pathway P delivers,
`g.R` and `g.P` the finished gradients of a region's parameters and of a pathway's synapses. Where a plan has
several devices, `V|2` is the copy of value V on device 2, and `V>2` the message that brings it there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reclra_compile.errors import Notice
from reclra_compile.ir_parts import Cost as Cost
from reclra_compile.ir_parts import Device as Device
from reclra_compile.ir_parts import Placement as Placement
from reclra_compile.ir_parts import Schedule as Schedule
from reclra_compile.ir_parts import Training as Training

if TYPE_CHECKING:
    from reclra_compile.machine import Machine
    from reclra_compile.simulate.events import Simulation

Shape = tuple[int, ...]

OUTPUT = "output"  #: the name wirings use for the region that produces the model's output
EDGE_KERNELS = frozenset({"adjoint", "transpose", "sign", "mirror"})
"""Kernels that run along the model's own edges, inside the region's vector-Jacobian product."""


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the model with one output that can get a target (E1: z = φ(h), h = f(inputs; θ)).

    `phi` is "identity" where the region has no activation of its own; then h = z. `outputs` are the value
    names other regions read; the first is the main one. `tail` is true where parameter-free operations
    (pooling, flatten, dropout) follow z inside the region, so that what leaves it is not z itself; `batched`
    is false where z's first dimension is not the batch. `weight_count` is the part of `parameter_count` in
    matrices and filters. FLOPs: `forward_flops` of E1, `weight_flops` of the VJP with respect to the
    parameters (E5), `input_flops` of the VJP with respect to the inputs (what backprop's dX costs).
    `saved_bytes` is what autograd keeps for E5 beside parameters and the region's inputs, for the batch.
    `forward_bytes`, `weight_bytes` and `input_bytes` are what the operations of the same three parts read and write,
    `output_bytes` the size of each output and `z_bytes` that of z, all for the batch; `parameter_sizes` are what the
    parameters take.

    `channel_axis` is the axis of `shape` that holds the channels (features); the other axes are the grid
    of a feature map or sequence. `window` is the filter size of the region's last convolution, () where it
    has none; `norm` is true where a normalisation lies between parameters and h; `frozen` where none of
    its parameters requires a gradient. `within` names the blocks around it, the outermost first; `layers`
    the layer regions that it joins, () where it is one of them.
    """

    name: str
    op: str
    phi: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shape: Shape
    parameters: tuple[str, ...] = ()
    parameter_count: int = 0
    weight_count: int = 0
    forward_flops: int = 0
    weight_flops: int = 0
    input_flops: int = 0
    saved_bytes: int = 0
    forward_bytes: int = 0
    weight_bytes: int = 0
    input_bytes: int = 0
    output_bytes: tuple[int, ...] = ()
    z_bytes: int = 0
    parameter_sizes: tuple[int, ...] = ()
    tail: bool = False
    batched: bool = True
    channel_axis: int = 0
    window: Shape = ()
    norm: bool = False
    frozen: bool = False
    within: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    source: str = ""

    @property
    def parameter_bytes(self) -> int:
        """What the region's parameters take."""
        return sum(self.parameter_sizes)

    @property
    def learns(self) -> bool:
        """True where the region has parameters that a gradient may change."""
        return bool(self.parameters) and not self.frozen

    @property
    def channels(self) -> int:
        """Neurons per cell of the grid."""
        return self.shape[self.channel_axis] if self.shape else 1

    @property
    def grid(self) -> Shape:
        """Cells of the feature map or sequence, per axis; () for a flat vector."""
        return tuple(s for k, s in enumerate(self.shape) if k != self.channel_axis)

    @property
    def size(self) -> int:
        """Number of neurons: elements of z for one sample."""
        n = 1
        for s in self.shape:
            n *= s
        return n


@dataclass(frozen=True, slots=True)
class Target:
    """How one region turns its displacement into error neurons.

    rule "lra": y = φ(h − β d) (E3), e = κ ∂(1/q)‖m‖_p^q/∂m with m = z − y (E4, E2), m divided by β
    where `normalize`. rule "gradient": e = d ⊙ φ'(h). `phi` other than "same" names the activation
    used for targets in place of the region's own. `rescale` sets each sample's d to the length
    ‖h‖·‖e_L‖. `trainable` is false for frozen regions and regions without parameters. With `recompute` the
    region keeps only its inputs, and its forward pass runs again for the weight update. Rule "equilibrium"
    (E13) settles for `free_steps`, then nudged by ±β for `nudged_steps`, each of size `step`; states hear those
    above them times `feedback`.
    """

    region: str
    rule: str
    beta: float = 1.0
    normalize: bool = False
    kappa: float = 1.0
    p: int = 2
    q: int = 2
    phi: str = "same"
    rescale: bool = False
    trainable: bool = True
    recompute: bool = False
    free_steps: int = 0
    nudged_steps: int = 0
    step: float = 1.0
    feedback: float = 0.0


@dataclass(frozen=True, slots=True)
class Pathway:
    """Error synapses from region `source` to region `target` (E3: d_target += E e_source).

    `kernel` says how E is stored and applied, `update` how it learns. `rank` is used by low_rank
    only. Of a feature map, `grid` is what the target's is pooled to (channel, spatial) and `source_grid`
    what the source's is; `window` is the filter of kernel conv. `init` and `scale` give the initial
    distribution, `noise` the deviation of what updates autoencoding and weight_mirror send through. `synapses`
    counts stored entries: 0 for kernels tied to the model's own weights. `flops` is one application,
    `update_flops` one update.
    """

    name: str
    source: str
    target: str
    kernel: str
    update: str
    init: str = "none"
    scale: float = 1.0
    gamma: float = 1.0
    growth_limit: float = 0.0
    noise: float = 0.0
    rank: int = 0
    grid: Shape = ()
    source_grid: Shape = ()
    window: Shape = ()
    synapses: int = 0
    flops: int = 0
    update_flops: int = 0
    reason: str = ""

    @property
    def edge(self) -> bool:
        """True where the kernel runs along the model's own edge (adjoint and its variants)."""
        return self.kernel in EDGE_KERNELS


@dataclass(frozen=True, slots=True)
class Task:
    """One unit of work on one device.

    Kinds: F forward of a region, L loss and its gradient at the output, D displacement over a
    pathway, T error neurons of a region, U weight update (E5; also the displacements of the edge
    pathways that leave the region, from the same VJP), V synapse update, M mirror mode (noise in, correlations
    out), S settling of all regions under rule equilibrium, P post a value to another device, R receive it there,
    X free values. Order follows from `reads` and `writes` alone. `flops` and `bytes` (read and written, or sent) are
    for the batch; `us` is the predicted time of one microbatch on the task's device in microseconds, 0 where no
    device was asked for. In turn i a device runs the task for microbatch i - `turn`.
    """

    kind: str
    subject: str
    reads: tuple[str, ...]
    writes: tuple[str, ...] = ()
    wave: int = -1
    device: int = 0
    flops: int = 0
    bytes: int = 0
    us: float = 0.0
    turn: int = 0

    @property
    def id(self) -> str:
        """The task's name, unique in a plan: kind and subject."""
        return f"{self.kind} {self.subject}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a runtime needs to execute a wiring on a model, and everything a person wants to see.

    `waves` are the topological generations of the wiring (wave 0 is the output region). `inputs`
    gives (value name, shape of one sample, dtype). `fingerprint` identifies the model's structure. `idle`
    names the parameters that the output does not depend on.
    """

    name: str
    model: str
    fingerprint: str
    batch: int
    inputs: tuple[tuple[str, Shape, str], ...]
    output: str
    regions: tuple[Region, ...]
    targets: tuple[Target, ...]
    pathways: tuple[Pathway, ...]
    waves: tuple[tuple[str, ...], ...]
    tasks: tuple[Task, ...]
    devices: tuple[Device, ...] = (Device(),)
    placement: Placement = field(default_factory=Placement)
    schedule: Schedule = field(default_factory=Schedule)
    cost: Cost = field(default_factory=Cost)
    training: Training = field(default_factory=Training)
    warnings: tuple[Notice, ...] = ()
    idle: tuple[str, ...] = ()
    version: int = 1

    def __str__(self) -> str:
        from reclra_compile.text import format_plan

        return format_plan(self)

    def _repr_html_(self) -> str:
        """The plan as notebooks show it."""
        from reclra_compile.view.notebook import to_notebook

        return to_notebook(self)

    @classmethod
    def parse(cls, text: str, file: str = "<plan>") -> Plan:
        """Read a plan from its text; raises PlanError that lists every malformed line."""
        from reclra_compile.text import parse_plan

        return parse_plan(text, file)

    def on(self, machine: Machine) -> Plan:
        """This plan for other devices or microbatches, without the model; what `machine` leaves open stays, but pins.

        Raises PlacementError, UserError for more microbatches than samples, PlanError where nothing has a time.
        """
        from reclra_compile.simulate.retarget import retargeted

        return retargeted(self, machine)

    def simulate(self, batches: int = 1) -> Simulation:
        """The step as predicted: when each task runs on its device, in microseconds; `batches` steps in a row."""
        from reclra_compile.simulate.events import simulate

        return simulate(self, batches)

    def region(self, name: str) -> Region:
        """The region called `name`; KeyError where there is none."""
        return {r.name: r for r in self.regions}[name]
