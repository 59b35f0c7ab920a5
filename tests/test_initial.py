"""Initial values by name: any share of a model gets those that the whole gets, as the constructor would draw them."""

from __future__ import annotations

import copy
import dataclasses
import gc
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import reclra_compile as rc
from reclra_compile.distributed.initial import initialise, share
from reclra_compile.distributed.recording import Recording, tensors
from reclra_compile.errors import RankError
from reclra_compile.frontend.load_model import load_model
from reclra_compile.frontend.trace import trace
from reclra_compile.layers import PerturbativeConv2d

EXAMPLES = Path(__file__).parent.parent / "examples"
CPU = torch.device("cpu")
BUILDERS = ["cnn.py:digits", "vit.py:digits", "mlp_mixer.py:digits", "gpt.py", "lstm.py", "resnet_cifar.py:conv16",
            "resnet_cifar.py:perturbative16", "mlp_digits.py", "mlp_figure2.py:tanh"]  # fmt: skip


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


class Hand(nn.Module):
    """What people write: parameters and buffers of their own, and draws that no module knows of."""

    def __init__(self) -> None:
        super().__init__()
        shared = torch.randn(6)
        self.scale = nn.Parameter(1 + 0.1 * shared)
        self.shift = nn.Parameter(0.1 * shared)
        self.cls = nn.Parameter(torch.zeros(1, 1, 6))
        self.table = nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        self.register_buffer("mask", torch.tril(torch.ones(4, 4)).bool())
        self.register_buffer("angles", 1.0 / 100 ** (torch.arange(0, 8, 2).float() / 8), persistent=False)
        self.register_buffer("positions", torch.arange(5))
        self.plain = torch.linspace(0, 1, 3)
        self.inner = nn.Linear(40, 30)
        nn.init.orthogonal_(self.inner.weight)
        self.last = nn.Linear(30, 40)
        self.last.weight.data.copy_(self.inner.weight.t())

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(x))


