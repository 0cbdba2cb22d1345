"""The slot of the concurrency limit `gpu`: a stage that computes on a GPU holds one while it works, and no longer."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prefect.concurrency.sync import concurrency

if TYPE_CHECKING:
    import torch

LIMIT = "gpu"


@contextmanager
def gpu_slot(device: torch.device | None) -> Iterator[None]:
    """Wait for a slot and hold it; nothing is held for work on no GPU.

    The memory that torch keeps of the GPU for later goes back with it: the next holder may be another process. A server
    without the limit lets every run in. A slot whose holder was killed is free again when its lease of five minutes is
    over.
    """
    if device is None or device.type != "cuda":
        yield
        return
    with concurrency(LIMIT, occupy=1):
        try:
            yield
        finally:
            gc.collect()
            # Who holds a slot has imported torch; who only reads the name of the limit need not.
            import torch

            torch.cuda.empty_cache()
