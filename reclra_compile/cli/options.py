"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def granularity_option(command: F) -> F:
    """--granularity: what a region is, in place of what the wiring says."""
    return click.option(
        "--granularity", metavar="layer|block|groups=K",
        help="regions: each layer, each residual or transformer block, or K balanced groups of blocks",
    )(command)  # fmt: skip


def output_option(command: F) -> F:
    """--output: which output of a model that gives several."""
    return click.option(
        "--output", metavar="NAME|INDEX", help="the output to learn from, where the model gives several"
    )(command)


def meta_option(command: F) -> F:
    """--meta: plan without weights."""
    return click.option(
        "--meta", is_flag=True, help="build the model on the meta device: plans a model of any size without its weights"
    )(command)


def unreached_option(command: F) -> F:
    """--unreached: what becomes of parameters that no error reaches."""
    return click.option(
        "--unreached", type=click.Choice(["refuse", "freeze", "backprop"]), default="refuse", show_default=True,
        help="parameters that no error reaches: an error, not trained, or trained by exact backpropagation",
    )(command)  # fmt: skip
