"""Whether the step that runs is being written down as a graph, which has to hold for other numbers too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_TRACING: ContextVar[bool] = ContextVar("tracing", default=False)


def is_traced() -> bool:
    """True inside `traced`: tasks then branch on no value, draw from torch's generator, and wait for no other task."""
    return _TRACING.get()


@contextlib.contextmanager
def traced() -> Iterator[None]:
    """Inside, this thread's step is written down as a graph."""
    token = _TRACING.set(True)
    try:
        yield
    finally:
        _TRACING.reset(token)
