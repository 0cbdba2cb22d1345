"""The concurrency limit `gpu`: a stage that computes on a GPU holds a slot of it only while it works."""

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
    """Wait for a slot and hold it for the block. Work that uses no GPU needs no slot.

    The GPU memory that torch has cached is freed with the slot, because the next holder may be another process. A
    server without the limit lets every run in. If its holder is killed, a slot is free again after its lease of five
    minutes.
    """
    if device is None or device.type != "cuda":
        yield
        return
    with concurrency(LIMIT, occupy=1):
        try:
            yield
        finally:
            gc.collect()
            # Imported here, because a command that only reads the name of the limit must not load torch.
            import torch

            torch.cuda.empty_cache()
