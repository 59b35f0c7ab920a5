"""Checkpoints: a run goes on from any step, bit by bit; of ranks too, on as many devices as there are."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rank_job import plan_of, train, write_model
from ranks import on_ranks
from torch import Tensor, nn

import reclra_compile as rc
from reclra_compile import files
from reclra_compile.data.augment import augmentation
from reclra_compile.data.stream import Decoder, Images
from reclra_compile.errors import TrainingError, UserError
from reclra_compile.ir import Training
from reclra_compile.runtime.peers import Alone
from reclra_compile.train import checkpoint, sharded
from reclra_compile.train.checkpoint import checkpoint_of
from reclra_compile.train.feed import feed
from reclra_compile.train.loop import Run
from reclra_compile.train.named import weights
from reclra_compile.train.only_run import only_run
from reclra_compile.train.replicas import check_batches
from reclra_compile.train.sharded import Sharded

EVERY, STOP = 5, 7  #: steps between checkpoints, and at which a run is cut: within its second epoch of 4 steps


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model's file."""
    made: Path = tmp_path_factory.mktemp("runs")
    write_model(made)
    return made


def timeless(history: Any) -> list[dict[str, Any]]:
    """Epochs without their seconds."""
    return [{k: v for k, v in e.as_json().items() if k != "seconds"} for e in history]


def held(run: Run) -> dict[str, Tensor]:
    """What a process holds at the end of a run: weights, buffers, synapses, optimizer."""
    return {name: x.detach().clone() for name, x in weights(run)}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """True where all tensors agree bitwise."""
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def cut(*arguments: Any, **options: Any) -> None:
    """Train up to `STOP` and end there."""
    with pytest.raises(KeyboardInterrupt):
        train(*arguments, every=EVERY, stop=STOP, **options)


# one process


@pytest.mark.parametrize(("devices", "optimizer", "staleness"), [(1, "adamw", 0), (2, "sgd", 1)])
def test_a_run_goes_on_within_an_epoch(
    root: Path, tmp_path: Path, devices: int, optimizer: str, staleness: int
) -> None:
    model, plan = root / "net.py", plan_of(root / "net.py", devices, staleness=staleness)
    whole, run = train(model, plan, tmp_path / "whole", optimizer=optimizer)
    cut(model, plan, tmp_path / "cut", optimizer=optimizer)
    assert torch.load(tmp_path / "cut" / "checkpoint.pt", weights_only=True)["done"] == 1
    torch.rand(3)
    parts, again = train(model, plan, tmp_path / "cut", resume=True, optimizer=optimizer)
    assert same(held(run), held(again))
    assert timeless(whole.history) == timeless(parts.history)


def test_checkpoints_within_an_epoch_change_nothing(root: Path, tmp_path: Path) -> None:
    model, plan = root / "net.py", plan_of(root / "net.py", 1, 1)
    (_, plain), (_, often) = (train(model, plan, tmp_path / str(k), every=k) for k in (0, 1))
    assert same(held(plain), held(often))


def test_checkpoint_of_before_the_data_position_was_kept(root: Path, tmp_path: Path) -> None:
    model, plan = root / "net.py", plan_of(root / "net.py", 1)
    with pytest.raises(KeyboardInterrupt):
        train(model, plan, tmp_path, stop=STOP)
    file = tmp_path / "checkpoint.pt"
    state = torch.load(file, weights_only=True)
    assert state["names"]["parameters"][:2] == ["model/0.weight", "model/1.weight"]
    state["format"] = 1
    for younger in ("names", "done", "losses", "stages", "replicas"):
        del state[younger]
    torch.save(state, file)
    _, run = train(model, plan, tmp_path, resume=True)
    _, whole = train(model, plan, tmp_path / "whole")
    assert same(held(whole), held(run))


