"""The step as one flat graph: the numbers of program.step, every operation under its task, and readable Python."""

from __future__ import annotations

import ast
import copy
import functools
import pickle

import pytest
import torch
import torch.nn.functional as F
from step_graphs import WIRINGS, compiled, grads_of, named, same
from torch import fx, nn

import reclra_compile as rc

FAST = {("mlp", "backprop"), ("mlp", "depth1"), ("mlp", "depth2"), ("mlp", "feedback_alignment"), ("normed", "depth1")}
FAST |= {("resnet", "blocks")}
CASES = [
    pytest.param(name, wiring, marks=() if (name, wiring) in FAST else pytest.mark.slow)
    for name in ("mlp", "normed", "resnet", "gpt", "lstm", "tabular")
    for wiring in WIRINGS
]


@pytest.mark.parametrize(("name", "wiring"), CASES)
def test_the_graph_is_the_step(name: str, wiring: str) -> None:
    program, batch = compiled(name, wiring)
    graph = program.as_step_graph(*batch)
    same(program, graph, batch)
    flat_and_noted(program, graph)
    with torch.no_grad():  # it reads the program's own weights
        for p in program.parameters():
            p.mul_(0.9)
    same(program, graph, batch)


def flat_and_noted(program: rc.Program, graph) -> None:
    """Operations of torch alone; each under a task of the plan; text that is Python and names every region."""
    graph.graph.lint()
    parts = set()
    for node in graph.graph.nodes:
        assert node.op in ("placeholder", "get_attr", "call_function", "output")
        if node.op in ("placeholder", "output"):
            continue
        if node.op == "call_function":
            operation = isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == "aten"
            assert operation or node.target.__name__ == "getitem"
        part = node.meta["task"]
        parts.add((part.kind, part.subject, part.wave))
        assert graph.titles[node.name].split(": ")[1].startswith(f"{part.kind} {part.subject}")
    tasks = {(t.kind, t.subject, t.wave) for t in program.plan.tasks}
    assert parts <= tasks
    worked = {(t.kind, t.subject, t.wave) for t in program.plan.tasks if t.kind in "FLUV"}
    learning = {t.region for t in program.plan.targets if t.trainable}
    assert {t for t in worked if t[0] in "LV" or t[1] in learning} <= parts
    ast.parse(graph.text)
    ast.parse(graph.print_readable(print_output=False))
    lines = [line.strip() for line in graph.text.splitlines()]
    for region in program.plan.regions:
        assert f"# forward: F {region.name}" in lines


OTHERS = [
    pytest.param(name, marks=() if name in ("weight_mirror", "target_propagation") else pytest.mark.slow)
    for name in sorted(set(rc.shipped()) - set(WIRINGS))
]


@pytest.mark.parametrize("name", OTHERS)
def test_every_shipped_wiring_can_be_a_graph(name: str) -> None:
    program, batch = compiled("mlp", name)
    same(program, program.as_step_graph(*batch), batch)


