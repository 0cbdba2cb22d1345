"""The floor of each stage of a release: the plain passes, reads and writes that its work needs, timed one by one.

A floor has no series, no check and no search in it. Files are read and written in pieces, without a sync; hashing is
where the stage has to hash. A pass runs a model once over tokens, as transformers loads it, in batches of like length,
and makes logits where the stage compares them.
"""

from __future__ import annotations

import hashlib
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from taylor_ops.bundle.manifest import read_manifest
from taylor_ops.config.release import ReleaseConfig
from taylor_ops.config.source import FolderSource, GgufSource
from taylor_ops.machine.devices import device_named
from taylor_ops.model.loading import load_bundle, load_original, load_tokenizer
from taylor_ops.source.files import is_read
from taylor_ops.source.gguf import gguf_files
from taylor_ops.storage.artifacts import Artifacts, ReleaseFolder
from taylor_ops.storage.files import read_json
from taylor_ops.texts.prompts import prompts, sequences

Seconds = dict[str, list[float]]
"""Samples of each thing that a stage needs, by what it is."""

TIMES = 3
"""How often reads, writes and loads are timed. Passes are timed once: they last long enough."""
_PIECE = 8 << 20
_BATCH_TOKENS = 4096


def floor_of(needs: Seconds) -> float:
    """The floor of a stage: the sum of the medians of what it needs."""
    return sum(statistics.median(samples) for samples in needs.values())


