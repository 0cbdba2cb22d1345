"""The conditions under which an audit measures other models than the bundle."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from taylor_ops.config.exactness import Exactness
from taylor_ops.config.latency import Latency
from taylor_ops.config.texts import TextSource


@dataclass(frozen=True)
class Conditions:
    """What an audit needs besides the original, the bundle and its settings.

    Attributes:
        sources: Held-out prompts on which a rebuilt model is compared with the original.
        latency: Sizes at which models are timed.
        device: Where models run.
        seed: Seed of the timings and of their intervals.
        work: Path beside which a rebuilt model, as large as the original, is kept for a while.
        task: Text for the attacks that train.
        continuations: The original's greedy tokens by the tokens of the prompt, as far as an earlier stage has found
            them.
    """

    sources: Sequence[TextSource] = Exactness().prompts
    latency: Latency = field(default_factory=Latency)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int = 0
    work: Path = field(default_factory=lambda: Path(tempfile.gettempdir()) / "taylor-audit")
    task: Sequence[TextSource] = Exactness().running_text
    continuations: Mapping[tuple[int, ...], tuple[int, ...]] = field(default_factory=dict)
