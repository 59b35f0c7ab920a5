"""The schema of a table file: one entry per row of a paper's table and data set, with the settings of each scale."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from reclra_compile.data.augment import Augment
from reclra_compile.data.preprocess import Preprocess
from reclra_compile.spec.parts import Count, NotNegative, Strict
from reclra_compile.spec.schema import TrainingSpec

Scale = Literal["smoke", "hours", "paper"]
SCALES: tuple[Scale, ...] = ("smoke", "hours", "paper")
Kind = Literal["errors", "curves", "plans"]


class ScaleSpec(Strict):
    """What a scale changes: how many seeds, epochs and images; a smaller model; settings of its own."""

    seeds: Count | None = None
    epochs: Count | None = None
    images: Count | None = Field(default=None, description="training images used, the first of the shuffled ones")
    validation: NotNegative | None = Field(default=None, description="training images held out")
    test_images: Count | None = Field(default=None, description="test images used")
    model: str | None = None
    settings: TrainingSpec = TrainingSpec()
    note: str = Field(default="", description="said in the table of this scale")


class Numbers(Strict):
    """The paper's numbers of a row: errors in percent, and epochs."""

    train: NotNegative | None = None
    test: NotNegative | None = None
    valid: NotNegative | None = None
    top1: NotNegative | None = None
    top5: NotNegative | None = None
    epochs: Count | None = None


class Row(Strict):
    """One row of a table on one data set: what is run, with which settings, and what the paper says."""

    row: str = Field(description="the row's name, as in the paper")
    data: str = Field(description="data set")
    model: str = Field(description="file:builder; a file beside the table, or one of the examples")
    wiring: str | dict[str, Any] = Field(description="a shipped name, a file beside the table, or the wiring itself")
    change: dict[str, Any] = Field(default={}, description="parts of the wiring that this row has otherwise")
    granularity: str | None = None
    settings: TrainingSpec = TrainingSpec()
    preprocess: Preprocess | None = None
    augment: Augment | None = None
    validation: int | None = Field(default=None, ge=0, description="training images held out")
    paper: Numbers = Numbers()
    found: str = Field(default="", description="how the settings were found")
    note: str = ""
    scales: dict[Scale, ScaleSpec] = Field(default={})


class TableFile(Strict):
    """A table file."""

    version: Literal[1]
    table: str
    title: str
    kind: Kind = "errors"
    note: str = ""
    validation: dict[str, int] = Field(default={}, description="training images held out, by data set")
    scales: dict[Scale, ScaleSpec] = Field(default={})
    settings: TrainingSpec = Field(default=TrainingSpec(), description="settings of every row that has no other")
    rows: list[Row] = Field(min_length=1)
