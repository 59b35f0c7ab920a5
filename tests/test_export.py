"""Models beyond torch.fx: exported graphs compute the same, share everything, and plan without weights."""

from __future__ import annotations

import copy
import resource

import pytest
import torch
import torch.nn.functional as F
from awkward import AWKWARD, Attention, Base, Encoder, NamedBoth, Recurrent, ReturnsDataclass
from big import Llama, ResNet50
from test_transparency import compare
from torch import nn

import reclra_compile as rc
from reclra_compile.frontend import exported, functional, probe, share, symbolic
from reclra_compile.frontend.trace import trace

BACKPROP = {"version": 1, "target": {"rule": "gradient"},
            "pathways": [{"from": "consumers", "to": "all", "kernel": "transpose"}]}  # fmt: skip


def build(name: str):
    torch.manual_seed(3)
    model, inputs = AWKWARD[name]()
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    return model.double(), inputs, torch.randint(4, (len(inputs[0]),))


@pytest.mark.parametrize("name", AWKWARD)
def test_backprop_equals_autograd_on_what_fx_cannot_trace(name: str) -> None:
    model, inputs, y = build(name)
    twin = copy.deepcopy(model)
    compare(rc.compile(model, inputs, "backprop"), twin, inputs, y, 1e-10)


@pytest.mark.parametrize("name", AWKWARD)
def test_an_exported_graph_is_over_the_models_own_parameters_and_changes_nothing(name: str) -> None:
    model, inputs, _ = build(name)
    model.eval()
    before = copy.deepcopy(model.state_dict())
    traced = trace(model, inputs)
    own = {id(t) for t in (*model.parameters(), *model.buffers())}
    graph = {id(p) for p in traced.module.parameters()} | {id(m) for m in traced.module.buffers()}
    assert {id(p) for p in traced.module.parameters()} <= own and graph & own
    assert not any(m.training for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name", ["asserts_shape", "zeros_and_a_loop_over_a_shape", "length", "tied_embeddings"])
def test_an_exported_graph_takes_any_batch_size(name: str) -> None:
    model, inputs, y = build(name)
    twin = copy.deepcopy(model)
    program = rc.compile(model, tuple(x[:1] for x in inputs), "backprop")
    compare(program, twin, inputs, y, 1e-10)
    compare(program, copy.deepcopy(program.model), tuple(x[:2] for x in inputs), y[:2], 1e-10)


class FixedBatch(Base):
    def forward(self, x):
        n = int(x.shape[0])
        return self.out(torch.tanh(self.fc(x.view(n, 6)))) / n


def test_a_batch_size_that_the_code_fixes_is_an_error_for_another(monkeypatch) -> None:
    model = FixedBatch()
    program = rc.compile(model, torch.randn(4, 6), "backprop")
    assert program.step(torch.randn(4, 6), torch.zeros(4, dtype=torch.long)).isfinite()
    with pytest.raises(rc.ReclraError, match=r"T007.*holds for 4, not 5"):
        program.step(torch.randn(5, 6), torch.zeros(5, dtype=torch.long))
    monkeypatch.setattr(exported, "_bound", lambda *_: None)
    unguarded = rc.compile(model, torch.randn(4, 6), "backprop")
    with pytest.raises(RuntimeError):
        unguarded.step(torch.randn(5, 6), torch.zeros(5, dtype=torch.long))


@pytest.mark.parametrize("name", ["asserts_shape", "lstm_exported", "transformer_encoder_exported"])
def test_module_paths_and_source_lines_survive_export(name: str) -> None:
    model, inputs, _ = build(name)
    traced = trace(model, inputs)
    assert traced.route == "torch.export"
    layers = [n for n in traced.graph.nodes if n.op == "call_function" and "linear" in n.name]
    modules = dict(model.named_modules())
    assert layers and all(isinstance(modules[traced.paths[n.name]], nn.Module) for n in layers)
    assert any(traced.paths[n.name] == "out" for n in layers)
    assert all("awkward.py:" in traced.sources[n.name] for n in layers)
    assert {r.name for r in rc.plan_for(model, inputs, "backprop").regions} >= {"out"}


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: Recurrent(nn.LSTM, False), (5, 3, 6)),
        (lambda: Recurrent(nn.GRU, False), (5, 3, 6)),
        (lambda: Attention(False), (5, 3, 6)),
        (lambda: Encoder(False), (5, 3, 6)),
    ],
)
def test_recurrent_and_attention_modules_compile_as_regions(build, shape) -> None:
    model = build().double()
    twin = copy.deepcopy(model)
    x, y = torch.randn(*shape, dtype=torch.float64), torch.randint(4, (5,))
    compare(rc.compile(model, x, "backprop"), twin, (x,), y, 1e-10)


