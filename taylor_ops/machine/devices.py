"""Devices and data types: which one a config means, what it is called, and how much room it has."""

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
    """The device that the config or the command line names; `auto` is a GPU where there is one.

    Raises `BadInput` for one that is not here, or of another kind.
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
        there = "cuda:0 alone" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise BadInput(f"device `{name}`: {there} can be seen here", "name one of those, or check CUDA_VISIBLE_DEVICES")
    return device


def room_for_weights(device: torch.device) -> int:
    """Bytes of a device that weights may take."""
    return room_in(free_memory(device))


def room_in(free: int) -> int:
    """Bytes that weights may take where so many are free: activations, caches and logits need the rest."""
    return int(_ROOM * free)


def free_memory(device: torch.device) -> int:
    """Bytes of memory that are free on a device, those among them that torch holds for tensors to come."""
    # Models hold themselves in circles: one that nothing else holds is there until it is collected.
    gc.collect()
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    return int(psutil.virtual_memory().available)


def processor(device: torch.device) -> str:
    """What decides the last bits of what a device computes: the model of a GPU, maker and instructions of a CPU.

    Not the number of threads, though it may move a last bit: it is no reason to repeat hours of work.
    """
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"{device.type} {_maker()} {torch.backends.cpu.get_cpu_capability()}"


@cache
def _maker() -> str:
    """Who made the CPU, by which a BLAS chooses how it multiplies; the kind of machine where that is not known."""
    try:
        described = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    found = re.search(r"^(?:vendor_id|CPU implementer)\s*:\s*(\S+)", described, re.MULTILINE)
    return found[1] if found else platform.machine()


CPU = torch.device("cpu")
