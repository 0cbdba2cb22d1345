"""Blocks that a GPU makes, brought to the host while it makes the next: pinned memory, a stream for the copies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

# One is copied into, one was given and may still be read, one was given before that and is copied into next.
_HOSTS = 3


def on_host(blocks: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Every block of `device` as it is on the host, where it holds while the next is made, and no longer.

    The first block is the largest. A block of `blocks` has to hold while the next is made: it is copied meanwhile, and
    on the host before the one after that is asked for.
    """
    copies: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    hosts: list[Tensor] = []
    under_way: tuple[Tensor, torch.cuda.Event] | None = None
    for number, block in enumerate(blocks):
        if number < _HOSTS:
            hosts.append(_pinned(block.shape, block.dtype))
        host = hosts[number % _HOSTS][: len(block)]
        copies.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(copies):
            host.copy_(block, non_blocking=True)
        copied = copies.record_event()
        if under_way is not None:
            yield _arrived(*under_way)
        under_way = host, copied
    if under_way is not None:
        yield _arrived(*under_way)


def _pinned(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(tuple(shape), dtype=dtype, pin_memory=True)


def _arrived(host: Tensor, copied: torch.cuda.Event) -> Tensor:
    copied.synchronize()
    return host
