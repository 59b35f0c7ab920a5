"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from reclra_compile.machine import Machine

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


def devices_option(command: F) -> F:
    """--devices: how many devices, of which profile."""
    return click.option(
        "--devices", metavar="N|KIND:N|FILE",
        help="devices: a number, cpu:4, cuda:8, h100:4, a100:2,h100:2, or a YAML file of devices",
    )(command)  # fmt: skip


def device_profile_option(command: F) -> F:
    """--device-profile: the rates and memory of devices that name none."""
    return click.option(
        "--device-profile", metavar="NAME|FILE",
        help="rates and memory of the devices: cpu, a100, h100, h200, any (no limits), measured, or a file",
    )(command)  # fmt: skip


def microbatches_option(command: F) -> F:
    """--microbatches: parts that a batch is cut into."""
    return click.option(
        "--microbatches", type=click.IntRange(min=1), metavar="M", help="parts that each batch is cut into"
    )(command)


def pin_option(command: F) -> F:
    """--pin: regions that have to be on a device."""
    return click.option(
        "--pin", "pins", multiple=True, metavar="GLOB=DEVICE",
        help="put regions on a device by name or number, as in --pin 'head.*=cuda:0'; may be repeated",
    )(command)  # fmt: skip


def device_memory_option(command: F) -> F:
    """--device-memory: the memory of each device."""
    return click.option(
        "--device-memory", metavar="SIZE", help="memory of each device, such as 16GiB, in place of the profile's"
    )(command)


def staleness_option(command: F) -> F:
    """--staleness: whether batches overlap."""
    return click.option(
        "--staleness", type=click.IntRange(0, 1), metavar="0|1",
        help="1: gradients at the weights before the last update, so that the next batch need not wait",
    )(command)  # fmt: skip


def machine_options(command: F) -> F:
    """All that says what a plan is made for; `machine_of` reads them."""
    for option in (pin_option, staleness_option, microbatches_option, device_memory_option, device_profile_option,
                   devices_option):  # fmt: skip
        command = option(command)
    return command


def machine_of(options: dict[str, Any]) -> Machine:
    """The machine that the options of `machine_options` ask for; they are taken out of `options`."""
    from reclra_compile.machine import Machine
    from reclra_compile.placement.pins import parse_pins

    taken = {k: options.pop(k) for k in ("devices", "device_profile", "device_memory", "microbatches", "staleness")}
    return Machine(
        devices=taken["devices"],
        microbatches=taken["microbatches"],
        staleness=taken["staleness"],
        pins=parse_pins(options.pop("pins")),
        profile=taken["device_profile"],
        memory=taken["device_memory"],
    )