def test_making_it_leaves_no_trace() -> None:
    """Gradients, buffers, random state, D(Θ) and the program's next step are what they would have been."""
    program, batch = compiled("normed")
    twin, _ = compiled("normed")
    for p in (program, twin):
        torch.manual_seed(1)
        p.step(*batch)
    before, random, found = grads_of(program), torch.get_rng_state(), program.discrepancy
    kept = {name: p.grad for name, p in named(program).items()}
    program.as_step_graph(*batch)
    assert torch.equal(random, torch.get_rng_state()) and program.discrepancy == found
    assert all(p.grad is kept[name] for name, p in named(program).items())
    assert all(torch.equal(before[name], grad) for name, grad in grads_of(program).items())
    torch.set_rng_state(random)
    program.step(*batch)
    torch.set_rng_state(random)
    twin.step(*batch)
    for a, b in zip(program.model.state_dict().values(), twin.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert all(torch.equal(grad, grads_of(twin)[name]) for name, grad in grads_of(program).items())


@pytest.mark.parametrize("options", [{"devices": 2, "microbatches": 3}], ids=str)
def test_devices_and_microbatches_are_one_graph(options: dict) -> None:
    program, batch = compiled("mlp", **options)
    graph = program.as_step_graph(*batch)
    same(program, graph, batch)
    count = options.get("microbatches", 1)
    assert {n.meta["task"].microbatch for n in graph.graph.nodes if "task" in n.meta} == set(range(count))
    assert (f"# forward: F fc1, microbatch {count - 1}" in graph.text) == (count > 1)


def test_a_region_that_recomputes_draws_its_mask_once() -> None:
    wiring = {"version": 1, "memory": {"recompute": "all"}, "pathways": [{"from": "output", "to": "all"}]}
    program, batch = compiled("normed", wiring)  # type: ignore[arg-type]
    assert any(t.recompute for t in program.plan.targets)
    graph = program.as_step_graph(*batch)
    same(program, graph, batch)
    twin, _ = compiled("normed")
    assert len(graph.graph.nodes) == len(twin.as_step_graph(*batch).graph.nodes)


def test_large_maps_are_not_cut_into_pieces() -> None:
    """A step works on a few samples at a time, for the cache's sake; what compiles a graph does so by itself."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Tanh(), nn.AvgPool2d(16), nn.Flatten(), nn.Linear(128, 3))
    x, y = torch.randn(4, 1, 64, 64).double(), torch.randint(3, (4,))
    program = rc.compile(model.double(), x, "depth1")
    graph = program.as_step_graph(x, y)
    same(program, graph, (x, y))
    assert graph.text.count("aten.slice") == 1 and len(graph.graph.nodes) < 80


def test_autocast_is_as_it_was_when_the_graph_was_made() -> None:
    program, (x, y) = compiled("mlp", "feedback_alignment")
    program.to(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        program.model(x.float())  # casts of weights are kept, and must not become constants
        graph = program.as_step_graph(x.float(), y)
        same(program, graph, (x.float(), y), 0.0)
    inside = graph(x.float(), y)[0]
    assert torch.equal(inside, graph(x.float(), y)[0])
    assert "torch.bfloat16" in graph.text and not hasattr(graph, "constants")


def test_buffers_that_move_are_still_the_models() -> None:
    program, (x, y) = compiled("normed", "backprop")
    graph = program.as_step_graph(x, y)
    program.to(torch.float32).to(torch.float64)  # puts new buffers in place of the old
    graph(x, y)
    assert int(program.model[1].num_batches_tracked) == 1
    assert graph.model is program.model and graph.synapses is program.synapses


def test_a_copy_and_a_pickle_are_graphs_of_their_own() -> None:
    program, batch = compiled("normed", "depth1")
    graph = program.as_step_graph(*batch)
    for other in (copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))):
        assert other.text == graph.text and isinstance(other, fx.GraphModule)
        torch.manual_seed(2)
        loss, grads = graph(*batch)
        torch.manual_seed(2)
        again, others = other(*batch)
        assert torch.equal(loss, again) and all(torch.equal(grads[n], others[n]) for n in grads)
        assert not {id(p) for p in other.parameters()} & {id(p) for p in program.parameters()}
        assert [n.meta.get("task") for n in other.graph.nodes] == [n.meta.get("task") for n in graph.graph.nodes]
    both = copy.deepcopy((program.synapses, graph))  # what is copied together stays together
    assert {id(p) for p in both[0].parameters()} <= {id(p) for p in both[1].parameters()}


def test_a_graph_can_be_changed_and_recompiled() -> None:
    program, batch = compiled("mlp")
    graph = program.as_step_graph(*batch)
    relu = next(n for n in graph.graph.nodes if n.target is torch.ops.aten.relu.default)
    relu.target = torch.ops.aten.tanh.default
    before = graph(*batch)[0]
    graph.recompile()
    assert not torch.equal(before, graph(*batch)[0]) and "# forward: F fc1" in graph.text
    with pytest.raises(rc.UserError, match="X003"):
        graph(*(x[:2] for x in batch))


def test_labels_that_are_ignored_later_are_ignored() -> None:
    """The closed form of cross entropy, which steps use, holds for some labels alone; the graph for all."""
    program, (x, y) = compiled("mlp")
    graph = program.as_step_graph(x, y)
    same(program, graph, (x, torch.tensor([-100, 1, 2, -100, 0, 1])))
    cut, _ = compiled("mlp", microbatches=2)
    graph = cut.as_step_graph(x, y)
    for other in (graph, pickle.loads(pickle.dumps(graph))):
        with pytest.raises(rc.UserError, match="X006"):
            other(x, torch.tensor([-100, 1, 2, -100, 0, -100]))


def test_batches_are_made_up_where_the_loss_says_what_labels_are() -> None:
    program, (x, _) = compiled("mlp", loss_fn=functools.partial(F.cross_entropy, label_smoothing=0.1))
    graph = program.as_step_graph()
    same(program, graph, (x, torch.randint(3, (6,))))
    program, (x, _) = compiled("mlp", loss_fn=nn.MSELoss())
    same(program, program.as_step_graph(), (x, torch.randn(6, 3).double()))
    program, (x, y, target) = compiled("tabular")
    same(program, program.as_step_graph(), (x, y, target))


def refused(code: str, program: rc.Program, *batch) -> str:
    with pytest.raises(rc.UserError) as caught:
        program.as_step_graph(*batch)
    (fault,) = caught.value.faults
    assert fault.code == code and fault.fix
    return fault.message


def test_what_a_graph_cannot_say_is_refused() -> None:
    program, (x, y) = compiled("mlp", loss_fn=lambda output, target: F.cross_entropy(output, target))
    assert "<lambda>" in refused("X001", program)
    assert "not 3 arguments" in refused("X002", program, x, y, y)
    assert "NoneType" in refused("X002", program, x, None)
    late, batch = compiled("mlp", devices=2, microbatches=2, staleness=1)
    assert "two sets of weights" in refused("X004", late, *batch)
    part, batch = compiled("mlp")
    part._linked.shared = True  # as in a rank of several
    assert "other processes" in refused("X004", part, *batch)
    uneven = (x, torch.tensor([-100, -100, -100, 1, 2, 0]))
    refused("X006", compiled("mlp", microbatches=2)[0], *uneven)
    random, batch = compiled("normed", "equilibrium_propagation")
    assert "mask" in refused("X007", random, *batch)
    hooked, batch = compiled("mlp")
    handle = hooked.model.fc2.bias.register_post_accumulate_grad_hook(lambda p: None)
    assert "'fc2.bias'" in refused("X008", hooked, *batch)
    handle.remove()
    hooked.as_step_graph(*batch)


def scaled_by_value(output, target):
    loss = F.cross_entropy(output, target)
    return loss * 2 if loss.item() > 1e3 else loss


def of_some_labels(output, target):
    return F.cross_entropy(output[target > 0], target[target > 0])


@pytest.mark.parametrize("loss_fn", [scaled_by_value, of_some_labels])
def test_tasks_that_look_at_values_are_refused(loss_fn) -> None:
    program, batch = compiled("mlp", loss_fn=loss_fn, reduction="mean")
    assert "'L loss'" in refused("X005", program, *batch)
    assert not grads_of(program)
    program.step(*batch)


def test_another_batch_is_a_clear_error() -> None:
    program, (x, y) = compiled("mlp")
    graph = program.as_step_graph(x, y)
    for batch in ((x[:4], y[:4]), (x.float(), y), (x,), (x, None)):
        with pytest.raises(rc.UserError, match="X003") as caught:
            graph(*batch)
        assert "[6, 6]" in str(caught.value) and "as_step_graph" in caught.value.faults[0].fix


def test_one_task_after_another_is_written_in_the_order_of_the_plan() -> None:
    program, batch = compiled("mlp", "depth2")
    graph = program.as_step_graph(*batch)
    order = list(dict.fromkeys(n.meta["task"][:2] for n in graph.graph.nodes if "task" in n.meta))
    plan = [(t.kind, t.subject) for t in program.plan.tasks if (t.kind, t.subject) in order]
    assert order == plan
    assert "alpha" not in graph.text  # Inductor loses the factor of a + α b where b is a product
    names = {n.name for n in graph.graph.nodes}
    assert {"F_fc1_addmm", "fc1_weight", "D_out_to_fc3_mm", "T_fc2_sub", "U_fc1_mm", "V_out_to_fc3_mm"} <= names
    assert "dot" not in graph.text  # D(Θ), which nobody reads here
