"""The drawing that all renderers share: boxes, lines and texts with their places in pixels."""

from __future__ import annotations

from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text at its baseline; `anchor` is start, middle or end, `tone` ink, faint or ground."""

    x: float
    y: float
    text: str
    size: float
    anchor: str = "start"
    bold: bool = False
    tone: str = "ink"


@dataclass(frozen=True, slots=True)
class Box:
    """A model input, a region or the loss; `wave` is −1 where it gets no error neurons."""

    name: str
    kind: str
    x: float
    y: float
    width: float
    height: float
    wave: int
    frozen: bool
    texts: tuple[Text, ...]
    hover: str
    badge: Text | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """A value that flows forward between two boxes, by index; `swing` where it is one S-shaped curve."""

    source: int
    target: int
    points: tuple[Point, ...]
    swing: bool


@dataclass(frozen=True, slots=True)
class Arc:
    """An error pathway, from its source to its target; `tied` where it runs along the model's own edge."""

    name: str
    source: str
    target: str
    wave: int
    tied: bool
    points: tuple[Point, ...]
    hover: str


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of the legend: a sample of this `kind` that starts at x, y, and its meaning."""

    kind: str
    wave: int
    x: float
    y: float
    text: Text


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture of a plan, y downward; `graph` is x, y, width and height of it without title and legend.

    `across` is true where the model runs from left to right, false where it runs upward. `waves` is
    their number. `seed` is the line from the loss to the output region, where the error starts.
    """

    name: str
    width: float
    height: float
    graph: tuple[float, float, float, float]
    across: bool
    waves: int
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]
    arcs: tuple[Arc, ...]
    seed: Arc | None
    heading: tuple[Text, ...]
    legend: tuple[Key, ...]
