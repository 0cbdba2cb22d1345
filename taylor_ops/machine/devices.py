"""Devices and data types: which one a config means, what it is called, and how much memory it has."""

from __future__ import annotations

import gc
import platform
import re
from functools import cache
from pathlib import Path

import psutil
import torch

from taylor_ops.config.section import DEVICE
from taylor_ops.errors import BadInput


def device_description(device: torch.device) -> str:
    """The device in words for reports: the name of the GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.machine()
    return f"{model}, {torch.get_num_threads()} threads"


_ROOM = 0.8


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def device_named(name: str) -> torch.device:
    """The device that the config or the command line names. `auto` is a GPU if there is one.

    Raises `BadInput` if the device does not exist here or is of another kind.
    """
    if re.fullmatch(DEVICE, name) is None:
        raise BadInput(f"device `{name}` is not known", "name one of auto, cpu, cuda and cuda:N")
    available = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    if name.startswith("cuda") and not available:
        raise BadInput(
            f"device `{name}`: no GPU is visible here", "set `device: cpu` or `auto`, or run on a GPU worker"
        )
    device, count = torch.device(name), torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        visible = "cuda:0 alone" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise BadInput(
            f"device `{name}`: {visible} can be seen here", "name one of those, or check CUDA_VISIBLE_DEVICES"
        )
    return device


def room_for_weights(device: torch.device) -> int:
    """Bytes of a device that weights may take."""
    return room_in(free_memory(device))


def room_in(free: int) -> int:
    """Bytes that weights may take of `free` bytes. Activations, caches and logits need the rest."""
    return int(_ROOM * free)


def free_memory(device: torch.device) -> int:
    """Bytes of memory that are free on a device, including those that torch reserves for future tensors."""
    # Models hold references to themselves, so an unused model stays in memory until it is collected.
    gc.collect()
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    return int(psutil.virtual_memory().available)


def processor(device: torch.device) -> str:
    """What decides the last bits of results of a device: the model of a GPU, or the maker and instructions of a CPU.

    The number of threads is not part of it. It may change a last bit, but that is no reason to repeat hours of work.
    """
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"{device.type} {_maker()} {torch.backends.cpu.get_cpu_capability()}"


@cache
def _maker() -> str:
    """The maker of the CPU, by which a BLAS chooses how it multiplies, or the kind of machine if it is not known."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    found = re.search(r"^(?:vendor_id|CPU implementer)\s*:\s*(\S+)", cpuinfo, re.MULTILINE)
    return found[1] if found else platform.machine()


CPU = torch.device("cpu")
