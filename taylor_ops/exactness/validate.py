"""Compare the tokens of original and bundle, against the original's own noise floor.

The original continues every prompt greedily. Then each text, prompt and continuation, runs once through the bundle, and
once through the original in another legitimate execution: in one pass, in other batches and with plain attention (the
noise floor). Given the same text up to a step, a model decodes the token that is most probable at this step. KL,
log-prob differences and top-1 agreement are taken up to the first divergence.

A pass over many tokens does not use the kernels of a decode step. The bundle therefore decodes after one prompt of
every kind alone and step by step, as its users do, for 8 tokens before it reads the rest. Its MLPs also get single
tokens of the original on their own (`LayerErrors`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AutoTokenizer, GenerationConfig

from taylor_ops.config.exactness import Exactness
from taylor_ops.conversion.terms import Subject
from taylor_ops.errors import GateRejected
from taylor_ops.exactness.generation import (
    Continuation,
    batches,
    continue_greedily,
    continued_along,
    decoded_along,
    padding_token,
)
from taylor_ops.exactness.layers import LayerErrors, RangeCounts, limits_of
from taylor_ops.exactness.perplexity import perplexities
from taylor_ops.exactness.record import (
    DataSetExactness,
    ExactnessRecord,
    RangeUse,
    RecordedContinuation,
)
from taylor_ops.exactness.tally import Tally
from taylor_ops.model.loading import load_both, load_tokenizer
from taylor_ops.model.mlp_hooks import Role, watched
from taylor_ops.progress import Done, Progress
from taylor_ops.series.ranges import read_ranges
from taylor_ops.texts.prompts import SEQUENCE_TOKENS, Prompt, prompts, sequences

_RECORDED_CONTINUATIONS = 4
_DECODED_TOKENS = 8


TIE_RULE = (
    "a divergence is a numerical tie when the original puts its own token before the other one by no more than twice "
    "the largest log-prob difference that the original shows against itself in the noise-floor run"
)


def validate(
    subject: Subject,
    bundle: Path,
    settings: Exactness,
    device: torch.device,
    progress: Progress,
    scratch: Path | None = None,
) -> ExactnessRecord:
    """Compare the bundle with the original on every data set. `require_exact` judges the result.

    Raises:
        GateRejected: The tokenizer of the bundle gives a text other tokens than that of the original, or the bundle
            cannot generate as its own generation config says.

    Args:
        subject: The original, the file of its captured ranges, and how it is converted.
        bundle: Folder of the converted model.
        settings: The prompts, the texts and the batch sizes.
        device: Device that holds both models.
        progress: Receives the number of texts that a model has finished, and the number of all.
        scratch: Folder in which `load_both` may put what memory does not hold. The caller removes it. None: a temporary
            folder.
    """
    with ExitStack() as stack:
        work = scratch or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taylor-validate-")))
        _require_same_ids(subject.original.folder, bundle, settings)
        with _generation_config_named(bundle):
            models = load_both(subject.original.folder, bundle, subject.conversion.dtype, device, work)
        _require_used_once(models[1], bundle)
        return _compared(subject, models, settings, progress)


def _require_same_ids(original: Path, bundle: Path, settings: Exactness) -> None:
    theirs, own = load_tokenizer(original), load_tokenizer(bundle)
    for source in (*settings.prompts, *settings.running_text):
        found = {text.id: text.tokens for text in prompts(source, own)}
        for text in prompts(source, theirs):
            if found.get(text.id) != text.tokens:
                raise GateRejected(
                    f"{bundle}: its tokenizer gives text {text.id} of `{source.name}` other tokens than that of the "
                    "original",
                    "correct the tokenizer files of the source, which contradict each other",
                )


@contextmanager
def _generation_config_named(bundle: Path) -> Iterator[None]:
    """Tell an error of loading that comes from the generation config of the bundle from all others."""
    path = bundle / "generation_config.json"
    try:
        yield
    except (ValueError, TypeError, AttributeError) as error:
        try:
            if path.is_file():
                GenerationConfig.from_pretrained(bundle, local_files_only=True)
        except (OSError, ValueError, TypeError, AttributeError) as refused:
            raise GateRejected(
                f"{path} is refused by transformers: {' '.join(str(refused).split())}",
                "correct the generation config of the source",
            ) from error
        raise


def _require_used_once(model: Any, bundle: Path) -> None:
    """Load the tokenizer of the converted model and generate once as its own generation config says, as readers do."""
    tokenizer = AutoTokenizer.from_pretrained(bundle, local_files_only=True, trust_remote_code=False)
    ids = torch.tensor([tokenizer("Hello")["input_ids"] or [0]], device=model.device)
    try:
        with torch.random.fork_rng(), torch.inference_mode():
            model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=2, tokenizer=tokenizer)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, ImportError) as error:
        raise GateRejected(
            f"{bundle} cannot generate as its generation_config.json says: {' '.join(str(error).split())}",
            "correct the generation config of the source",
        ) from error


def _compared(subject: Subject, models: tuple[Any, Any], settings: Exactness, progress: Progress) -> ExactnessRecord:
    """The record that `validate` makes of the loaded models, original and bundle."""
    tokenizer = load_tokenizer(subject.original.folder)
    data_sets = {source.name: prompts(source, tokenizer) for source in settings.prompts}
    running = {
        source.name: sequences((source,), tokenizer, settings.running_tokens, SEQUENCE_TOKENS)
        for source in settings.running_text
    }
    done = Done(progress, 3 * sum(map(len, data_sets.values())) + 2 * sum(map(len, running.values())))
    compared = _Compared(subject, models, settings, padding_token(tokenizer, models[0]), done)
    found = {name: compared.on(held_out) for name, held_out in data_sets.items()}
    tie_margin = 2 * max(one.floor.difference for one in found.values())
    equal = [continuation for one in found.values() for continuation in one.equal]
    return ExactnessRecord(
        dtype=subject.conversion.dtype,
        new_tokens=settings.new_tokens,
        batch_size=settings.batch_size,
        floor_batch_size=settings.floor_batch_size,
        data_sets=tuple(
            DataSetExactness(
                name=name,
                bundle=one.bundle.comparison(tie_margin),
                floor=one.floor.comparison(tie_margin),
                ranges=one.ranges,
            )
            for name, one in found.items()
        ),
        layers=compared.errors.errors(),
        perplexity=tuple(perplexities(name, texts, models, done) for name, texts in running.items()),
        tie_margin=tie_margin,
        tie_rule=TIE_RULE,
        continuations=tuple(equal[:_RECORDED_CONTINUATIONS]),
    )


class _DataSet(NamedTuple):
    """What was found on one data set: two tallies against the original, the ranges, and what all three said."""

    bundle: Tally
    floor: Tally
    ranges: RangeUse
    equal: list[RecordedContinuation]


class _Compared:
    """Original and bundle side by side.

    Attributes:
        errors: The errors of the bundle's MLPs, on all data sets so far.
    """

    def __init__(
        self, subject: Subject, models: tuple[Any, Any], settings: Exactness, pad_token: int, done: Done
    ) -> None:
        (self._original, self._bundle), self._mlps = models, subject.original.mlps
        self._settings, self._pad, self._done = settings, pad_token, done
        captured = read_ranges(subject.ranges_file)
        self._limits = limits_of(captured, subject.conversion.range_margin, self._original.device)
        self.errors = LayerErrors(self._bundle, captured, self._limits, [mlp.path for mlp in self._mlps])

    def on(self, held_out: Sequence[Prompt]) -> _DataSet:
        """Compare the models on one data set."""
        settings, counts = self._settings, RangeCounts(self._limits)
        bundle, floor, recorded = Tally(), Tally(), []
        decoded = _shortest_of_every_kind(held_out)

        def see(path: str, role: Role, values: Tensor) -> None:
            counts.see(path, role, values)
            self.errors.see(path, role, values)

        for batch in batches(held_out, settings.batch_size):
            texts = [*continue_greedily(self._original, batch, settings.new_tokens, settings.batch_size, self._pad)]
            self._done(len(texts))
            with _plain_attention(self._original), watched(self._original, self._mlps, see):
                equal_to_floor = floor.add_all(zip(texts, self._along(self._original, texts), strict=True))
            equal_to_bundle = bundle.add_all(zip(texts, self._of_the_bundle(texts, decoded), strict=True))
            for text, *equal in zip(texts, equal_to_floor, equal_to_bundle, strict=True):
                # A recorded continuation must hold in another execution too, and a numerical tie would not.
                if all(equal):
                    new = tuple(text.tokens.tolist())
                    recorded.append(
                        RecordedContinuation(prompt=text.prompt.id, prompt_tokens=text.prompt.tokens, new_tokens=new)
                    )
        return _DataSet(bundle, floor, counts.use(), recorded)

    def _along(self, model: Any, texts: Sequence[Continuation]) -> list[Continuation]:
        """What `model` says along these texts, a few texts a pass."""
        result: list[Continuation] = []
        size = self._settings.floor_batch_size
        for start in range(0, len(texts), size):
            result += continued_along(model, texts[start : start + size], self._pad)
            self._done(len(result) - start)
        return result

    def _of_the_bundle(self, texts: Sequence[Continuation], decoded: set[str]) -> list[Continuation]:
        """What the bundle says along these texts, in their order. It decodes after the prompts in `decoded`, alone."""
        found = {}
        for text in texts:
            if text.prompt.id in decoded:
                found[text.prompt.id] = decoded_along(self._bundle, text, _DECODED_TOKENS, self._pad)
                self._done(1)
        others = [text for text in texts if text.prompt.id not in found]
        found |= {other.prompt.id: other for other in self._along(self._bundle, others)}
        return [found[text.prompt.id] for text in texts]


def _shortest_of_every_kind(held_out: Sequence[Prompt]) -> set[str]:
    """The id of the shortest prompt of each kind."""
    shortest: dict[str, Prompt] = {}
    for prompt in held_out:
        usual = shortest.setdefault(prompt.kind, prompt)
        if len(prompt.tokens) < len(usual.tokens):
            shortest[prompt.kind] = prompt
    return {prompt.id for prompt in shortest.values()}


@contextmanager
def _plain_attention(model: Any) -> Iterator[None]:
    """While open, `model` computes attention step by step (`eager`), as every architecture can."""
    usual = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(usual)
