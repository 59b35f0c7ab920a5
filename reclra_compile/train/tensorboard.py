"""Training as TensorBoard shows it: scalars of each run, its wiring as text and as a picture."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reclra_compile.errors import Fault, UserError
from reclra_compile.files import make_folder
from reclra_compile.ir import Plan
from reclra_compile.train.writers import Record
from reclra_compile.view.layout import layout
from reclra_compile.view.png import svg_png
from reclra_compile.view.svg import to_svg

#: what a value is called in TensorBoard, whose cards are grouped by what stands before the slash
TAGS = {
    "loss": "loss/train", "train_error": "error/train", "valid_error": "error/valid", "test_error": "error/test",
    "test_top5_error": "error/test top-5", "discrepancy": "discrepancy/total", "lr": "rate/learning rate",
    "samples_per_s": "rate/samples per second", "synapse_norm": "synapses/norm",
    "seconds": "rate/seconds of training",
}  # fmt: skip
#: a wider picture is drawn smaller
WIDEST = 1600


class TensorBoard:
    """Writes event files below a folder, one folder a run; implements `writers.Writer`.

    `plans` (by run) gives the pictures and texts of wirings. Raises UserError Y001 where the package `tensorboard` is
    not installed, and F002 where the folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str], plans: Mapping[str, Plan] | None = None) -> None:
        self._make = _writer()
        self.folder, self._plans = Path(folder), dict(plans or {})
        make_folder(self.folder)
        self._open: dict[str, Any] = {}

    def begin(self, run: str, facts: Mapping[str, Any], epoch: int = 0, step: int = 0) -> None:
        """A folder for the run; TensorBoard forgets what an earlier start wrote of it after `step`."""
        if run in self._open:
            self._open.pop(run).close()
        writer = self._open[run] = self._make(str(self.folder / run), purge_step=step + 1 if step else None)
        if step:
            return
        flat = _flat(facts)
        rows = "\n".join(f"| {name} | {str(value).replace('|', ' ')} |" for name, value in flat.items())
        writer.add_text("run", f"| setting | value |\n|---|---|\n{rows}")
        writer.add_hparams(
            {k: v for k, v in flat.items() if isinstance(v, (bool, int, float, str))}, {}, run_name="."
        )
        if run in self._plans:
            self._wiring(writer, self._plans[run])

    def step(self, record: Record) -> None:
        """Scalars of a step, apart from those of epochs."""
        self._write(record, True)

    def epoch(self, record: Record) -> None:
        """Scalars of an epoch, at its last step."""
        self._write(record, False)
        self._open[record.run].flush()

    def close(self) -> None:
        """Close all files."""
        for writer in self._open.values():
            writer.close()
        self._open.clear()

    def _write(self, record: Record, of_step: bool) -> None:
        writer = self._open[record.run]
        for name, value in record.values.items():
            if value is not None:
                writer.add_scalar(f"steps/{name}" if of_step else TAGS.get(name, f"more/{name}"), value, record.step)
        group = "steps, discrepancy by region" if of_step else "discrepancy by region"
        for region, value in record.regions.items():
            writer.add_scalar(f"{group}/{region}", value, record.step)

    def _wiring(self, writer: Any, plan: Plan) -> None:
        """The plan as text, and the picture of its error graph where one can be made."""
        writer.add_text("wiring", "\n".join(f"    {line}" for line in str(plan).splitlines()[:400]))
        drawing = layout(plan)
        scale = 2 if 2 * drawing.width <= WIDEST else 1
        try:
            png = svg_png(to_svg(drawing, "light"), drawing.width, drawing.height, scale)
        except UserError:  # without the extra [png], or a font, there is the text
            return
        from tensorboard.compat.proto.summary_pb2 import Summary

        image = Summary.Image(height=int(drawing.height * scale), width=int(drawing.width * scale), colorspace=4,
                              encoded_image_string=png)  # fmt: skip
        writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag="error graph", image=image)]))


def _flat(facts: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Facts by dotted names; what is no plain value becomes JSON."""
    found: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{name}.")
        elif value is not None:
            known = isinstance(value, (bool, int, float, str))
            found[before + name] = value if known else json.dumps(value, ensure_ascii=False, default=str)
    return found


def _writer() -> Any:
    """torch's writer of event files; raises UserError (Y001) where its package is not there."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError(
            Fault("Y001", "TensorBoard's event files need the package tensorboard",
                  fix="pip install 'reclra-compile[tensorboard]', or leave --tensorboard out")
        ) from error
    return SummaryWriter
