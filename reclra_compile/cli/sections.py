"""Help of a command with many options, in sections."""

from __future__ import annotations

import click

SECTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("The wiring", ("wiring", "plan", "compare", "granularity", "output", "unreached", "meta")),
    ("Let the compiler choose", ("auto", "depth", "bottlenecks", "synapse_memory", "groups", "write_wiring", "runs")),
    ("Data", ("data", "data_dir", "validation", "preprocess", "augment", "workers", "top5")),
    ("Settings", ("epochs", "batch_size", "lr", "optimizer", "weight_decay", "schedule", "lr_end", "power", "warmup",
                  "readout_rate", "inverse_rate", "mirror_rate", "beta2", "clip", "seed", "seeds", "init")),
    ("Devices", ("devices", "device_profile", "device_memory", "microbatches", "staleness", "pins", "replicas",
                 "one_process", "max_restarts", "rank_timeout", "threads", "device")),
    ("Runs", ("run_dir", "resume", "checkpoint_every")),
    ("What is written and shown", ("out", "graph", "log", "log_every", "tensorboard", "trace", "as_json")),
)  # fmt: skip
REST = "Options"  #: where an option stands that is in no section


class Sectioned(click.Command):
    """A command whose help has its options in the sections of `SECTIONS`, as far as it has them."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each title that the command has options of, and the others at the end."""
        options = (p for p in self.get_params(ctx) if isinstance(p, click.Option))
        records = {str(p.name): r for p in options if (r := p.get_help_record(ctx)) is not None}
        placed = {n for _, names in SECTIONS for n in names}
        rest = tuple(n for n in records if n not in placed)
        for title, names in (*SECTIONS, (REST, rest)):
            if rows := [records[n] for n in names if n in records]:
                with formatter.section(title):
                    formatter.write_dl(rows)
