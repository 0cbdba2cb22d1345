"""How many threads torch computes with where the last bits of a result would depend on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def on_one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function compute on one thread.

    Torch cuts work into one piece a thread, the ends of a piece are computed by other instructions than its middle, and
    matrix products choose their order of summation by the number of threads: the last bits of a fit would depend on how
    many workers share the cores.
    """

    @wraps(function)
    def alone(*given: P.args, **named: P.kwargs) -> R:
        before = torch.get_num_threads()
        if before == 1:
            return function(*given, **named)
        torch.set_num_threads(1)
        try:
            return function(*given, **named)
        finally:
            torch.set_num_threads(before)

    return alone


def use_threads(threads: int) -> None:
    """Let torch compute with so many threads in this process from now on."""
    torch.set_num_threads(threads)


@contextmanager
def threads_restored() -> Iterator[None]:
    """Give torch the number of threads back that it had before the block."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