class Zoo(nn.Module):
    """Layers of torch that draw in ways of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 50)
        self.mha = nn.MultiheadAttention(16, 4, add_bias_kv=True)
        self.lstm = nn.LSTM(8, 16, 2)
        self.bn, self.ln, self.gn = nn.BatchNorm1d(7), nn.LayerNorm(6), nn.GroupNorm(2, 4)
        self.embed, self.prelu = nn.Embedding(9, 8, padding_idx=3), nn.PReLU()
        self.conv, self.tied = nn.Conv2d(3, 8, 3), nn.Linear(64, 50)
        self.tied.weight = self.fc.weight
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16)


def on_meta(build: Callable[[], nn.Module], recorded: bool = True) -> tuple[nn.Module, Recording | None]:
    record = Recording()
    with torch.device("meta"):
        if not recorded:
            return build(), None
        with record:
            return build(), record


def drawn(build: Callable[[], nn.Module], seed: int = 0, recorded: bool = True) -> nn.Module:
    """The whole model, initialised."""
    model, record = on_meta(build, recorded)
    initialise([model], [n for n, _ in tensors(model)], seed, CPU, record=record)
    return model


def values(model: nn.Module) -> dict[str, Tensor]:
    return {n: t.detach() for n, t in tensors(model)}


def same_distribution(a: Tensor, b: Tensor) -> bool:
    """Equal up to what a few hundred draws tell; constants are equal."""
    if not b.is_floating_point() or b.numel() < 100 or b.std() < 1e-9:
        return a.shape == b.shape and a.dtype == b.dtype and (b.numel() < 100 or torch.equal(a, b))
    spread = 5 / math.sqrt(b.numel())
    return abs(float(a.std() / b.std()) - 1) < spread and abs(float(a.mean() - b.mean())) < spread * float(b.std())


@pytest.mark.parametrize("recorded", [True, False])
def test_every_partition_of_names_draws_the_same(recorded: bool) -> None:
    whole = values(drawn(Zoo, recorded=recorded))
    names = list(whole)
    for count in (3,):
        for k in range(count):
            model, record = on_meta(Zoo, recorded)
            own = names[k::count]
            initialise([model], list(reversed(own)), 0, CPU, record=record)
            tied = {"fc.weight", "tied.weight"}
            full = {*own, *(tied if tied & set(own) else ())}
            assert {n for n, t in tensors(model) if not t.is_meta} == full
            assert all(torch.equal(t, whole[n]) for n, t in tensors(model) if n in full)


def test_asking_twice_leaves_what_is_there() -> None:
    model, record = on_meta(Zoo)
    initialise([model], ["fc.weight"], 0, CPU, record=record)
    before = model.fc.weight
    with torch.no_grad():
        before.add_(1)
    initialise([model], [n for n, _ in tensors(model)], 0, CPU, record=record)
    whole = values(drawn(Zoo))
    assert model.fc.weight is before and torch.equal(before.detach(), whole["fc.weight"] + 1)
    assert all(torch.equal(t, whole[n]) for n, t in tensors(model) if t is not before)


@pytest.mark.parametrize("recorded", [True, False])
def test_layers_of_torch_draw_as_their_constructors_do(recorded: bool) -> None:
    model = drawn(Zoo, recorded=recorded)
    built = values(Zoo())
    assert all(same_distribution(t.detach(), built[n]) for n, t in tensors(model))
    bound = 1 / math.sqrt(64)
    assert 0.97 * bound < float(model.fc.weight.detach().abs().max()) <= bound
    assert model.mha.out_proj.bias.detach().eq(0).all() and model.mha.in_proj_bias.detach().eq(0).all()
    xavier = math.sqrt(6 / (16 + 48))
    assert 0.97 * xavier < float(model.mha.in_proj_weight.detach().abs().max()) <= xavier
    assert model.bn.running_var.eq(1).all() and model.bn.running_mean.eq(0).all() and model.bn.num_batches_tracked == 0
    assert model.embed.weight[3].eq(0).all() and model.embed.weight[2].ne(0).all()
    assert model.prelu.weight.item() == 0.25
    assert model.lstm(torch.randn(3, 2, 8))[0].isfinite().all()
    assert all(p is q for p, q in zip(model.lstm._flat_weights, model.lstm.parameters(), strict=True))


def test_layers_of_one_kind_draw_different_values_and_seeds_too() -> None:
    model, other = values(drawn(Zoo)), values(drawn(Zoo, seed=1))
    assert not torch.equal(model["lstm.weight_hh_l0"], model["lstm.weight_hh_l1"])
    assert not torch.equal(model["fc.weight"], other["fc.weight"])


def test_a_constructor_on_record_needs_no_method() -> None:
    model, built = drawn(Hand), Hand()
    exact = ("cls", "table", "mask", "angles", "positions")
    assert all(torch.equal(values(model)[n], values(built)[n]) for n in exact)
    assert torch.equal(model.plain, built.plain) and model.mask.dtype == torch.bool
    torch.testing.assert_close(model.inner.weight @ model.inner.weight.t(), torch.eye(30))
    assert torch.equal(model.last.weight, model.inner.weight.t())
    torch.testing.assert_close(model.scale - 1, model.shift)
    alone, record = on_meta(Hand)
    initialise([alone], ["shift", "last.weight"], 0, CPU, record=record)
    assert torch.equal(alone.shift, model.shift) and torch.equal(alone.last.weight, model.last.weight)


INITS: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor]]] = {
    "trunc_normal": ((40, 30), lambda w: nn.init.trunc_normal_(w, std=0.5, a=-1.0, b=1.0)),
    "orthogonal": ((30, 40), lambda w: nn.init.orthogonal_(w, gain=2)),
    "sparse": ((40, 30), lambda w: nn.init.sparse_(w, 0.3)),
    "dirac": ((4, 3, 10), nn.init.dirac_),
    "eye": ((12, 13), nn.init.eye_),
    "kaiming": ((40, 30), lambda w: nn.init.kaiming_normal_(w, mode="fan_out")),
    "scaled": ((40, 30), lambda w: nn.init.xavier_uniform_(w).mul_(0.5).clamp_(-0.1, 0.1)),
}


@pytest.mark.parametrize("outer", [True, False])
@pytest.mark.parametrize("name", INITS)
def test_functions_that_do_nothing_on_meta_are_carried_out(name: str, outer: bool) -> None:
    shape, draw = INITS[name]

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(shape))
            with torch.no_grad():
                draw(self.w)

    record = Recording()
    first, second = (record, torch.device("meta")) if outer else (torch.device("meta"), record)
    with first, second:
        model = One()
    initialise([model], ["w"], 0, CPU, record=record)
    assert same_distribution(model.w.detach(), One().w.detach())
    if name == "orthogonal":
        torch.testing.assert_close(model.w @ model.w.t(), 4 * torch.eye(30))
    if name == "sparse":
        assert (model.w == 0).sum() == 30 * 12


def test_a_cast_after_the_record_changes_the_precision_alone() -> None:
    model, record = on_meta(Hand)
    assert record is not None
    record.bind(model)
    model.double()
    initialise([model], [n for n, _ in tensors(model)], 0, CPU, record=record)
    assert model.scale.dtype == torch.float64
    assert torch.equal(model.inner.weight, drawn(Hand).inner.weight.double())


def test_what_nothing_sets_is_listed_and_nothing_is_replaced() -> None:
    model, _ = on_meta(Hand, recorded=False)
    with pytest.raises(RankError) as caught:
        initialise([model], [n for n, _ in tensors(model)], 0, CPU)
    (fault,) = caught.value.faults
    assert fault.code == "R113" and "--init build" in fault.fix
    assert all(f"'{n}' (Hand)" in fault.message for n in ("scale", "cls", "mask", "angles", "positions"))
    assert "inner" not in fault.message and all(t.is_meta for _, t in tensors(model))
    initialise([model], ["inner.weight", "cls"], 0, CPU, known={"cls": torch.ones(1, 1, 6)})
    assert model.cls.eq(1).all() and isinstance(model.cls, nn.Parameter)
    with pytest.raises(ValueError, match="no parameter or buffer nothing"):
        initialise([model], ["nothing"], 0, CPU)


def test_a_constructor_that_leaves_memory_unset_is_found_out() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.empty(4))
            self.w.data[:2] = 1
            self.register_buffer("flags", torch.empty(3, dtype=torch.bool))
            self.b = nn.Parameter(torch.zeros(2))

        def reset_parameters(self) -> None:
            self.b.sum().item()  # there is no value to read

    model, record = on_meta(Half)
    with pytest.raises(RankError, match=r"'w' \(Half\), 'flags' \(Half\); Half.reset_parameters fails"):
        initialise([model], ["w", "flags", "b"], 0, CPU, record=record)


def test_a_parent_may_draw_its_childrens_parameters() -> None:
    class Parent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(50, 50), nn.Linear(50, 50)
            self.pos = nn.Parameter(torch.empty(2))

        def reset_parameters(self) -> None:
            nn.init.ones_(self.pos)
            nn.init.normal_(self.a.weight, std=3.0)
            self.b.bias.data = torch.full((50,), 7.0)

    model, _ = on_meta(Parent, recorded=False)
    initialise([model], ["a.weight", "b.bias", "b.weight", "pos"], 0, CPU)
    assert 2.8 < float(model.a.weight.detach().std()) < 3.2 and model.b.bias.detach().eq(7).all()
    assert model.b.weight.detach().abs().max() <= 1 / math.sqrt(50) and model.a.bias.is_meta


@pytest.mark.parametrize("recorded", [True, False])
def test_a_models_own_generators_and_noise_masks(recorded: bool) -> None:
    build = lambda: PerturbativeConv2d(2, 3, 5, masks=4, seed=3)  # noqa: E731
    model, built = drawn(build, recorded=recorded), build()
    assert torch.equal(model.noise, built.noise)
    torch.manual_seed(5)
    built = build()
    torch.manual_seed(5)
    again = copy.deepcopy(built)
    again.reset_parameters()
    assert torch.equal(again.weight, built.weight) and torch.equal(again.noise, built.noise)


def noisy() -> nn.Module:
    """Two layers with generators of one seed, and draws from one generator after another."""
    model = nn.Sequential(*(PerturbativeConv2d(2, 2, 5, seed=3) for _ in range(2)))
    model.register_buffer("sparse", nn.init.sparse_(torch.empty(6, 6), 0.5))
    return model


@pytest.mark.parametrize("build", [Hand, Zoo, noisy])
def test_a_record_carried_out_from_one_stream_is_the_constructor_bit_by_bit(build: Callable[[], nn.Module]) -> None:
    model, record = on_meta(build)
    assert record is not None
    record.bind(model)
    record._steps = [dataclasses.replace(step, random=False) for step in record._steps]  # no stream of its own
    torch.manual_seed(7)
    built = build()
    for name, t in tensors(built):
        torch.manual_seed(7)
        value = record._replayed(record._bound[name], list(range(len(record._steps))), 0, 0)
        assert torch.equal(value, t.detach()), name


def test_a_generator_that_draws_twice_draws_anew() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            generator = torch.Generator().manual_seed(1)
            self.a, self.b = nn.Parameter(torch.empty(9)), nn.Parameter(torch.empty(9))
            nn.init.normal_(self.a, generator=generator)
            nn.init.normal_(self.b, generator=generator)

    model = drawn(Twice)
    assert torch.equal(model.a, Twice().a) and not torch.equal(model.a, model.b)


@pytest.mark.parametrize("builder", BUILDERS)
def test_examples_on_record_draw_as_they_are_built(builder: str) -> None:
    with Recording() as record:
        model = load_model(str(EXAMPLES / builder), meta=True).model
    built = load_model(str(EXAMPLES / builder)).model
    state = torch.get_rng_state()
    initialise([model], [n for n, _ in tensors(model)], 0, CPU, record=record)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(t.is_meta for _, t in tensors(model))
    wrong = [n for (n, a), (_, b) in zip(tensors(model), tensors(built), strict=True)
             if not same_distribution(a.detach(), b.detach())]  # fmt: skip
    assert not wrong
    kept = [[id(t) for _, t in tensors(m)] for m in (model, built)]
    assert [k.index(i) for k in kept[:1] for i in k] == [k.index(i) for k in kept[1:] for i in k]  # the same ties


@pytest.mark.parametrize("recorded", [True, False])
def test_torchs_random_state_stays_as_it_is(recorded: bool) -> None:
    state = torch.get_rng_state()
    drawn(Zoo, recorded=recorded)
    assert torch.equal(torch.get_rng_state(), state)


def held(nothing_else: set[int]) -> int:
    """Bytes of the CPU storages that live tensors hold, without those of `nothing_else`."""
    gc.collect()
    live = [t for t in gc.get_objects() if type(t) in (Tensor, nn.Parameter) and t.device.type == "cpu"]
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in live}
    return sum(n for k, n in storages.items() if k not in nothing_else)


def live() -> set[int]:
    gc.collect()
    return {t.untyped_storage()._cdata for t in gc.get_objects() if type(t) in (Tensor, nn.Parameter)}


def test_sharing_frees_what_others_own_and_initialising_takes_no_more_than_its_own() -> None:
    def build() -> nn.Module:
        return nn.Sequential(*(nn.Linear(256, 256) for _ in range(8)))

    before = live()
    model = build()
    model[5].weight.requires_grad_(False)
    own = ["3.weight", "3.bias"]
    size = 4 * (256 * 256 + 256)
    assert held(before) == 8 * size
    values = model[3].weight.detach().clone()
    share([model], own)
    del_values = values.untyped_storage().nbytes()
    assert held(before) == size + del_values and torch.equal(model[3].weight, values)
    assert {n for n, t in tensors(model) if not t.is_meta} == set(own)
    assert isinstance(model[0].weight, nn.Parameter) and model[0].weight.requires_grad
    assert not model[5].weight.requires_grad
    del model, values
    model, record = on_meta(build)
    initialise([model], own, 0, CPU, record=record)
    assert held(before) == size
    with pytest.raises(ValueError, match="no parameter or buffer"):
        share([model], ["8.weight"])


def test_ties_are_shared_under_any_of_their_names() -> None:
    model = Zoo()
    share([model], ["tied.weight"])
    assert model.tied.weight is model.fc.weight and not model.fc.weight.is_meta and model.fc.bias.is_meta
    share([model], [])
    assert model.tied.weight is model.fc.weight and model.fc.weight.is_meta
    assert all(p is q for p, q in zip(model.lstm._flat_weights, model.lstm.parameters(), strict=True))


@pytest.mark.parametrize("builder", ["gpt.py", "vit.py:digits", "lstm.py"])
def test_the_traced_graph_gets_the_same_tensors(builder: str) -> None:
    with Recording() as record:
        loaded = load_model(str(EXAMPLES / builder), meta=True)
    model = loaded.model
    traced = trace(model, loaded.inputs)
    names = [n for n, _ in tensors(model)]
    initialise([model, traced.module], names, 0, CPU, record=record)
    own = {id(t) for _, t in tensors(model)}
    held_by_graph = [t for _, t in tensors(traced.module)]
    assert held_by_graph and all(id(t) in own for t in held_by_graph)
    real = load_model(str(EXAMPLES / builder))
    inputs = tuple(x[:2] for x in real.tensors)
    torch.testing.assert_close(traced.module(*inputs), model(*inputs))
    share([model, traced.module], names[:1])
    assert sum(not t.is_meta for _, t in tensors(traced.module)) == sum(not t.is_meta for _, t in tensors(model)) > 0


def test_a_graph_of_torch_export_gets_masks_and_constants() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.out = nn.Linear(6, 6), nn.Linear(6, 3)
            self.window = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.5])
            self.register_buffer("gain", torch.full((6,), 2.0), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.tanh(self.fc(x)) * self.window * self.gain
            if x.shape[-1] == 6:
                x[:, 0] = 0
            return self.out(x)

    model, record = on_meta(Masked)
    traced = trace(model, torch.zeros(4, 6))
    initialise([model, traced.module], [n for n, _ in tensors(model)], 0, CPU, record=record)
    x = torch.randn(4, 6)
    torch.testing.assert_close(traced.module(x), model(x))
    bare, _ = on_meta(Masked, recorded=False)
    traced = trace(bare, torch.zeros(4, 6))
    with pytest.raises(RankError, match="a constant of forward"):
        initialise([bare, traced.module], ["fc.weight"], 0, CPU)


def test_a_model_from_meta_compiles_and_learns_as_one_with_the_same_weights() -> None:
    model, twin = drawn(Hand), Hand()
    twin.load_state_dict(model.state_dict())
    x, y = torch.randn(5, 40), torch.randint(40, (5,))
    losses = [rc.compile(m, x, "depth1", loss_fn=F.cross_entropy).step(x, y) for m in (model, twin)]
    assert torch.equal(*losses)
    for (n, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None) and (p.grad is None or torch.equal(p.grad, q.grad)), n


def test_a_constructor_that_applies_init_weights_itself() -> None:
    class Nano(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.c_proj, self.norm = nn.Linear(60, 60), nn.Linear(60, 60), nn.LayerNorm(60)
            self.apply(self._init_weights)
            nn.init.normal_(self.c_proj.weight, std=0.001)

        def _init_weights(self, module: nn.Module) -> None:
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    model, plain = drawn(Nano), drawn(Nano, recorded=False)
    assert 0.0009 < float(model.c_proj.weight.detach().std()) < 0.0011
    assert 0.018 < float(plain.fc.weight.detach().std()) < 0.022 and plain.norm.weight.detach().eq(1).all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_models_of_transformers(name: str, recorded: bool) -> None:
    transformers = pytest.importorskip("transformers")
    if name == "llama":
        config = transformers.LlamaConfig(vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                                          num_attention_heads=2, num_key_value_heads=1)  # fmt: skip
        build = lambda: transformers.LlamaForCausalLM(config)  # noqa: E731
    else:
        config = transformers.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2, n_positions=16,
                                         bos_token_id=0, eos_token_id=0)  # fmt: skip
        build = lambda: transformers.GPT2LMHeadModel(config)  # noqa: E731
    model, built = drawn(build, recorded=recorded), build()
    assert [n for n, _ in tensors(model)] == [n for n, _ in tensors(built)]
    for (n, a), (_, b) in zip(tensors(model), tensors(built), strict=True):
        assert same_distribution(a.detach(), b.detach()), n
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == config.tie_word_embeddings
    for (n, a), (_, b) in zip(model.named_buffers(), built.named_buffers(), strict=True):
        assert torch.equal(a, b), n
    ids = torch.randint(50, (2, 6))
    assert model(input_ids=ids).logits.isfinite().all()
    part, record = on_meta(build, recorded)
    own = [n for n, _ in tensors(part)][1::3]
    initialise([part], own, 0, CPU, record=record)
    assert all(torch.equal(t, values(model)[n]) for n, t in tensors(part) if not t.is_meta)
