"""What the command `doctor` looks at on this machine and on the Hub: one function for each thing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError
from packaging.specifiers import SpecifierSet

from taylor_ops.masking import note_secret
from taylor_ops.preflight.probed import Probed
from taylor_ops.storage.files import size

_LEAST_DISK, _ROOMY_DISK = 10**9, 20 * 10**9
_BUSY = 0.25
_SECONDS_OF_THE_HUB = 4.0
_ANOTHER_TOKEN = "make one on https://huggingface.co/settings/tokens, then set HF_TOKEN or log in with `hf auth login`"


def python() -> Probed:
    """Whether this project runs under this Python."""
    version, wanted = platform.python_version(), SpecifierSet(metadata("taylor-release")["Requires-Python"])
    found = f"{version} in {sys.prefix}"
    if version in wanted:
        return Probed(what="Python", state="fine", found=found)
    return Probed(what="Python", state="lacking", found=found, remedy=f"install a Python {wanted}")


def torch() -> Probed:
    """Whether torch can be loaded, and on which device it computes."""
    what = "torch"
    try:
        import torch as library
    except (ImportError, OSError) as error:
        remedy = "install torch for this machine, as https://pytorch.org/get-started says"
        return Probed(what=what, state="lacking", found=f"cannot be loaded: {error}", remedy=remedy)
    from taylor_ops.machine.devices import device_description, device_named, free_memory

    device = device_named("auto")
    found = f"{library.__version__} on {device_description(device)}, {size(free_memory(device))} of memory free"
    if device.type == "cpu" and shutil.which("nvidia-smi"):
        remedy = "install a torch that is built for CUDA, or see CUDA_VISIBLE_DEVICES and the driver"
        return Probed(what=what, state="warning", found=f"{found}, although there is a GPU", remedy=remedy)
    return Probed(what=what, state="fine", found=found)


def disk(artifacts: Path) -> Probed:
    """How much room there is for the artifacts folder, which need not exist yet."""
    what = "disk"
    place = next(folder for folder in (artifacts.absolute(), *artifacts.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    found = f"{size(free)} free in {place}"
    if not os.access(place, os.W_OK):
        remedy = "give another folder as --artifacts, or the right to write there"
        return Probed(what=what, state="lacking", found=f"{found}, where nothing may be written", remedy=remedy)
    if free >= _ROOMY_DISK:
        return Probed(what=what, state="fine", found=found)
    remedy = "free space, `taylor-release clean` removes old runs; `plan` says how much a release needs"
    return Probed(what=what, state="lacking" if free < _LEAST_DISK else "warning", found=found, remedy=remedy)


def cores() -> Probed:
    """How many cores there are, and how busy they are: slowdowns are measured on them."""
    number = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    what, found = "cores", f"{number}"
    if not hasattr(os, "getloadavg"):
        return Probed(what=what, state="fine", found=found)
    load = os.getloadavg()[0]
    found += f", a load of {load:.1f} over the last minute"
    if load <= _BUSY * number:
        return Probed(what=what, state="fine", found=found)
    remedy = "end other programs before a release: it waits for a quiet machine to measure slowdowns"
    return Probed(what=what, state="warning", found=found, remedy=remedy)


def compiler() -> Probed:
    """Whether there is a C++ compiler, with which `torch.compile` works on a processor."""
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    found = shutil.which(name)
    if found is not None:
        return Probed(what="compiler", state="fine", found=found)
    said = f"there is no {name}, which `latency.compiled` alone needs"
    return Probed(what="compiler", state="warning", found=said, remedy=f"install {name}, or name another one in CXX")


def hub() -> Probed:
    """Whether the Hub answers."""
    what, place = "Hub", constants.ENDPOINT
    remedy = "see the network, its proxy and HF_ENDPOINT; a release from a folder into a folder needs no Hub"
    if constants.HF_HUB_OFFLINE:
        return Probed(what=what, state="warning", found="HF_HUB_OFFLINE is set", remedy="unset it to use the Hub")
    try:
        answer = httpx2.head(place, timeout=_SECONDS_OF_THE_HUB)
    except httpx2.HTTPError as error:
        said = f"{place} does not answer: {type(error).__name__}: {error}"
        return Probed(what=what, state="warning", found=said, remedy=remedy)
    if answer.status_code >= 500:
        said = f"{place} answers with status {answer.status_code}"
        return Probed(what=what, state="warning", found=said, remedy="wait, then look again")
    return Probed(what=what, state="fine", found=f"{place} answers")


def token() -> Probed:
    """Whether there is a token for the Hub, whose it is, and whether it may publish. Says nothing of its value."""
    what, value = "token", get_token()
    if value is None:
        said = "there is none: public sources work; gated ones and `publish.target: hub` do not"
        return Probed(what=what, state="warning", found=said, remedy=_ANOTHER_TOKEN)
    note_secret(value)
    unknown = "there is one; what it may do is not known"
    if constants.HF_HUB_OFFLINE:
        return Probed(what=what, state="fine", found=f"{unknown}: HF_HUB_OFFLINE is set")
    try:
        who: dict[str, Any] = HfApi().whoami(token=value)
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            said = "there is one, but the Hub does not accept it"
            return Probed(what=what, state="warning", found=said, remedy=_ANOTHER_TOKEN)
        said = f"{unknown}: the Hub answers with status {error.response.status_code}"
        return Probed(what=what, state="warning", found=said, remedy="wait, then look again")
    except (httpx2.HTTPError, OSError, ValueError) as error:
        remedy = "see the network and HF_ENDPOINT"
        return Probed(what=what, state="warning", found=f"{unknown}: {type(error).__name__}", remedy=remedy)
    rights = set(_rights(who))
    found = f"of {who.get('name', 'an account without a name')}, may {' and '.join(sorted(rights)) or 'do nothing'}"
    if "write" in rights:
        return Probed(what=what, state="fine", found=found)
    return Probed(what=what, state="warning", found=f"{found}, so not publish on the Hub", remedy=_ANOTHER_TOKEN)


def _rights(who: dict[str, Any]) -> Iterator[str]:
    """`read` and `write`, as far as a token may do that with any repository."""
    about = (who.get("auth") or {}).get("accessToken") or {}
    role = about.get("role")
    if role in ("read", "write"):
        yield "read"
    if role == "write":
        yield "write"
    fine = about.get("fineGrained") or {}
    scoped = [permission for scope in fine.get("scoped", ()) for permission in scope.get("permissions", ())]
    for permission in (*fine.get("global", ()), *scoped):
        if permission == "repo.write":
            yield "write"
        if permission in ("repo.content.read", "repo.write"):
            yield "read"