# -- hazards: each test fails when its guard is removed


def test_gradients_tell_a_part_without_autograd(monkeypatch) -> None:
    model, inputs, _ = build("no_grad_part_that_fx_drops")
    assert trace(model, inputs).route == "torch.export"
    monkeypatch.setattr(probe, "_same_gradients", lambda *_: True)
    assert trace(model, inputs).route == "torch.fx", "the values alone do not tell"


def test_a_functionalised_graph_keeps_parts_without_autograd(monkeypatch) -> None:
    model, inputs, _ = build("running_mean_by_hand")
    assert trace(model, inputs).route == "functionalised export"
    monkeypatch.setattr(exported, "_detached", lambda graph, node: node)
    with pytest.raises(rc.ModelError, match="M105"):
        trace(model, inputs)


def test_aliased_writes_are_functionalised(monkeypatch) -> None:
    model, inputs, _ = build("write_into_a_view")
    assert trace(model, inputs).route == "functionalised export"
    monkeypatch.setattr(symbolic, "_check_used", lambda node: None)
    assert trace(model, inputs).route == "functionalised export", "the values tell too"
    monkeypatch.undo()
    monkeypatch.setattr(symbolic, "_check_used", lambda node: None)
    with torch.device("meta"):
        empty = AWKWARD["write_into_a_view"]()[0]
    assert trace(empty, inputs).route == "torch.fx", "without weights only the check tells"


def test_buffers_are_written_once_and_read_before(monkeypatch) -> None:
    model, inputs, y = build("running_mean_by_hand")
    program = rc.compile(model, inputs, "backprop")
    program.step(*inputs, y)
    assert (int(model.steps), int(model.norm.num_batches_tracked)) == (1, 1)
    monkeypatch.setattr(functional, "_take_snapshots", lambda *_: None)
    with pytest.raises(rc.ModelError, match="M105"):
        trace(*build("running_mean_by_hand")[:2])


class Clamped(Base):
    def forward(self, x):
        with torch.no_grad():
            self.fc.weight.clamp_(-0.01, 0.01)
        return self.out(torch.relu(self.fc(x)))


class Reassigned(Base):
    def forward(self, x):
        self.fc.weight.data = self.fc.weight.data / 2
        return self.out(torch.relu(self.fc(x)))


@pytest.mark.parametrize("kind", [Clamped, Reassigned])
def test_a_forward_pass_that_changes_its_parameters_is_refused_before_it_does(kind) -> None:
    model = kind()
    before = model.fc.weight.detach().clone()
    with pytest.raises(rc.ModelError, match=r"M106.*'fc.weight'"):
        rc.compile(model, torch.randn(5, 6), "backprop")
    assert torch.equal(model.fc.weight, before)


def test_the_guard_is_what_keeps_a_parameter(monkeypatch) -> None:
    model = Clamped()
    before = model.fc.weight.detach().clone()
    monkeypatch.setattr(share.guarded, "__torch_dispatch__", lambda self, f, t, a=(), k=None: f(*a, **(k or {})))
    rc.compile(model, torch.randn(5, 6), "backprop")
    assert not torch.equal(model.fc.weight, before)


def test_an_embedding_that_rescales_its_rows_keeps_them_while_compiling() -> None:
    model = nn.Sequential(nn.Embedding(9, 6, max_norm=0.5), nn.Flatten(), nn.Linear(18, 4)).double()
    before, twin = model[0].weight.detach().clone(), copy.deepcopy(model)
    x, y = torch.randint(9, (5, 3)), torch.randint(4, (5,))
    program = rc.compile(model, x, "backprop")
    assert torch.equal(model[0].weight, before)
    compare(program, twin, (x,), y, 1e-10)


def test_tracing_copies_no_parameters(monkeypatch) -> None:
    model, inputs, _ = build("asserts_shape")
    seen: list[nn.Module] = []
    original = share.shared_copy
    monkeypatch.setattr(probe, "shared_copy", lambda *a: seen.append(original(*a)) or seen[-1])
    trace(model, inputs)
    memory = {p.data_ptr() for p in model.parameters()}
    assert seen and all({p.data_ptr() for p in twin.parameters()} == memory for twin in seen)


# -- outputs and inputs


class TwoHeads(Base):
    def forward(self, x):
        h = torch.tanh(self.fc(x))
        return {"scores": self.out(h), "features": h, "best": h.argmax(1)}


