"""The processes that train together, as a training loop sees them; one process is alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Peers(Protocol):
    """`count` = `replicas` × `stages` processes: this one is `rank` = `replica` × `stages` + `stage`.

    Methods are collective: every process calls them, in the same order.
    """

    @property
    def rank(self) -> int:
        """This process."""
        ...

    @property
    def stages(self) -> int:
        """The devices of the plan."""
        ...

    @property
    def replicas(self) -> int:
        """The copies of the model."""
        ...

    @property
    def count(self) -> int:
        """All processes."""
        ...

    @property
    def stage(self) -> int:
        """The device of the plan that this process runs."""
        ...

    @property
    def replica(self) -> int:
        """Which of the copies of the model this process belongs to."""
        ...

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums of each value over all processes."""
        ...

    def gather(self, text: str) -> list[str]:
        """The text of each process, by rank."""
        ...

    def barrier(self) -> None:
        """Wait for all."""
        ...


class Alone:
    """One process."""

    rank = stage = replica = 0
    count = stages = replicas = 1

    def total(self, values: Sequence[float]) -> list[float]:
        """The values themselves."""
        return list(values)

    def gather(self, text: str) -> list[str]:
        """The text itself."""
        return [text]

    def barrier(self) -> None:
        """There is nobody to wait for."""
