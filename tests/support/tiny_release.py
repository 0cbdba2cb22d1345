"""A tiny release: its config, a clock that is simulated, and a consumer in the process of the test."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import yaml

from taylor_ops.exactness.greedy import GREEDY
from taylor_ops.latency import timing
from taylor_ops.progress import Progress
from taylor_ops.verification import consumer
from tests.support.clocks import of_each


@of_each
def decode_seconds(model: Any, _behind: timing.Behind, new_tokens: int) -> float:
    """Stands in for the clock: a decode step takes as long as reading the model's bytes at 1 GB/s would."""
    return new_tokens * float(sum(p.numel() * p.element_size() for p in model.parameters())) / 1e9


def write_tiny_config(path: Path, model: Path) -> Path:
    """Write the config of a small release of the model in a folder."""
    document = {
        "name": "tiny",
        "version": "1.0.0",
        "source": {"kind": "folder", "path": str(model)},
        "calibration": {"tokens": 4096},
        "conversion": {"tolerance": 1e-4},
        "latency": {
            "target_slowdown": 6.0,
            "pairs": 11,
            "min_seconds": 0,
            "disturbance": 1.0,
            "also": [{"batch_size": 2, "prompt_tokens": 8}],
        },
        "exactness": {
            "prompts": [{"name": "project", "builtin": "held_out", "limit": 8}],
            "new_tokens": 12,
            "running_tokens": 128,
        },
        "audit": {"prompts": 4, "new_tokens": 8},
        "card": {"license": "mit"},
        "publish": {"repo_id": "org/tiny"},
    }
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


class InThisProcess:
    """Says the tokens of bundles here."""

    def continuations_of(
        self, bundle: Path, prompts: Sequence[Sequence[int]], new_tokens: int, _progress: Progress
    ) -> list[list[int]]:
        """What stands in for a process of its own."""
        return consumer.continued(str(bundle), [list(prompt) for prompt in prompts], new_tokens, GREEDY)


def in_this_process(_own: bool = True) -> AbstractContextManager[InThisProcess]:
    """What stands in for `clean_process`."""
    return nullcontext(InThisProcess())
