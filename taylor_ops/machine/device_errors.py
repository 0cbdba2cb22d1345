"""Errors of the device that computes: told from those of a model, and explained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from taylor_ops.errors import WorkFailed

# Since torch 2.8 errors of CUDA have a type of their own; before, they are told by their text, as of its libraries.
_OF_THE_DEVICE: type[BaseException] = getattr(torch, "AcceleratorError", torch.OutOfMemoryError)
_LIBRARIES = ("cublas", "cudnn", "cusolver", "cusparse")
_NO_ROOM_ON_THE_CPU = "DefaultCPUAllocator: "


def is_of_the_device(error: BaseException) -> bool:
    """Whether an error says that the device failed or had no room, whatever ran on it."""
    if isinstance(error, _OF_THE_DEVICE) or _ran_out(error):
        return True
    said = str(error)
    of_library = any(library in said.lower() for library in _LIBRARIES)
    return isinstance(error, RuntimeError) and (said.startswith("CUDA") or of_library)


def _ran_out(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # Other libraries of CUDA have words of their own for it.
    said = str(error)
    return isinstance(error, RuntimeError) and (_NO_ROOM_ON_THE_CPU in said or "ALLOC_FAILED" in said)


@contextmanager
def device_errors_explained(device: torch.device, work: str, less: str) -> Iterator[None]:
    """Turn a device that fails, or has no room, into an error that says where, in which `work`, and what to do.

    less: what makes the work take less memory, as in "lower `calibration.batch_size`".
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_of_the_device(error):
            raise
        reason = " ".join(str(error).splitlines()[:1]) or type(error).__name__
        if _ran_out(error):
            raise WorkFailed(
                f"{work} ran out of the memory of {_named(device)}: {reason}",
                f"{less}, or end what else is at work there, then run again",
            ) from error
        raise WorkFailed(
            f"{_named(device)} failed in {work}: {reason}",
            "look at the GPU and its driver (nvidia-smi, dmesg), then run again: finished layers are kept",
        ) from error


def _named(device: torch.device) -> str:
    """The device in words, as far as one that has failed still says."""
    if device.type != "cuda":
        return f"device `{device}`"
    try:
        return f"device `{device}` ({torch.cuda.get_device_name(device)})"
    except (RuntimeError, AssertionError):
        return f"device `{device}`"
