"""How many threads torch computes with, if the last bits of a result depend on their number."""

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

    Torch cuts work into one piece for each thread, and computes the ends of a piece by other instructions than its
    middle. Matrix products choose their order of summation by the number of threads. So the last bits of a fit would
    depend on how many workers share the cores.
    """

    @wraps(function)
    def on_one(*args: P.args, **kwargs: P.kwargs) -> R:
        before = torch.get_num_threads()
        if before == 1:
            return function(*args, **kwargs)
        torch.set_num_threads(1)
        try:
            return function(*args, **kwargs)
        finally:
            torch.set_num_threads(before)

    return on_one


def use_threads(threads: int) -> None:
    """Let torch compute with `threads` threads in this process from now on."""
    torch.set_num_threads(threads)


@contextmanager
def threads_restored() -> Iterator[None]:
    """Restore the number of threads of torch at the end of the block."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
