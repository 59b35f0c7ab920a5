"""Ranks of one attempt find each other in a store with what earlier ones left."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch.distributed as dist

from reclra_compile.distributed.meeting import meet


def met(store: dist.Store, world: int, late: dict[int, float]) -> set[str]:
    """The names that ranks, some of which come later, have for their attempt."""

    def rank(number: int) -> str:
        time.sleep(late.get(number, 0.0))
        return meet(store, number, world, 30)

    with ThreadPoolExecutor(world) as pool:
        return set(pool.map(rank, range(world)))


@pytest.mark.parametrize("late", [{}, {0: 0.2}, {1: 0.2}, {2: 0.1, 0: 0.2}])
def test_attempts_have_names_of_their_own(late: dict[int, float]) -> None:
    store = dist.HashStore()
    names = [met(store, 3, late) for _ in range(4)]
    assert [len(n) for n in names] == [1] * 4
    assert len(set.union(*names)) == 4


def test_an_attempt_that_was_ended_while_it_met() -> None:
    store = dist.HashStore()
    for rank, missing in ((0, "1, 2"), (1, "0")):
        with pytest.raises(RuntimeError, match=f"no word of rank {missing} in"):
            meet(store, rank, 3, 0.05)
    assert len(met(store, 3, {0: 0.1})) == 1
    assert len(met(store, 2, {1: 0.1})) == 1, "with fewer ranks"