class Named(Base):
    def forward(self, x):
        h = torch.tanh(self.fc(x))
        return NamedBoth(logits=self.out(h), attention=(h,))


class Nested(Base):
    def forward(self, x):
        h = torch.tanh(self.fc(x))
        return h, [self.out(h), h.argmax(1)]


@pytest.mark.parametrize(
    ("kind", "output", "pick"),
    [
        (ReturnsDataclass, None, lambda r: r.logits),
        (Named, None, lambda r: r.logits),
        (TwoHeads, "scores", lambda r: r["scores"]),
        (TwoHeads, 0, lambda r: r["scores"]),
        (TwoHeads, "1", lambda r: r["features"][:, :4]),
        (Nested, "1.0", lambda r: r[1][0]),
        (Nested, 1, lambda r: r[1][0]),
    ],
)
def test_one_of_several_outputs_is_learned_from(kind, output, pick) -> None:
    torch.manual_seed(0)
    model = kind().double()
    twin = copy.deepcopy(model)
    x, y = torch.randn(5, 6, dtype=torch.float64), torch.randint(4, (5,))
    program = rc.compile(
        model, x, "backprop", output=output, loss_fn=lambda o, t: F.cross_entropy(o[:, :4], t), reduction="mean"
    )
    program.step(x, y)
    F.cross_entropy(pick(twin(x)), y).backward()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12)


def test_outputs_to_choose_from_are_listed() -> None:
    with pytest.raises(rc.ModelError, match=r"M202.*scores \(5, 4\), features \(5, 8\)(.|\n)*output='scores'"):
        trace(TwoHeads(), torch.randn(5, 6))
    with pytest.raises(rc.ModelError, match=r"M202.*no floating-point output 'score'(.|\n)*did you mean 'scores'"):
        trace(TwoHeads(), torch.randn(5, 6), "score")
    with pytest.raises(rc.ModelError, match="M202"):
        trace(TwoHeads(), torch.randn(5, 6), "best")


class ByName(Base):
    def forward(self, x, mask=None, *, scale=None, twice: bool = False):
        h = torch.tanh(self.fc(x if mask is None else x * mask))
        h = h if scale is None else h * scale
        return self.out(h * 2 if twice else h)


def test_inputs_may_be_named() -> None:
    model = ByName().double()
    twin = copy.deepcopy(model)
    x, scale = torch.randn(5, 6, dtype=torch.float64), torch.rand(5, 1, dtype=torch.float64)
    traced = trace(model, {"scale": scale, "x": x, "twice": True})
    assert traced.keywords == ("x", "scale") and [len(t.shape) for t in traced.inputs] == [2, 2]
    y = torch.randint(4, (5,))
    rc.compile(model, {"scale": scale, "x": x, "twice": True}, "backprop").step(x, scale, y)
    F.cross_entropy(twin(x, scale=scale, twice=True), y).backward()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12)


# -- errors


class OnValues(Base):
    def forward(self, x):
        h = self.fc(x)
        if h.sum() > 0:
            h = -h
        return self.out(h)


def test_control_flow_on_values_is_refused_with_its_line() -> None:
    with pytest.raises(rc.ModelError, match=r"M101.*test_export.py:\d+.*`if h.sum\(\) > 0:`.*tried torch.fx"):
        trace(OnValues(), torch.randn(5, 6))


class PythonCounter(Base):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x):
        assert x.ndim == 2
        self.calls += 1
        return self.out(torch.relu(self.fc(x))) * self.calls


def test_a_python_counter_is_refused_and_left_alone() -> None:
    model = PythonCounter()
    with pytest.raises(rc.ModelError, match=r"M105.*tried"):
        trace(model, torch.randn(5, 6))
    assert model.calls == 0


# -- feedback weights on function calls


@pytest.mark.parametrize("name", ["asserts_shape", "functional_batch_norm", "branch_on_a_shape", "length"])
def test_the_transpose_kernel_equals_autograd_on_exported_layers(name: str) -> None:
    model, inputs, y = build(name)
    twin = copy.deepcopy(model)
    compare(rc.compile(model, inputs, BACKPROP), twin, inputs, y, 1e-10)


