"""Stand-ins for the clock: decode steps take what a test says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Seconds = Callable[[Any, Any, int], float]


def of_each(seconds: Seconds) -> Callable[[Sequence[Any], Any, int], list[float]]:
    """What stands in for `decode_seconds`, where `seconds` of a model, a prompt and a number of steps is known."""
    return lambda models, prompt, new_tokens: [seconds(model, prompt, new_tokens) for model in models]