def test_augmented_batches_are_drawn_again(tmp_path: Path) -> None:
    """Batches that an epoch has had are augmented once more, so that those to come are augmented as they would be."""
    x, y = torch.randn(22, 16), torch.arange(22) % 3

    def fresh(stop: int = 0) -> Run:
        torch.manual_seed(5)
        net = nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3))
        made = Run(
            rc.compile(net, x[:4], "depth1"), (x, y), Training(epochs=2, batch_size=4), augment=augmentation(
                "crop_flip", (1, 4, 4))
        )  # fmt: skip

        def step(epoch: int, k: int) -> None:
            if made.taken == stop:
                made.settle()
                checkpoint.keep(tmp_path, made, [], {})
                raise KeyboardInterrupt

        made.on_step = step
        return made

    whole = fresh()
    list(whole)
    with pytest.raises(KeyboardInterrupt):
        list(fresh(stop=9))
    again = fresh()
    checkpoint.resume(checkpoint_of(tmp_path), again, {})
    assert (again.epoch, again.done) == (1, 3)
    list(again)
    assert same(held(whole), held(again))


def test_images_that_an_epoch_has_had_are_not_decoded_again(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    from concurrent.futures import ThreadPoolExecutor

    names = [str(tmp_path / f"{k}.png") for k in range(7)]
    for k, name in enumerate(names):
        pillow.fromarray(np.random.default_rng(k).integers(0, 255, (20, 20, 3), np.uint8)).save(name)
    with ThreadPoolExecutor(2) as pool:
        images = Images(names, Decoder((3, 8, 8), pool))
        order = torch.arange(7).split(2)
        batches = [[x for _, (x,) in feed((images,), order, torch.Generator().manual_seed(3), k)] for k in (0, 2)]
        Path(names[0]).unlink()
        again = [x for _, (x,) in feed((images,), order, torch.Generator().manual_seed(3), 2)]
    assert len(batches[0]) == 4
    assert all(torch.equal(a, b) for a, b in zip(batches[0][2:], batches[1], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(batches[0][2:], again, strict=True))


def test_weights_that_are_not_finite_are_not_saved_within_an_epoch(root: Path, tmp_path: Path) -> None:
    model, plan = root / "net.py", plan_of(root / "net.py", 1)
    cut(model, plan, tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(TrainingError, match="weights after step 5 are kept") as caught:
        train(model, plan, tmp_path, resume=True, every=1, poison=True)
    assert caught.value.faults[0].code == "T010"
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_one_run_in_a_folder_at_a_time(root: Path, tmp_path: Path) -> None:
    model, plan = root / "net.py", plan_of(root / "net.py", 1)

    class Second(Alone):  # a rank whose fault all have
        count = 2

        def gather(self, text: str) -> list[str]:
            return [text, "[]"]

    with only_run(tmp_path, Alone()):
        with pytest.raises(TrainingError, match="another run is writing here"):
            train(model, plan, tmp_path)
        with pytest.raises(TrainingError, match="rank 0: another run is writing"), only_run(tmp_path, Second()):
            pass
        assert [p.name for p in tmp_path.iterdir()] == [".lock"]
    (tmp_path / ".lock").touch()  # as a killed process leaves it
    cut(model, plan, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.pt", "log.jsonl", "plan.txt"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_file_systems_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def none(handle: int, how: int) -> None:
        raise OSError(number, "no locks")

    monkeypatch.setattr("fcntl.flock", none)
    with only_run(tmp_path, Alone()), only_run(tmp_path, Alone()):
        pass


# ranks


def two_ranks(root: str) -> dict[str, Any]:
    """Sessions on two ranks: uninterrupted, cut, and resumed from shards and from one process's file."""
    from reclra_compile.distributed.mesh import connect

    mesh, place = connect(2), Path(root)
    model, plan = place / "net.py", plan_of(place / "net.py", 2)
    found: dict[str, Any] = {}

    def session(name: str, folder: str, **options: Any) -> None:
        result, run = train(model, plan, place / folder, mesh, **options)
        found[name], found[f"{name} history"] = held(run), json.dumps(timeless(result.history))

    session("whole", "whole")
    cut(model, plan, place / "half", mesh)
    mesh.barrier()
    if mesh.rank == 0:
        for copy in ("cut", "drawn", "full", "damaged"):
            shutil.copytree(place / "half", place / copy)
        shard = checkpoint_of(place / "damaged") / "stage-1.safetensors"
        shard.write_bytes(shard.read_bytes()[:-1])
    mesh.barrier()
    torch.rand(mesh.rank)  # whatever ranks draw in the meantime
    session("resumed", "cut", resume=True)
    session("from file", "file", resume=True)
    session("drawn apart", "drawn", init="regions", resume=True)
    found["full"] = full_disk(model, plan, place / "full", mesh)
    with pytest.raises(TrainingError) as damaged:  # which rank 1 alone sees
        train(model, plan, place / "damaged", mesh, resume=True)
    found["damaged"] = str(damaged.value)
    return found


def full_disk(model: Path, plan: rc.Plan, folder: Path, mesh: Any) -> str:
    """What each rank says where one of them cannot write its shard."""
    before, real = checkpoint_of(folder), files._replace

    def full(target: Path, write: Any) -> None:
        if target.name == "stage-1.safetensors":
            raise OSError(28, "No space left on device")
        real(target, write)

    files._replace = full
    try:
        train(model, plan, folder, mesh, resume=True, every=1)
    except UserError as error:
        assert checkpoint_of(folder) == before
        return str(error)
    finally:
        files._replace = real
    return "nothing"


def four_ranks(root: str) -> dict[str, Any]:
    """Sessions on four ranks: what two ranks began, on four stages; and two stages of two replicas."""
    from reclra_compile.distributed.mesh import connect

    place = Path(root)
    model, found = place / "net.py", {}
    mesh = connect(4)
    _, run = train(model, plan_of(model, 4), place / "half four", mesh, resume=True)
    found["resharded"] = held(run)
    mesh = connect(2)
    plan = plan_of(model, 2, 1)
    for name in ("replicas", "replicas resumed"):
        if name != "replicas":
            cut(model, plan, place / name, mesh)
        # with the same checkpoints, as the replicas' batch statistics become one there
        result, run = train(model, plan, place / name, mesh, resume=name != "replicas", every=EVERY)
        found[name], found[f"{name} history"] = held(run), json.dumps(timeless(result.history))
    return found


@pytest.fixture(scope="module")
def two(root: Path) -> list[dict[str, Any]]:
    """What each of two ranks found; leaves the folders `half` and `file` of runs that were cut."""
    cut(root / "net.py", plan_of(root / "net.py", 2), root / "file")
    return on_ranks(2, "test_checkpoints:two_ranks", str(root))


def joined(ranks: list[dict[str, Any]], name: str) -> dict[str, Tensor]:
    """What ranks hold together; each tensor is on one of them."""
    assert sum(len(r[name]) for r in ranks) == len({n for r in ranks for n in r[name]})
    return {n: x for r in ranks for n, x in r[name].items()}


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, x in one.items():
        torch.testing.assert_close(x, other[name], rtol=0, atol=1e-10, msg=lambda said, name=name: f"{name}: {said}")


@pytest.mark.parametrize("how", ["resumed", "drawn apart"])
def test_ranks_go_on_bit_by_bit(two: list[dict[str, Any]], how: str) -> None:
    for rank in two:
        assert same(rank["whole"], rank[how])
        assert rank["whole history"] == rank[f"{how} history"] == two[0]["whole history"]


def test_one_process_goes_on_with_what_ranks_began(two: list[dict[str, Any]], root: Path, tmp_path: Path) -> None:
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        shutil.copytree(root / "half", folder)
        _, run = train(root / "net.py", plan_of(root / "net.py", devices), folder, resume=True)
        assert_close(joined(two, "whole"), held(run))
        assert sorted(p.name for p in folder.iterdir()) == ["checkpoint.pt", "log.jsonl", "plan.txt"]


def test_ranks_go_on_with_what_one_process_began(two: list[dict[str, Any]], root: Path) -> None:
    assert_close(joined(two, "whole"), joined(two, "from file"))
    assert sorted(p.name for p in (root / "file").iterdir()) == ["checkpoint", "log.jsonl", "plan.txt"]


@pytest.mark.slow
def test_more_ranks_and_replicas(two: list[dict[str, Any]], root: Path) -> None:
    shutil.copytree(root / "half", root / "half four")
    four = on_ranks(4, "test_checkpoints:four_ranks", str(root))
    assert_close(joined(two, "whole"), joined(four, "resharded"))
    for rank in four:
        assert same(rank["replicas"], rank["replicas resumed"])
        assert rank["replicas history"] == four[0]["replicas resumed history"]
    assert same(four[0]["replicas"], four[2]["replicas"])


def test_one_rank_with_a_full_disk(two: list[dict[str, Any]]) -> None:
    for rank in two:
        assert "error[F001]" in rank["full"]
        assert "stage-1.safetensors: rank 1: cannot write this file: No space left on device" in rank["full"]


def test_one_rank_with_a_damaged_shard(two: list[dict[str, Any]]) -> None:
    for rank in two:
        assert "error[T020]" in rank["damaged"]
        assert "its shard stage-1.safetensors has" in rank["damaged"]


def test_a_folder_of_shards(two: list[dict[str, Any]], root: Path) -> None:
    place = checkpoint_of(root / "half")
    assert place.name == "step-00000005"
    assert sorted(p.name for p in place.iterdir()) == [
        "common.safetensors", "manifest.json", "stage-0.safetensors", "stage-1.safetensors",
    ]  # fmt: skip
    head = json.loads((place / "manifest.json").read_text())
    assert (head["stages"], head["replicas"], head["epoch"], head["done"]) == (2, 1, 1, 1)
    from safetensors.torch import load_file

    shards = [load_file(place / s["file"]) for s in head["shards"]]
    assert [sorted(s["tensors"]) for s in head["shards"]] == [sorted(s) for s in shards]
    assert "model/0.weight" in {name for shard in shards for name in shard}


# damage


def copy_of(root: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of a run that two ranks began, and its newest checkpoint."""
    shutil.copytree(root / "half", tmp_path / "run")
    return tmp_path / "run", checkpoint_of(tmp_path / "run")


def refused(root: Path, folder: Path) -> str:
    """What resuming says, on one process."""
    with pytest.raises(TrainingError) as caught:
        train(root / "net.py", plan_of(root / "net.py", 2), folder, resume=True)
    return str(caught.value)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("cut", "its shard stage-1.safetensors has"), ("flipped", "the checksum differs"),
        ("missing", "its shard stage-1.safetensors is missing"), ("text", "its manifest cannot be read"),
        ("list", "its manifest is not whole"), ("outside", "its manifest names a file '../stage-1.safetensors'"),
        ("fewer", "it has no "), ("misshapen", "Error(s) in loading state_dict"),
        ("half", "it has no optimizer/exp_avg_sq/"), ("edited", "its manifest is not what was written"),
        ("epoch=4", "its epoch cannot be 4"), ("epoch=-1", "its epoch cannot be -1"), ('epoch="1"', "its epoch cannot"),
        ("done=4", "its done cannot be 4"), ("done=true", "its done cannot be True"), ("seconds=-1", "its seconds "),
        ("seconds=NaN", "its seconds cannot be nan"), ("losses=[1.0]", "its losses cannot be [1.0]"),
        ("losses=[1, null]", "its losses cannot be [1, None]"), ("history=[1]", "its history cannot be [1]"),
        ("stages=0", "its stages cannot be 0"),
    ],
)  # fmt: skip
def test_damaged_shards_are_refused(two: Any, root: Path, tmp_path: Path, how: str, said: str) -> None:
    folder, place = copy_of(root, tmp_path)
    shard, manifest = place / "stage-1.safetensors", place / "manifest.json"
    data, head = bytearray(shard.read_bytes()), json.loads(manifest.read_text())
    if how == "cut":
        shard.write_bytes(data[:-5])
    elif how == "flipped":
        data[-3] ^= 1
        shard.write_bytes(data)
    elif how == "missing":
        shard.unlink()
    elif how in ("text", "list"):
        manifest.write_text("[]" if how == "list" else "{")
    elif how == "outside":
        head["shards"][-1]["file"] = "../stage-1.safetensors"
    elif how == "fewer":
        head["shards"][-1]["tensors"].pop()
    elif how == "half":
        for record in head["shards"]:
            record["tensors"] = [n for n in record["tensors"] if not n.startswith("optimizer/exp_avg_sq/")]
    elif how == "edited":
        manifest.write_text(manifest.read_text().replace('"done": 1', '"done": 2'))
    elif "=" in how:
        name, _, value = how.partition("=")
        head[name] = json.loads(value)
    else:
        source = Sharded(place)
        tensors = {n: source.take(n) for n in head["shards"][-1]["tensors"]}
        tensors = {n: x[:1] if x.ndim else x for n, x in tensors.items()}
        head["shards"][-1] = sharded.write_shard(shard, tensors).as_json()
    if how in ("outside", "fewer", "misshapen", "half") or "=" in how:
        sharded.write_manifest(place, head)
    text = refused(root, folder)
    assert text.startswith(f"error[T020] {place}: the checkpoint is damaged: ")
    assert said in text


def test_a_folder_without_a_manifest_is_no_checkpoint(two: Any, root: Path, tmp_path: Path) -> None:
    folder, place = copy_of(root, tmp_path)
    torn = place.parent / "step-00000009"
    shutil.copytree(place, torn)
    (torn / "manifest.json").unlink()
    assert checkpoint_of(folder) == place
    (place / "manifest.json").unlink()
    assert not checkpoint_of(folder).exists()


def test_the_newest_of_both_forms(two: Any, root: Path, tmp_path: Path) -> None:
    folder, place = copy_of(root, tmp_path)
    file, plan = folder / "checkpoint.pt", plan_of(root / "net.py", 2)
    for stop, newest in ((5, place), (7, file)):  # a step is told before its checkpoint is kept
        with pytest.raises(KeyboardInterrupt):
            train(root / "net.py", plan, tmp_path / str(stop), every=1, stop=stop)
        shutil.copy(tmp_path / str(stop) / "checkpoint.pt", file)
        assert checkpoint_of(folder) == newest
    file.write_bytes(b"damaged")
    assert "error[T020]" in refused(root, folder)


def test_ranks_that_see_different_checkpoints(two: Any, root: Path, tmp_path: Path) -> None:
    folder, place = copy_of(root, tmp_path)

    class Other(Alone):
        def gather(self, text: str) -> list[str]:
            return [text, ""]

    with pytest.raises(TrainingError, match="rank 0 sees the checkpoint 'checkpoint/step-00000005', rank 1 none"):
        checkpoint.found_by_all(folder, Other())
    assert checkpoint.found_by_all(folder, Alone()) == place


# batches of replicas


def test_batches_too_small_for_the_replicas() -> None:
    check_batches(65, 16, 1)
    check_batches(66, 16, 2)
    with pytest.raises(TrainingError, match="65 samples in batches of 16 leave a batch of 1 for 2 replicas") as caught:
        check_batches(65, 16, 2)
    assert (caught.value.faults[0].code, caught.value.faults[0].fix[:20]) == ("T030", "use --batch-size 15,")
    with pytest.raises(TrainingError, match="a batch of 2 for 2 replicas, which need 2 each"):
        check_batches(66, 16, 2, fewest=2)
    with pytest.raises(TrainingError, match="use fewer replicas, or more data"):
        check_batches(3, 2, 4)
