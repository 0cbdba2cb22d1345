"""Time original and bundle in turn, and repeat a pair if other programs used the processor meanwhile."""

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

# A machine is too noisy if this many more pairs were disturbed than not, and if these took this many seconds. Shorter
# disturbances are waited out.
_TOO_MANY = 15
_TOO_LONG = 30.0


def waited() -> dict[str, float]:
    """Seconds that each thread of this process was ready but waited for a processor, by the thread's id.

    Empty if the system does not tell.
    """
    seconds = {}
    for thread in Path("/proc/self/task").glob("*/schedstat"):
        try:
            seconds[thread.parent.name] = int(thread.read_text(encoding="ascii").split()[1]) / 1e9
        except (FileNotFoundError, ProcessLookupError):
            # The thread has ended meanwhile.
            continue
    return seconds


class Undisturbed:
    """Times pairs until one is undisturbed: no thread waited for a processor longer than the share `most` of the time.

    Other programs do not slow both models equally. Raises `WorkFailed` if they disturb most of the pairs.

    Attributes:
        disturbed: How many pairs were timed again.
    """

    def __init__(self, pair: Callable[[], tuple[float, float]], most: float) -> None:
        self.disturbed = 0
        self._pair, self._most, self._taken, self._lost = pair, most, 0, 0.0

    def __call__(self) -> tuple[float, float]:
        # A wait that began before the pair counts in full, so even a limit of 1 could reject a short pair.
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
                    "end the other programs on this machine, then run again. In a container with a quota, or beside "
                    "programs that must stay, give torch no more threads than it has cores (OMP_NUM_THREADS). A config "
                    "may raise `latency.disturbance`, the largest share of waiting in a pair",
                )


def pairs_of(first: Any, second: Any, settings: Latency, seed: int) -> Undisturbed:
    """Let both models read a prompt and warm up, for pairs of times behind this prompt.

    Returns:
        An object whose call gives the seconds of `first` and of `second` for `new_tokens` decode steps, A B A B. No
        thread waited longer than the share `disturbance` of this time.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (settings.batch_size, settings.prompt_tokens)
    prompt = torch.randint(0, first.config.vocab_size, shape, generator=generator).to(first.device)
    models = first, second
    positions = [read_prompt(model, prompt) for model in models]

    def pair() -> tuple[float, float]:
        original, bundle = decode_seconds(models, [behind.again() for behind in positions], settings.new_tokens)
        return original, bundle

    for _ in range(settings.warmup):
        pair()
    return Undisturbed(pair, settings.disturbance)


def scaled(sample: Sample, model: Any, settings: Latency, times: float) -> Sample:
    """A function that times pairs for `times` as many layers: all of a decode step but the head grows with them."""
    head = model.get_output_embeddings()
    head_seconds(head, settings.batch_size, settings.new_tokens)

    def pair() -> tuple[float, float]:
        of_head = head_seconds(head, settings.batch_size, settings.new_tokens)
        original, bundle = (of_head + times * max(0.0, seconds - of_head) for seconds in sample())
        return original, bundle

    return pair


def head_seconds(head: Any, batch_size: int, new_tokens: int) -> float:
    """Seconds that the output embeddings of a model take by themselves in `new_tokens` decode steps."""
    weight = head.weight
    hidden = torch.zeros(batch_size, 1, head.in_features, dtype=weight.dtype, device=weight.device)
    clock = _Clock(hidden.device)
    with torch.inference_mode(), clock.running():
        for _ in range(new_tokens):
            head(hidden)
    return clock.seconds()


@dataclass
class Behind:
    """The place of a model in its text.

    Attributes:
        cache: What the model keeps of the tokens that it has read.
        token: The token [B, 1] that it reads next.
    """

    cache: Any
    token: torch.Tensor

    def again(self) -> Behind:
        """A copy of this place, from which a model can decode once more."""
        with torch.inference_mode():
            return copy.deepcopy(self)


def read_prompt(model: Any, prompt: torch.Tensor) -> Behind:
    """Let a model read a prompt [B, L]. Returns its place behind the prompt."""
    with torch.inference_mode():
        state = model(input_ids=prompt, use_cache=True, logits_to_keep=1)
        return Behind(state.past_key_values, state.logits[:, -1:].argmax(-1))


def decode_seconds(models: Sequence[Any], read: Sequence[Behind], new_tokens: int) -> list[float]:
    """Seconds that each model takes for `new_tokens` greedy decode steps. The models take turns, one step each.

    Args:
        models: The models to time.
        read: The place of each model in its text. The steps move it on.
        new_tokens: Number of decode steps of each model.
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
    """Measures seconds of one device.

    It uses CUDA events on the stream of a GPU, which need not be the current GPU, and the monotonic clock on a CPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time of the block. A GPU finishes its earlier work before the block begins."""
        if self._device.type == "cuda":
            # Each token of a text waits for the one before. Without this, the steps of the original would queue up
            # behind those of the bundle, and would be timed without the gaps that launching leaves in them.
            torch.cuda.synchronize(self._device)
            begin = self._now()
            yield
            self._events.append((begin, self._now()))
        else:
            start = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - start

    def seconds(self) -> float:
        """All seconds that were counted."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        milliseconds = sum(float(begin.elapsed_time(end)) for begin, end in self._events)
        return self._seconds + milliseconds / 1e3

    def _now(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event
