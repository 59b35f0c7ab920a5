"""The page of the shipped wirings: the words, the text and a picture of each, drawn while the site is built."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

import reclra_compile as rc
from reclra_compile.spec.load import load_wiring, shipped

INTRO = """# Shipped wirings

Generated from the files of `wiring/`: what `--wiring NAME`, or `rc.compile(model, x, "NAME")`, uses. The pictures show
each on a small network, six linear layers or, for wirings of blocks, three residual blocks between a stem and a head;
grey is the forward pass, colours are error pathways by wave. Sources and equations are in
[Learning rules](../rules.md), what the keys mean in [Wiring files](../wiring.md).

"""


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(32, 32), nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.fc2(torch.relu(self.fc1(x))) + x)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(64, 32), nn.Linear(32, 10)
        self.block1, self.block2, self.block3 = Block(), Block(), Block()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block3(self.block2(self.block1(torch.relu(self.stem(x))))))


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for k in range(1, 6):
            self.add_module(f"fc{k}", nn.Linear(64, 64))
        self.out = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        for k in range(1, 6):
            x = torch.tanh(self.get_submodule(f"fc{k}")(x))
        return self.out(x)


def pages() -> dict[str, str | bytes]:
    """The page and its pictures, by their place in the site."""
    with torch.device("meta"):
        layers, blocks, x = Layers(), Residual(), torch.rand(4, 64)
    files = shipped()
    wirings = {name: load_wiring(path).wiring for name, path in files.items()}
    lines = [f"| [`{name}`](#{name}) | {w.about} |" for name, w in wirings.items()]
    text = [INTRO + "| wiring | |\n|---|---|\n" + "\n".join(lines) + "\n"]
    found: dict[str, str | bytes] = {}
    for name, path in files.items():
        model = layers if wirings[name].regions.granularity.name == "layer" else blocks
        found[f"reference/wirings/{name}.svg"] = _picture(rc.plan_for(model, x, name))
        comment, yaml = _parted(path.read_text(encoding="utf-8"))
        text.append(f"## {name}\n\n{comment}\n\n![{wirings[name].about}](wirings/{name}.svg)\n\n```yaml\n{yaml}```\n")
    return {"reference/wirings.md": "\n".join(text), **found}


def _picture(plan: rc.Plan) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "wiring.svg"
        rc.write_picture(plan, file)
        return file.read_text(encoding="utf-8")


def _parted(text: str) -> tuple[str, str]:
    """The comment that a wiring file begins with, as a paragraph, and the rest."""
    comment = re.match(r"(?:#.*\n)*", text)
    head = comment[0] if comment else ""
    words = " ".join(line.removeprefix("#").strip() for line in head.splitlines())
    return re.sub(r"([*_<])", r"\\\1", words), text[len(head) :]
