"""The step through torch.compile: of a graph, by compile_step, and of program.step itself."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from step_graphs import compiled, same, small, steps_alike
from torch import fx, nn

import reclra_compile as rc


class Counting:
    """A backend of torch.compile that runs graphs as they are, and keeps them."""

    def __init__(self) -> None:
        self.graphs: list[fx.GraphModule] = []

    def __call__(self, graph, _):
        self.graphs.append(graph)
        return graph.forward


def test_torch_compile_takes_the_graph_as_a_whole() -> None:
    program, batch = compiled("normed", "depth2")
    graph = program.as_step_graph(*batch)
    torch.manual_seed(0)
    loss, grads = graph(*batch)
    torch.manual_seed(0)
    again, others = torch.compile(graph, backend="aot_eager", fullgraph=True)(*batch)
    torch.testing.assert_close(again, loss, rtol=1e-6, atol=1e-6)
    for name in grads:
        torch.testing.assert_close(others[name], grads[name], rtol=1e-6, atol=1e-6, msg=name)
    assert int(program.model[1].num_batches_tracked) == 2


def test_a_compiled_step_has_a_graph_for_each_kind_of_batch() -> None:
    program, (x, y) = compiled("mlp", "depth2")
    backend = Counting()
    step = program.compile_step(backend)
    steps_alike(program, step, [(x, y), (x[:4], y[:4]), (x, y)], 1e-12)
    assert len(backend.graphs) == len(step.graphs.made) == 2
    program.model.fc1.requires_grad_(False)  # frozen: another graph, without these gradients
    steps_alike(program, step, [(x, y)], 1e-12)
    assert len(backend.graphs) == 3
    with pytest.raises(rc.UserError, match="X002"):
        step(x)
    with pytest.raises(rc.UserError, match="X009"):
        program.compile_step("no such backend")(x, y)


def test_an_attached_model_has_a_step_graph_too() -> None:
    model, (x,), y = small("mlp")
    program = rc.attach(model, x, wiring="depth1").reclra.program
    graph = program.as_step_graph(x, y)
    same(program, graph, (x, y))
    steps_alike(program, program.compile_step("eager"), [(x, y)], 1e-12)
    assert graph.model is model


@pytest.mark.slow
def test_modes_are_part_of_what_a_graph_is_made_for() -> None:
    program, batch = compiled("normed", "backprop")
    step = program.compile_step(Counting())
    step(*batch)
    program.model.eval()
    steps_alike(program, step, [batch], 1e-12)
    assert len(step.graphs.made) == 2


def test_torch_compile_of_the_programs_step_compiles_the_graph() -> None:
    program, (x, y) = compiled("mlp", "depth2")
    backend = Counting()
    step = torch.compile(program.step, backend=backend)
    steps_alike(program, step, [(x, y), (x[:4], y[:4]), (x, y)], 1e-12)
    assert len(backend.graphs) == 2
    assert all(sum(n.op == "call_function" for n in g.graph.nodes) > 40 for g in backend.graphs)
    copied = copy.deepcopy(program.__dict__["_graphs"])
    assert copied is None  # a copy of the program makes its own


@pytest.mark.slow
@pytest.mark.parametrize(("name", "wiring"), [("mlp", "depth2"), ("normed", "depth1"), ("normed", "sign_symmetry")])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
def test_inductor_compiles_the_step(name: str, wiring: str) -> None:
    if not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("Inductor compiles for the CPU with g++ or clang++, and there is neither")
    model, (x,), y = small(name)
    if name == "normed":
        model[4] = nn.Identity()  # Inductor draws masks of its own
    program = rc.compile(model, x, wiring)
    steps_alike(program, program.compile_step(), [(x, y)], 1e-6)
