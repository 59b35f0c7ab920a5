"""Every example compiles with the shipped wirings it is meant for, takes steps, and trains from the command line."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner

import reclra_compile as rc
from reclra_compile.cli.main import main
from reclra_compile.frontend.load_model import load_model

EXAMPLES = Path(__file__).parent.parent / "examples"
SMALL = {
    "cnn.py": ("digits", "mnist", "cifar10"), "vit.py": ("digits", "cifar10"), "mlp_mixer.py": ("digits", "cifar10"),
    "gpt.py": ("build_model",), "autoencoder.py": ("build_model",), "tabular.py": ("build_model",),
    "lstm.py": ("build_model",), "resnet_cifar.py": ("conv16", "perturbative16"), "mlp_digits.py": ("build_model",),
    "mlp_mnist.py": ("relu", "sign"), "mlp_figure2.py": ("sigmoid", "tanh"), "figure1.py": ("build_model",),
}  # fmt: skip
BUILDERS = [f"{file}:{name}" for file, names in SMALL.items() for name in names]


def module(file: str):
    spec = importlib.util.spec_from_file_location(Path(file).stem, EXAMPLES / file)
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def target(output: torch.Tensor, loss_fn) -> torch.Tensor:
    if loss_fn is F.mse_loss:
        return torch.zeros_like(output)
    return torch.zeros(output.shape[:-1], dtype=torch.long)


LESS = [pytest.param(w, marks=pytest.mark.slow) for w in ("depth1_local", "blocks", "lra_e")]


@pytest.mark.parametrize("wiring", ["backprop", "depth1", "blocks_nested", *LESS])
@pytest.mark.parametrize("builder", BUILDERS)
def test_an_example_takes_a_step(builder: str, wiring: str) -> None:
    loaded = load_model(str(EXAMPLES / builder))
    inputs = tuple(x[:4] for x in loaded.inputs)
    loss_fn = loaded.extra("loss_fn") or F.cross_entropy
    program = rc.compile(loaded.model, inputs, wiring, loss_fn=loss_fn)
    loaded.model.train()
    with torch.no_grad():
        y = target(loaded.model(*inputs), loss_fn)
    assert torch.isfinite(program.step(*inputs, y))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in loaded.model.parameters())


@pytest.mark.parametrize("builder", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
@pytest.mark.parametrize("wiring", ["backprop", "depth1", "blocks", "groups"])
def test_imagenet_networks_are_planned_without_weights(builder: str, wiring: str) -> None:
    loaded = load_model(str(EXAMPLES / f"resnet_imagenet.py:{builder}"), meta=True)
    plan = rc.plan_for(loaded.model, loaded.inputs, wiring)
    assert all(p.is_meta for p in loaded.model.parameters())
    assert max(p.synapses for p in plan.pathways) <= 16_001_000, "1000 classes into a 56×56×64 map"
    assert plan.cost.synapse_bytes <= 1.2 * max(plan.cost.parameter_bytes, 64 * 2**20)


@pytest.mark.parametrize("builder", ["conv", "perturbative"])
def test_the_papers_resnets_have_blocks_of_two_layers(builder: str) -> None:
    """64 filters or 64 masks; the skip of each block is g = 2 layers long."""
    loaded = load_model(str(EXAMPLES / f"resnet_cifar.py:{builder}"), meta=True)
    plan = rc.plan_for(loaded.model, loaded.inputs, "blocks")
    assert [r.name for r in plan.regions if r.layers] == [f"layer{k}.{i}" for k in (1, 2, 3, 4) for i in (0, 1)]
    assert plan.region("layer1.0").channels == 64
    kind = "Conv2d" if builder == "conv" else "PerturbativeConv2d"
    assert plan.region("layer1.0").op == f"{kind}×2"


def train(*arguments: str) -> dict:
    result = CliRunner().invoke(main, ["train", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("file", ["autoencoder.py", "tabular.py", "lstm.py", "cnn.py", "vit.py", "mlp_mixer.py"])
def test_an_example_trains_from_the_command_line(file: str) -> None:
    report = train(str(EXAMPLES / file), "--wiring", "blocks", "--epochs", "1", "--batch-size", "64")
    assert report["measure"] == ("loss" if file == "autoencoder.py" else "error")
    assert math.isfinite(report["results"][0]["test_error"]["mean"])


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [
    ("gpt.py", "--wiring", "blocks"),
    ("resnet_imagenet.py:resnet18", "--wiring", "blocks", "--batch-size", "4"),
    ("resnet_imagenet.py:resnet50", "--wiring", "groups", "--batch-size", "2"),
])  # fmt: skip
def test_a_large_example_trains_from_the_command_line(arguments: tuple[str, ...]) -> None:
    report = train(str(EXAMPLES / arguments[0]), *arguments[1:], "--epochs", "1")
    assert report["data"] == "own" and report["measure"] == "error"
    assert math.isfinite(report["results"][0]["history"][0][0]["loss"])


def test_the_autoencoder_learns_to_give_images_back() -> None:
    path = str(EXAMPLES / "autoencoder.py")
    report = train(path, "--wiring", "depth1", "--epochs", "30")
    history = report["results"][0]["history"][0]
    images = module("autoencoder.py").data()["test"][0]
    assert history[-1]["test_error"] < 0.6 * float(F.mse_loss(images.mean(0).expand_as(images), images))


def test_the_convolutional_network_learns_digits() -> None:
    report = train(str(EXAMPLES / "cnn.py"), "--wiring", "depth1_local", "--epochs", "15", "--batch-size", "16")
    assert report["results"][0]["test_error"]["mean"] < 6


def test_the_tabular_network_learns() -> None:
    report = train(str(EXAMPLES / "tabular.py"), "--wiring", "depth1", "--epochs", "10")
    assert report["results"][0]["test_error"]["mean"] < 10


def test_the_text_is_the_same_for_everyone_and_large_enough() -> None:
    made = module("gpt.py")
    parts = made.data()
    assert len(parts["train"][1]) > 3000
    x, y = parts["train"]
    assert torch.equal(x[:, 1:], y[:, :-1]), "the target is the text one character on"
    assert int(x.max()) <= len(made.CHARACTERS)
