"""Time original and bundle in turn, and time a pair again when other programs used the processor meanwhile."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from taylor_ops.config.latency import Latency
from taylor_ops.errors import WorkFailed
from taylor_ops.latency.judging import Sample

# So many more pairs disturbed than not, and so many seconds of them: what a machine does now and then is sat out.
_TOO_MANY = 15
_TOO_LONG = 60.0


def waited() -> dict[str, float]:
    """Seconds that each thread of this process was ready and waited for a processor; empty where nothing tells."""
    seconds = {}
    for thread in Path("/proc/self/task").glob("*/schedstat"):
        try:
            seconds[thread.parent.name] = int(thread.read_text(encoding="ascii").split()[1]) / 1e9
        except (FileNotFoundError, ProcessLookupError):
            # A thread that has ended meanwhile.
            continue
    return seconds


class Undisturbed:
    """Times pairs until one is undisturbed: none of its threads waited for more than a share of the time, `most`.

    disturbed: how many pairs were timed again. Raises `WorkFailed` where most of them are.
    """

    def __init__(self, pair: Callable[[], tuple[float, float]], most: float) -> None:
        self.disturbed = 0
        self._pair, self._most, self._taken, self._lost = pair, most, 0, 0.0

    def __call__(self) -> tuple[float, float]:
        # A wait that began before the pair is counted in it: of a short one it may be more than all.
        if self._most >= 1:
            return self._pair()
        while True:
            before, start = waited(), time.monotonic()
            seconds = self._pair()
            lasted = time.monotonic() - start
            longest = max((now - before.get(thread, 0.0) for thread, now in waited().items()), default=0.0)
            if longest <= self._most * lasted:
                self._taken += 1
                return seconds
            self.disturbed += 1
            self._lost += lasted
            if self.disturbed - self._taken > _TOO_MANY and self._lost > _TOO_LONG:
                raise WorkFailed(
                    "the machine is too noisy to time a slowdown: this process waited for a processor in "
                    f"{self.disturbed} of {self.disturbed + self._taken} pairs, in the last for {longest / lasted:.0%} "
                    "of the time",
                    "end what else runs on this machine; in a container with a quota, or beside programs that stay, "
                    "give torch no more threads than there are cores for it (OMP_NUM_THREADS); then run again. A "
                    "config may set `latency.disturbance`, the share that is too much",
                )


def pairs_of(first: Any, second: Any, settings: Latency, seed: int) -> Undisturbed:
    """Let both models read a prompt and warm up; each call of what is returned gives the seconds of both behind it.

    They are those of `new_tokens` decode steps, A B A B, with no more than `disturbance` of them.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (settings.batch_size, settings.prompt_tokens)
    prompt = torch.randint(0, first.config.vocab_size, shape, generator=generator).to(first.device)
    models = first, second
    read = [read_prompt(model, prompt) for model in models]

    def pair() -> tuple[float, float]:
        original, bundle = decode_seconds(models, [behind.again() for behind in read], settings.new_tokens)
        return original, bundle

    for _ in range(settings.warmup):
        pair()
    return Undisturbed(pair, settings.disturbance)


def scaled(sample: Sample, model: Any, settings: Latency, times: float) -> Sample:
    """Seconds for `times` as many layers as were timed: what a step takes beside the head grows with them."""
    head = model.get_output_embeddings()
    head_seconds(head, settings.batch_size, settings.new_tokens)

    def pair() -> tuple[float, float]:
        outside = head_seconds(head, settings.batch_size, settings.new_tokens)
        original, bundle = (outside + times * max(0.0, seconds - outside) for seconds in sample())
        return original, bundle

    return pair


def head_seconds(head: Any, batch_size: int, new_tokens: int) -> float:
    """Seconds that the output embeddings of a model alone take in `new_tokens` decode steps."""
    weight = head.weight
    hidden = torch.zeros(batch_size, 1, head.in_features, dtype=weight.dtype, device=weight.device)
    clock = _Clock(hidden.device)
    with torch.inference_mode(), clock.running():
        for _ in range(new_tokens):
            head(hidden)
    return clock.seconds()


@dataclass
class Behind:
    """Where a model is in its text: what it keeps of what it has read, and the token [B, 1] that it reads next."""

    cache: Any
    token: torch.Tensor

    def again(self) -> Behind:
        """The same place, to go on from once more."""
        with torch.inference_mode():
            return copy.deepcopy(self)


def read_prompt(model: Any, prompt: torch.Tensor) -> Behind:
    """Let a model read a prompt [B, L]."""
    with torch.inference_mode():
        state = model(input_ids=prompt, use_cache=True, logits_to_keep=1)
        return Behind(state.past_key_values, state.logits[:, -1:].argmax(-1))


def decode_seconds(models: Sequence[Any], read: Sequence[Behind], new_tokens: int) -> list[float]:
    """Seconds that each model takes for `new_tokens` greedy decode steps behind what it has `read`, which grow by them.

    Each in turn makes one step.
    """
    clocks = [_Clock(behind.token.device) for behind in read]
    with torch.inference_mode():
        for _ in range(new_tokens):
            for model, behind, clock in zip(models, read, clocks, strict=True):
                with clock.running():
                    state = model(input_ids=behind.token, past_key_values=behind.cache, use_cache=True)
                    behind.cache, behind.token = state.past_key_values, state.logits[:, -1:].argmax(-1)
    return [clock.seconds() for clock in clocks]


class _Clock:
    """CUDA events on the stream of a GPU, which need not be the current one; the monotonic clock on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what the block takes. A GPU has nothing else to do when it begins."""
        if self._device.type == "cuda":
            # Each token of a text waits for the one before. Else the steps of the original would queue up behind those
            # of the bundle, and be timed without the gaps that launching leaves in them.
            torch.cuda.synchronize(self._device)
            begin = self._now()
            yield
            self._events.append((begin, self._now()))
        else:
            start = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - start

    def seconds(self) -> float:
        """All that was counted."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        milliseconds = sum(float(begin.elapsed_time(end)) for begin, end in self._events)
        return self._seconds + milliseconds / 1e3

    def _now(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event
