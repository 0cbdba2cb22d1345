"""Stand-ins for the clock: decode steps take what a test says."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from taylor_ops.latency.timing import Behind

Seconds = Callable[[Any, Any, int], float]


def of_each(seconds: Seconds) -> Callable[[Sequence[Any], Sequence[Behind], int], list[float]]:
    """What stands in for `decode_seconds`, where the seconds of a model, where it is, for some steps are known."""
    return lambda models, read, new_tokens: [
        seconds(model, behind, new_tokens) for model, behind in zip(models, read, strict=True)
    ]


def restless(middle: float, spread: float) -> Iterator[float]:
    """Ratios of a noisy machine: logarithms with a standard deviation of `spread` about that of `middle`."""
    chance = random.Random(0)
    while True:
        yield middle * math.exp(chance.gauss(0, spread))