@dataclass(frozen=True)
class Floors:
    """The floors of the stages of a release that is finished.

    Attributes:
        config: The release config.
        artifacts: The artifacts folder of the release.
        scratch: A folder for what is written, on the same disk.
    """

    config: ReleaseConfig
    artifacts: Path
    scratch: Path

    def measured(self) -> dict[str, Seconds]:
        """What each stage needs, by the name of the stage. `calibrate + transfer` share their models."""
        original, bundle = self._files(self._original), self._files(self._bundle)
        self._read(bundle)  # All that is timed reads what memory holds already.
        reading = {"read of the original": self._read(original), "read of the bundle": self._read(bundle)}
        loading = self._loading()
        return {
            "resolve": {"read of the source": self._read(self._source), "write of the original": self._write(original)},
            "capture": {
                "read of the original": reading["read of the original"],
                "pass of the original over the calibration tokens": self._passes(
                    self._load_original, self._calibration
                ),
            },
            "calibrate + transfer": loading | {"the decode steps that were timed": [self._decoded()]},
            "convert": {
                "read of the original": reading["read of the original"],
                "write of the bundle": self._write(bundle),
            },
            "validate": self._validated(),
            "audit": reading,
            "assemble": {"hash of the bundle": self._hash()},
            "leaks": reading,
            "publish": {
                "read of the bundle": reading["read of the bundle"],
                "write of the bundle": self._write(bundle),
            },
            "verify": {
                "hash of the bundle": self._hash(),
                "load of the bundle": loading["load of the bundle"],
                "pass over the recorded continuations": self._passes(self._load_bundle, self._recorded),
            },
        }

    # What there is

    @cached_property
    def _original(self) -> Path:
        return Path(read_json(self._release.memory("resolve"))["record"]["folder"])

    @cached_property
    def _bundle(self) -> Path:
        return self._release.version(self.config.version).bundle

    @property
    def _release(self) -> ReleaseFolder:
        return Artifacts(self.artifacts).release(self.config.name)

    @property
    def _source(self) -> list[Path]:
        """The files of a source on this machine. A download is nothing that this machine does."""
        source = self.config.source
        if isinstance(source, GgufSource):
            return gguf_files(source)
        return (
            [path for path in self._files(source.path) if is_read(path.name)]
            if isinstance(source, FolderSource)
            else []
        )

    @staticmethod
    def _files(folder: Path) -> list[Path]:
        return sorted(path for path in folder.rglob("*") if path.is_file())

    def _decoded(self) -> float:
        """Seconds of all decode steps that the two stages timed and kept."""
        notes = [self._release.memory(stage) for stage in ("calibrate", "transfer")]
        return sum(_samples([read_json(note)["record"] for note in notes if note.is_file()]))

    # What is plain

    def _read(self, files: Sequence[Path]) -> list[float]:
        def read() -> None:
            for path in files:
                with path.open("rb", buffering=0) as stream:
                    while stream.read(_PIECE):
                        pass

        return [_timed(read) for _time in range(TIMES)]

    def _write(self, like: Sequence[Path]) -> list[float]:
        """Write files of the sizes of others."""
        sizes = [path.stat().st_size for path in like]
        piece = memoryview(random.Random(0).randbytes(_PIECE))

        def write() -> None:
            for number, size in enumerate(sizes):
                with (Path(folder) / str(number)).open("wb", buffering=0) as stream:
                    for start in range(0, size, _PIECE):
                        stream.write(piece[: size - start])

        samples = []
        for _time in range(TIMES):
            with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
                samples.append(_timed(write))
        return samples

    def _hash(self) -> list[float]:
        def hash_files() -> None:
            # Not `sha256_of_tree`: it reads a file once in a process.
            with ThreadPoolExecutor() as threads:
                list(threads.map(_sha256, self._files(self._bundle)))

        return [_timed(hash_files) for _time in range(TIMES)]

    # What the models do

    def _load_original(self) -> Any:
        return load_original(self._original, self.config.conversion.dtype, self._device)

    def _load_bundle(self) -> Any:
        return load_bundle(self._bundle, self._device)

    @cached_property
    def _device(self) -> torch.device:
        return device_named(self.config.device)

    def _loading(self) -> Seconds:
        return {
            "load of the original": [_timed(self._load_original) for _time in range(TIMES)],
            "load of the bundle": [_timed(self._load_bundle) for _time in range(TIMES)],
        }

    def _validated(self) -> Seconds:
        """The original's tokens are compared with those of the bundle and, for the noise floor, with its own."""
        original = self._passes(self._load_original, self._held_out)
        return {
            "pass of the original": original,
            "pass of the original for the noise floor": original,
            "pass of the bundle": self._passes(self._load_bundle, self._held_out),
        }

    def _passes(self, load: Callable[[], Any], batches: Callable[[], list[Batch]]) -> list[float]:
        model, asked = load(), batches()

        @torch.inference_mode()
        def run() -> None:
            for batch in asked:
                batch.run(model)

        return [_timed(run)]

    def _calibration(self) -> list[Batch]:
        given, tokenizer = self.config.calibration, load_tokenizer(self._original)
        texts = sequences(given.texts, tokenizer, given.tokens, given.sequence_tokens)
        return _batches(texts, 0, self._device)

    def _held_out(self) -> list[Batch]:
        """Every prompt with as many tokens after it as are compared: its own once more, as any cost the same."""
        tokenizer, new = load_tokenizer(self._original), self.config.exactness.new_tokens
        asked = [one.tokens for source in self.config.exactness.prompts for one in prompts(source, tokenizer)]
        return _batches(
            [(tokens * (1 + new // len(tokens) + 1))[: len(tokens) + new] for tokens in asked], new, self._device
        )

    def _recorded(self) -> list[Batch]:
        recorded = read_manifest(self._bundle)["exactness"]["continuations"]
        new = max(len(one["new_tokens"]) for one in recorded)
        return _batches([(*one["prompt_tokens"], *one["new_tokens"]) for one in recorded], new, self._device)


@dataclass(frozen=True)
class Batch:
    """Token ids [B, T], padded on the left, their mask, and for how many of the last tokens logits are made."""

    ids: torch.Tensor
    mask: torch.Tensor
    logits: int

    def run(self, model: Any) -> None:
        """One pass of a model."""
        given = {"input_ids": self.ids, "attention_mask": self.mask, "use_cache": False}
        if self.logits:
            model(**given, logits_to_keep=self.logits)
        else:
            model.base_model(**given)


def _batches(texts: Sequence[tuple[int, ...]], logits: int, device: torch.device) -> list[Batch]:
    """Texts of like length together, at most 4096 padded tokens in a batch. A longer text is a batch of its own."""
    groups: list[list[tuple[int, ...]]] = []
    for text in sorted(texts, key=len):
        if not groups or len(text) * (len(groups[-1]) + 1) > _BATCH_TOKENS:
            groups.append([])
        groups[-1].append(text)
    batches = []
    for group in groups:
        width = len(group[-1])
        ids = torch.tensor([(0,) * (width - len(text)) + text for text in group], device=device)
        mask = torch.tensor([[0] * (width - len(text)) + [1] * len(text) for text in group], device=device)
        batches.append(Batch(ids, mask, logits))
    return batches


def _samples(record: Any) -> Iterator[float]:
    """Every sample of a record, at any depth: the numbers under keys such as `seconds_bundle`."""
    if isinstance(record, list):
        for one in record:
            yield from _samples(one)
    elif isinstance(record, dict):
        for key, value in record.items():
            yield from _numbers(value) if key.startswith("seconds_") else _samples(value)


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, list):
        for one in value:
            yield from _numbers(one)
    else:
        yield float(value)


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