class Calls(nn.Module):
    """Every form in which a function applies a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Parameter(torch.randn(4, 2, 3) * 0.4), nn.Parameter(torch.randn(4, 3, 3) * 0.4)
        self.b1, self.w = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(12, 8) * 0.3)
        self.v, self.b2 = nn.Parameter(torch.randn(8, 8) * 0.3), nn.Parameter(torch.randn(8))
        self.first, self.out = nn.Conv1d(2, 2, 1), nn.Linear(8, 4)

    def forward(self, x):
        h = F.conv1d(torch.tanh(self.first(x)), self.c1, self.b1, stride=2, padding=1)
        h = F.conv_transpose1d(torch.tanh(h), self.c2, padding=1)
        h = torch.tanh(h).flatten(1) @ self.w
        h = torch.addmm(self.b2, torch.tanh(h), self.v)
        return self.out(F.linear(torch.tanh(h), weight=self.v.t()))


def test_the_transpose_kernel_equals_autograd_on_function_calls() -> None:
    torch.manual_seed(0)
    model = Calls().double()
    twin = copy.deepcopy(model)
    x, y = torch.randn(5, 2, 8, dtype=torch.float64), torch.randint(4, (5,))
    compare(rc.compile(model, x, BACKPROP), twin, (x,), y, 1e-10)
    program = rc.compile(model, x, "kolen_pollack")
    program.step(x, y)
    assert all(p.grad is not None for p in program.synapse_parameters())


# -- planning without weights


@pytest.mark.parametrize(
    ("build", "inputs", "count", "regions"),
    [
        (Llama, lambda: torch.zeros(2, 512, dtype=torch.long), 1_100_000_000, 140),
        (ResNet50, lambda: torch.zeros(2, 3, 224, 224), 25_000_000, 54),
    ],
)
def test_large_models_plan_without_their_weights(build, inputs, count: int, regions: int) -> None:
    with torch.device("meta"):
        model = build()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    plan = rc.plan_for(model, inputs(), "backprop")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert sum(r.parameter_count for r in plan.regions) > count and len(plan.regions) >= regions
    assert all(p.is_meta for p in model.parameters())
    assert grown < 1024, "MiB; the weights alone would be 4 GiB"


def test_a_plan_without_weights_is_the_plan_with_them() -> None:
    for name in ("asserts_shape", "zeros_and_a_loop_over_a_shape", "tied_embeddings", "write_into_a_view"):
        model, inputs = AWKWARD[name]()
        with torch.device("meta"):
            empty = AWKWARD[name]()[0]
        assert str(rc.plan_for(empty, inputs, "backprop")) == str(rc.plan_for(model, inputs, "backprop")), name


# -- models of the transformers library


def hugging_face(name: str):
    """A tiny model, its named inputs and its labels."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    ids = torch.randint(4, (3, 6))
    if name == "llama":
        config = transformers.LlamaConfig(vocab_size=11, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                                          num_attention_heads=2, num_key_value_heads=1)  # fmt: skip
        return transformers.LlamaForCausalLM(config), {"input_ids": ids}, ids
    if name == "gpt2":
        config = transformers.GPT2Config(vocab_size=11, n_embd=16, n_layer=2, n_head=2, n_positions=16,
                                         bos_token_id=0, eos_token_id=0)  # fmt: skip
        return transformers.GPT2LMHeadModel(config), {"input_ids": ids}, ids
    config = transformers.BertConfig(vocab_size=11, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                                     num_attention_heads=2, num_labels=4, max_position_embeddings=16)  # fmt: skip
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    return transformers.BertForSequenceClassification(config), {"input_ids": ids, "attention_mask": mask}, ids[:, 0]


def token_loss(logits, y):
    return F.cross_entropy(logits.flatten(0, -2), y.flatten())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("wiring", ["backprop", "depth1", "feedback_alignment"])
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_models_of_transformers_compile_unmodified(name: str, wiring: str) -> None:
    model, inputs, y = hugging_face(name)
    model = model.double().train()
    twin = copy.deepcopy(model)
    program = rc.compile(model, inputs, wiring, loss_fn=token_loss, reduction="mean")
    torch.manual_seed(1)
    loss = program.step(*inputs.values(), y)
    torch.manual_seed(1)
    expected = token_loss(twin(**inputs).logits, y)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-10, atol=1e-10)
    expected.backward()
    for (key, a), b in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert a.grad is not None, key
        if wiring == "backprop":
            assert float((a.grad - b.grad).norm()) <= 1e-10 * max(1.0, float(b.grad.norm())), key
    assert "x0" not in {v for r in program.plan.regions if "mlp" in r.name for v in r.inputs}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_large_model_of_transformers_plans_without_its_weights() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(vocab_size=32000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=22,
                                      num_attention_heads=32, num_key_value_heads=4)  # fmt: skip
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    plan = rc.plan_for(model, {"input_ids": torch.zeros(2, 256, dtype=torch.long)}, "backprop")
    assert sum(r.parameter_count for r in plan.regions) > 1_000_000_000
    assert all(p.is_meta for p in model.parameters())
