"""Blocks of a GPU on the host: how long each buffer has to hold. Streams and pinned memory are stood in for here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from taylor_ops.machine import pinned_copies
from taylor_ops.machine.pinned_copies import on_host

CUDA = torch.device("cuda")
ROWS = (4, 4, 4, 4, 4, 2)


class Copies:
    """Stands in for the stream of the copies: which of them were waited for."""

    def __init__(self) -> None:
        self.begun = 0
        self.waited_for: set[int] = set()

    def wait_stream(self, making: object) -> None:
        """The copy begins when the block is made."""
        assert making == "making"
        self.begun += 1

    def record_event(self) -> SimpleNamespace:
        """The end of the copy that was begun last."""
        copy = self.begun - 1
        return SimpleNamespace(synchronize=lambda: self.waited_for.add(copy))


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Copies:
    stream = Copies()
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "making")
    monkeypatch.setattr(pinned_copies, "_pinned", lambda shape, dtype: torch.empty(shape, dtype=dtype))
    return stream


def made(copies: Copies) -> Iterator[Tensor]:
    """Blocks of these rows, made in two buffers in turn, as `terms` makes them."""
    buffers = [torch.empty(max(ROWS), 3), torch.empty(max(ROWS), 3)]
    for number, rows in enumerate(ROWS):
        assert number < 2 or number - 2 in copies.waited_for, "made over a block that is still copied"
        yield buffers[number % 2][:rows].fill_(number)


def test_every_block_arrives_and_holds_while_the_next_is_made(copies: Copies) -> None:
    arriving, given = on_host(made(copies), CUDA), []
    for number, block in enumerate(arriving):
        assert number in copies.waited_for, "given before it was on the host"
        given.append(block)
        # As `write_tensors` does: the one before is still being written when this one is asked for.
        for earlier, held in list(enumerate(given))[-2:]:
            assert held.shape == (ROWS[earlier], 3)
            assert bool((held == earlier).all())
    assert len(given) == len(ROWS)


def test_nothing_made_is_nothing_given(copies: Copies) -> None:
    assert list(on_host(iter(()), CUDA)) == []
    assert copies.begun == 0
