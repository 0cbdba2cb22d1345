"""Copy the blocks that a GPU makes to the host while it makes the next one, by pinned memory and a stream of copies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

# One buffer receives a copy, one was yielded and may still be read, and one was yielded earlier and receives the next.
_HOSTS = 3


def on_host(blocks: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Yield a copy of every block of `device` on the host. A copy is valid while the next is made, and no longer.

    Args:
        blocks: The blocks, of which the first is the largest. Each block must be valid while the next one is made,
            because it is copied meanwhile. It is on the host before the block after the next one is asked for.
        device: The GPU.
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
