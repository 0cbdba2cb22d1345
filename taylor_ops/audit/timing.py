"""Time what is left of the slowdown: a rebuilt model, or a compiled bundle, in turn with the original."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from taylor_ops.attacks.conditions import Conditions
from taylor_ops.audit.record import Compiled, Timed
from taylor_ops.errors import WorkFailed
from taylor_ops.latency.judging import slowdown_of, timed_pairs
from taylor_ops.latency.timing import pairs_of
from taylor_ops.machine.devices import device_description
from taylor_ops.model.loading import is_partly_on_disk, load_in_memory
from taylor_ops.progress import Progress, silent
from taylor_ops.storage.files import read_json

# This is one figure among others. To settle it as finely as the promised slowdown would take minutes.
_TOLERANCE = 0.1
_MOST_PAIRS = 33
_LONGEST = 10.0
_REASON_LETTERS = 200


def timed(first: Any, second: Any, conditions: Conditions, progress: Progress = silent) -> Timed | None:
    """Time `second` against the original `first`, at the batch size and prompt length of the release, in short pairs.

    Returns None if layers are on the disk, because the disk would be timed then. On a noisy machine the interval stays
    wide. This does not end a release, because no promise rests on the interval.
    """
    if any(map(is_partly_on_disk, (first, second))):
        return None
    latency, seed = conditions.latency, conditions.seed
    most = max(latency.pairs, min(latency.max_pairs, _MOST_PAIRS))
    settings = latency.model_copy(
        update={
            "tolerance": max(latency.tolerance, _TOLERANCE),
            "max_pairs": most,
            "disturbance": 1.0,
        }
    )
    pairs = pairs_of(first, second, settings, seed)
    original, other, settled = timed_pairs(pairs, settings, progress, longest=_LONGEST)
    slowdown, interval = slowdown_of(original, other, seed)
    return Timed(
        slowdown=slowdown,
        ci95=interval,
        settled=settled,
        device=device_description(first.device),
        seconds_original=tuple(original),
        seconds_other=tuple(other),
    )


def timed_compiled(original: Path, bundle: Path, conditions: Conditions) -> Compiled | None:
    """Time what is left of the slowdown for a user who compiles the bundle.

    Returns None if memory does not hold both models. Raises `WorkFailed` if `torch.compile` does not work on this
    machine.
    """
    dtype = read_json(bundle / "config.json")["dtype"]
    loaded = load_in_memory(original, bundle, dtype, conditions.device)
    if loaded is None:
        return None
    plain, bundled = loaded
    try:
        alone = timed(plain, compiled(bundled), conditions)
        both = timed(compiled(plain), bundled, conditions)
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = " ".join(str(error).split())[:_REASON_LETTERS]
        raise WorkFailed(
            f"`latency.compiled` is set, and `torch.compile` does not work here: {reason}",
            "install a C++ compiler, or leave `latency.compiled` out",
        ) from error
    return None if alone is None or both is None else Compiled(alone=alone, both=both)


def compiled(model: Any) -> Any:
    """Compile a loaded model in place, as a user does who wants it fast."""
    # Each layer of a bundle has its own orders, and so compiles to its own code.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 256)
    model.compile(dynamic=True)
    return model
