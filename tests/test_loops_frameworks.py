"""Trainers of other libraries train an attached model as `program.step` does; each is skipped where it is missing."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from loops import (
    adamw,
    assert_equal,
    assert_same,
    compiled,
    double,
    every_step,
    follow,
    loop,
    started,
    unattached,
    weights,
)

import reclra_compile as rc

STEPS = 6


def in_order(count: int, size: int = 64):
    """The first batches, as a loader that does not shuffle gives them."""
    digits = loop("digits")
    x, y = digits.images()[: digits.TRAIN], digits.labels()[: digits.TRAIN]
    return list(zip(x.split(size), y.split(size), strict=True))[:count]


@pytest.fixture
def lightning_loop():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries deprecate among themselves while they are imported
        pytest.importorskip("lightning", reason="needs the extra lightning")
        module = loop("lightning_trainer")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return module


#: Lightning 2.6 calls a class of torch's pytree that torch 2.13 deprecates, and wants more processes to load data
lightning_warns = [
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]


class TestLightning:
    pytestmark = lightning_warns

    @pytest.mark.parametrize("where", ["module", "inside"])
    @pytest.mark.parametrize("wiring", ["depth1", "depth2"])
    def test_fit(self, lightning_loop, wiring: str, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A LightningModule that is attached, and one that holds an attached network."""
        attach = rc.attach

        def inside(model, *args, **options):
            model.net = attach(model.net, *args, **options)
            return model

        monkeypatch.setattr(rc, "attach", inside if where == "inside" else attach)
        with double():
            model = lightning_loop.main(epochs=2, steps=2 * STEPS, wiring=wiring, limit_train_batches=STEPS)
            program = compiled(wiring, self.whole(lightning_loop) if where == "module" else None)
            optimizer = adamw(program)
            for _ in range(2):
                follow(program, optimizer, in_order(STEPS))
            assert_same(model.net if where == "inside" else model, program)

    def whole(self, lightning_loop):
        """Makes the LightningModule: synapses are drawn from the names of regions, which begin with `net.` there."""
        return lambda: lightning_loop.Digits(loop("digits").network())

    def test_accumulation_clipping_and_bfloat16(self, lightning_loop) -> None:
        options = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.5, "precision": "bf16-mixed"}
        program, batches = compiled("depth1", self.whole(lightning_loop)), iter(in_order(6))

        def take() -> None:
            for _ in range(2):
                with torch.autocast("cpu", torch.bfloat16):
                    program.step(*next(batches))
            for p in program.parameters():
                p.grad /= 2
            program.clip(0.5)

        with every_step(program, take) as largest:
            lightning_loop.main(epochs=1, steps=3, **options)
        assert len(largest) == 3 and min(largest) > 0.01

    def test_backprop_is_the_plain_trainer(self, lightning_loop) -> None:
        with double():
            model = lightning_loop.main(1, STEPS, "backprop")
            assert_equal(weights(model), weights(unattached(lightning_loop.main, 1, STEPS)))

    def test_checkpoint(self, lightning_loop, tmp_path: Path) -> None:
        """Keys of a checkpoint are those of the model; the optimizer's state has the synapses too."""
        import lightning

        model = lightning_loop.Digits(loop("digits").network())
        keys = list(model.state_dict())
        rc.attach(model, loop("digits").images()[:32], "depth1")
        trainer = lightning.Trainer(max_steps=2, accelerator="cpu", logger=False, enable_progress_bar=False,
                                    enable_model_summary=True, enable_checkpointing=False)  # fmt: skip
        loader = lightning_loop.loader(slice(0, 128))
        trainer.fit(model, loader, loader)
        trainer.save_checkpoint(tmp_path / "c.ckpt")
        saved = torch.load(tmp_path / "c.ckpt", weights_only=True)
        assert list(saved["state_dict"]) == keys
        assert len(saved["optimizer_states"][0]["state"]) == len(list(model.parameters())) > len(keys)
        again = lightning_loop.Digits.load_from_checkpoint(tmp_path / "c.ckpt", net=loop("digits").network())
        assert_equal(weights(again), weights(model), 0.0)


@pytest.fixture
def accelerate_loop():
    pytest.importorskip("accelerate", reason="needs the extra accelerate")
    from accelerate.state import AcceleratorState, GradientState

    yield loop("accelerate_loop")
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


