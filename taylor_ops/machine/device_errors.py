"""Errors of the device that computes: told apart from errors of a model, and explained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from taylor_ops.errors import WorkFailed

# Since torch 2.8 CUDA errors have a type of their own. In older versions, and for CUDA libraries, only the text of the
# error identifies them.
_OF_THE_DEVICE: type[BaseException] = getattr(torch, "AcceleratorError", torch.OutOfMemoryError)
_LIBRARIES = ("cublas", "cudnn", "cusolver", "cusparse")
_NO_ROOM_ON_THE_CPU = "DefaultCPUAllocator: "


def is_of_the_device(error: BaseException) -> bool:
    """Whether an error says that the device failed or ran out of memory, whatever ran on it."""
    if isinstance(error, _OF_THE_DEVICE) or _ran_out(error):
        return True
    text = str(error)
    of_library = any(library in text.lower() for library in _LIBRARIES)
    return isinstance(error, RuntimeError) and (text.startswith("CUDA") or of_library)


def _ran_out(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The other CUDA libraries word it in their own way.
    text = str(error)
    return isinstance(error, RuntimeError) and (_NO_ROOM_ON_THE_CPU in text or "ALLOC_FAILED" in text)


@contextmanager
def device_errors_explained(device: torch.device, work: str, less: str) -> Iterator[None]:
    """Turn an error of a device that fails or runs out of memory into a `WorkFailed` that says what to do.

    Args:
        device: The device that computes.
        work: The name of the work, for the message.
        less: What makes the work take less memory, as in "lower `calibration.batch_size`".
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
                f"{less}, or end other programs that use it, then run again",
            ) from error
        raise WorkFailed(
            f"{_named(device)} failed in {work}: {reason}",
            "look at the GPU and its driver (nvidia-smi, dmesg), then run again: finished layers are kept",
        ) from error


def _named(device: torch.device) -> str:
    """The device in words, with its name if a device that has failed still gives it."""
    if device.type != "cuda":
        return f"device `{device}`"
    try:
        return f"device `{device}` ({torch.cuda.get_device_name(device)})"
    except (RuntimeError, AssertionError):
        return f"device `{device}`"