class TestAccelerate:
    @pytest.mark.parametrize("parts", [1, 2])
    @pytest.mark.parametrize("wiring", ["depth1", "depth2"])
    def test_loop(self, accelerate_loop, wiring: str, parts: int) -> None:
        with double():
            model = accelerate_loop.main(2, STEPS, wiring, gradient_accumulation_steps=parts)
            assert_same(model, self.reference(wiring, parts))

    def test_mixed_precision(self, accelerate_loop) -> None:
        """`prepare` puts a forward pass of its own, under autocast, on the object."""
        program, batches = compiled("depth1"), iter(in_order(STEPS))

        def take() -> None:
            with torch.autocast("cpu", torch.bfloat16):
                program.step(*next(batches))
            program.clip(1.0)

        with every_step(program, take) as largest:
            accelerate_loop.main(1, STEPS, mixed_precision="bf16")
        assert len(largest) == STEPS

    def reference(self, wiring: str, parts: int) -> rc.Program:
        program = compiled(wiring)
        optimizer = adamw(program)
        for _ in range(2):
            for k, (x, y) in enumerate(in_order(STEPS), 1):
                program.step(x, y)
                if k % parts == 0:
                    for p in program.parameters():
                        p.grad /= parts
                    program.clip(1.0)
                    optimizer.step()
                    optimizer.zero_grad()
        return program

    def test_backprop_is_the_plain_loop(self, accelerate_loop) -> None:
        with double():
            model, plain = accelerate_loop.main(1, STEPS, "backprop"), unattached(accelerate_loop.main, 1, STEPS)
            assert_equal(weights(model), weights(plain))

    def test_save_and_load(self, accelerate_loop, tmp_path: Path) -> None:
        from accelerate import Accelerator

        digits = loop("digits")
        model = rc.attach(digits.network(), digits.images()[:32], "depth1")
        accelerator = Accelerator(cpu=True)
        model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-3))
        x, y = in_order(1)[0]
        accelerator.backward(F.cross_entropy(model(x), y))
        optimizer.step()
        accelerator.save_state(str(tmp_path), safe_serialization=True)
        kept = weights(model)
        optimizer.step()
        accelerator.load_state(str(tmp_path))
        assert_equal(weights(model), kept, 0.0)


@pytest.fixture
def hf_loop(monkeypatch: pytest.MonkeyPatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries deprecate among themselves while they are imported
        pytest.importorskip("transformers", reason="needs the extra transformers")
        pytest.importorskip("accelerate", reason="transformers' Trainer needs the extra accelerate")
        yield loop("hf_trainer")


class TestTransformers:
    @pytest.mark.parametrize("parts", [2, pytest.param(1, marks=pytest.mark.slow)])
    def test_trainer(self, hf_loop, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Trainer finds the columns, scales by all items of an optimizer step, clips and lets the rate fall."""
        attach, mean, seen, labels = rc.attach, hf_loop.mean, [], []

        def watched(model, *args, **options):
            model = attach(model, *args, **options)
            model.register_forward_pre_hook(lambda m, a, k: seen.append(k["pixel_values"]) if m.training else None,
                                            with_kwargs=True)  # fmt: skip
            return model

        def remembered(outputs, y, num_items_in_batch=None):
            labels.append(y)
            return mean(outputs, y, num_items_in_batch)

        monkeypatch.setattr(rc, "attach", watched)
        monkeypatch.setattr(hf_loop, "mean", remembered)
        with double():
            model = hf_loop.main(epochs=1, steps=4, gradient_accumulation_steps=parts)
            summed = torch.nn.CrossEntropyLoss(reduction="sum")
            program = started(rc.compile(hf_loop.network(), {"pixel_values": hf_loop.pixels()[:32]}, "groups",
                                         loss_fn=summed))  # fmt: skip
            optimizer = torch.optim.AdamW(program.parameters(), lr=3e-3, weight_decay=0.0)
            scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 1 - k / 4)
            for k, (x, y) in enumerate(zip(seen, labels, strict=False), 1):
                program.step(x, y)
                if k % parts == 0:
                    for p in program.parameters():
                        p.grad /= parts * len(y)
                    program.clip(1.0)
                    optimizer.step()
                    optimizer.zero_grad()
                    scheduler.step()
            assert k == 4 * parts
            assert_same(model, program)

    def test_backprop_is_the_plain_trainer(self, hf_loop) -> None:
        with double():
            model, plain = hf_loop.main(1, 3, "backprop"), unattached(hf_loop.main, 1, 3)
            assert_equal(weights(model), weights(plain))

    def test_save_pretrained(self, hf_loop, tmp_path: Path) -> None:
        model = hf_loop.network()
        keys, kind = list(model.state_dict()), type(model)
        rc.attach(model, {"pixel_values": hf_loop.pixels()[:32]}, "groups")
        model.save_pretrained(tmp_path)
        assert model.config.architectures == ["ResNetForImageClassification"]
        again = kind.from_pretrained(tmp_path)
        assert type(again) is kind and list(again.state_dict()) == keys
        assert_equal(weights(again), weights(model), 0.0)

    def test_a_loss_inside_the_model_is_refused_with_what_to_do(self, hf_loop, monkeypatch: pytest.MonkeyPatch) -> None:
        trainer = hf_loop.Trainer
        monkeypatch.setattr(hf_loop, "Trainer", lambda *a, compute_loss_func, **k: trainer(*a, **k))
        with pytest.raises(rc.TrainingError, match="labels") as raised:
            hf_loop.main(1, 1)
        assert "compute_loss_func" in str(raised.value) or "leave labels out" in str(raised.value)
