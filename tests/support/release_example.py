"""A small release, made by hand through the real records: every figure is one that a reader could recognise."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from taylor_ops.audit.record import AttackResult, AuditRecord, Rebuilt, Timed
from taylor_ops.bundle.findings import Findings
from taylor_ops.bundle.record import BundleRecord
from taylor_ops.capture.record import CapturedRanges
from taylor_ops.config.card import Card
from taylor_ops.config.conversion import Conversion
from taylor_ops.config.publish import Publish
from taylor_ops.config.release import ReleaseConfig
from taylor_ops.config.source import HubSource
from taylor_ops.conversion.record import ConvertedModel, LayerConversion
from taylor_ops.exactness.record import (
    Comparison,
    DataSetExactness,
    Divergence,
    ExactnessRecord,
    LayerError,
    Perplexity,
    RangeUse,
    RecordedContinuation,
)
from taylor_ops.exactness.validate import TIE_RULE
from taylor_ops.latency.record import DeviceSlowdown, LatencyRecord, ShapeSlowdown, Trial
from taylor_ops.publishing.record import Published
from taylor_ops.releases.record import ReleaseRecord, StageCost
from taylor_ops.releases.recording import Publication, release_record
from taylor_ops.series.plan import Plan
from taylor_ops.source.record import ResolvedSource
from taylor_ops.tasks.record import MetricScores, TaskScores
from taylor_ops.verification.record import Verified

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEURONS, LAYERS = 1536, 12


def config(**changes: Any) -> ReleaseConfig:
    """The config of the example."""
    values: dict[str, Any] = {
        "name": "tiny-taylor",
        "version": "1.2.0",
        "source": HubSource(kind="hub", repo_id="owner/Tiny", revision=COMMIT),
        "conversion": Conversion(tolerance=5e-3),
        "card": Card(license="apache-2.0", base_model="owner/Tiny", language=("en", "no"), tags=("demo",)),
        "publish": Publish(repo_id="example-org/Tiny-Taylor"),
    }
    return ReleaseConfig(**values | changes)


def document() -> dict[str, Any]:
    """The config as its author wrote it."""
    return {
        "name": "tiny-taylor",
        "version": "1.2.0",
        "source": {"kind": "hub", "repo_id": "owner/Tiny", "revision": COMMIT},
        "card": {"license": "apache-2.0", "base_model": "owner/Tiny"},
        "publish": {"repo_id": "example-org/Tiny-Taylor"},
    }


def comparison(equal: int, kl: float, divergences: tuple[Divergence, ...] = (), prompts: int = 24) -> Comparison:
    """A comparison on `prompts` prompts."""
    return Comparison(
        prompts=prompts,
        prompts_equal=equal,
        tokens_compared=1536 - sum(64 - divergence.position for divergence in divergences),
        first_divergence=min((divergence.position for divergence in divergences), default=None),
        divergences=divergences,
        kl_mean=kl,
        kl_max=90 * kl,
        log_prob_difference_max=40 * math.sqrt(kl),
        top1_agreement=1 - len(divergences) / 1536,
    )


def divergence(tie: bool = True, prompt: str = "math-17") -> Divergence:
    """One divergence, at new token 41."""
    return Divergence(prompt=prompt, position=41, margin=0.00037 if tie else 0.83, tie=tie)


def data_set(name: str, bundle: Comparison, floor: Comparison) -> DataSetExactness:
    """A data set with both comparisons; a few activations leave their ranges."""
    use = RangeUse(activations=98_765_432, outside_captured=7_654, outside_widened=21)
    return DataSetExactness(name=name, bundle=bundle, floor=floor, ranges=use)


def exactness(*data_sets: DataSetExactness) -> ExactnessRecord:
    """Exactness on the given data sets, or on one with every prompt equal and one with a tie."""
    usual = (
        data_set("project", comparison(24, 3.1e-9), comparison(24, 4.7e-11)),
        data_set(
            "gsm8k",
            comparison(23, 2.3e-8, (divergence(),)),
            comparison(22, 6.1e-9, (divergence(prompt="math-3"), divergence(prompt="math-9"))),
        ),
    )
    return ExactnessRecord(
        dtype="float32",
        new_tokens=64,
        batch_size=24,
        floor_batch_size=8,
        data_sets=data_sets or usual,
        layers=tuple(
            LayerError(
                path=f"model.layers.{layer}.mlp",
                tokens=1024,
                tokens_inside=1019,
                largest=3.1e-4 - 2e-6 * layer,
                inside=1.2e-4 + 1e-6 * layer,
            )
            for layer in range(LAYERS)
        ),
        perplexity=(Perplexity(name="running-text", tokens=2044, original=17.25613, bundle=17.25631),),
        tie_margin=0.00052,
        tie_rule=TIE_RULE,
        continuations=(RecordedContinuation(prompt="math-1", prompt_tokens=(1, 2), new_tokens=(3, 4)),),
    )


def task(**changes: Any) -> TaskScores:
    """A task of multiple choice on which both models score alike."""
    scores = TaskScores(
        task="arithmetic",
        documents=120,
        sha256="e" * 64,
        answers_equal=119,
        metrics=(
            MetricScores(metric="acc", original=0.375, bundle=0.375, difference=0.0, stderr=0.0444),
            MetricScores(metric="acc_norm", original=0.4, bundle=0.4083, difference=0.0083, stderr=None),
        ),
        allowed=0.01,
    )
    return scores.model_copy(update=changes)


def attack(**changes: Any) -> AttackResult:
    """An attack that got nearly everything."""
    result = AttackResult(
        attack="rank_one",
        source="arXiv 2506.19874",
        assumptions="the attacker has the bundle, and the name of the activation, which its config states",
        weights=10_616_832,
        recovered_1pct=0.99997,
        recovered_01pct=0.9812,
        cosine_median=0.999999,
        cosine_worst=0.998214,
        budget="one eigenvector a neuron",
        seconds=14.27,
        peak_rss_bytes=987_000_000,
    )
    return result.model_copy(update=changes)


def audit(*attacks: AttackResult, skipped: bool = False) -> AuditRecord:
    """The audit with the given attacks, the usual one, or none."""
    return AuditRecord(attacks=() if skipped else attacks or (attack(),), skipped=skipped)


def trial(columns: int, predicted: float, slowdown: float) -> Trial:
    """One measured candidate, nine pairs."""
    seconds = tuple(0.48 + 0.004 * ((5 * pair) % 9) for pair in range(9))
    return Trial(
        plan=Plan(basis="chebyshev", tolerance=5e-3, least_order=1, columns=columns, neurons=NEURONS * LAYERS),
        predicted=predicted,
        slowdown=slowdown,
        ci95=(slowdown - 0.05, slowdown + 0.08),
        seconds_original=seconds,
        seconds_bundle=tuple(slowdown * value + 0.003 * (pair % 4) for pair, value in enumerate(seconds)),
    )


def latency(*trials: Trial) -> LatencyRecord:
    """Two trials, the second within the target."""
    chosen = trials or (trial(243_310, 3.0, 2.51), trial(307_200, 3.04, 2.97))
    return LatencyRecord(
        plan=chosen[-1].plan,
        target=3.0,
        tolerance=0.1,
        reachable=(2.21, 7.94),
        device="Example CPU 7, 2 threads",
        threads=2,
        batch_size=1,
        prompt_tokens=72,
        new_tokens=24,
        layers=12,
        layers_measured=12,
        trials=chosen,
        shapes=(timed_at(4, 900, 5.51),),
        devices=(
            DeviceSlowdown(
                device="Example GPU 9",
                target=2.0,
                tolerance=0.15,
                layers_measured=9,
                **samples(2.06, (0.11, 0.12, 0.13, 0.11)),
            ),
        ),
    )


def timed_at(batch_size: int, prompt_tokens: int, slowdown: float) -> ShapeSlowdown:
    """A slowdown at another shape."""
    seconds = (0.5, 0.52, 0.51)
    return ShapeSlowdown(batch_size=batch_size, prompt_tokens=prompt_tokens, **samples(slowdown, seconds))


def samples(slowdown: float, seconds: tuple[float, ...]) -> dict[str, Any]:
    """Pairs with such a slowdown, the original of which takes so many seconds."""
    return {
        "slowdown": slowdown,
        "ci95": (slowdown - 0.03, slowdown + 0.04),
        "seconds_original": seconds,
        "seconds_bundle": tuple(slowdown * value for value in seconds),
    }


def converted(plan: Plan | None = None) -> ConvertedModel:
    """Twelve layers whose orders rise with depth."""
    plan = plan or latency().plan
    return ConvertedModel(
        plan=plan,
        neurons_protected=NEURONS * LAYERS,
        neurons_total=NEURONS * LAYERS,
        bytes=1_450_000_000,
        original_bytes=538_100_000,
        layers=tuple(
            LayerConversion(
                path=f"model.layers.{layer}.mlp",
                neurons=NEURONS,
                columns=round(NEURONS * (11 + layer * 0.85)),
                mean_order=10 + layer * 0.85,
                max_order=24 + layer * 2 + layer % 3,
                truncation=4.8e-3 - 1e-5 * (layer % 5),
                rounding=2.3e-5 + 1e-6 * layer,
            )
            for layer in range(LAYERS)
        ),
    )


def source() -> ResolvedSource:
    """The source, in a folder that no card may name."""
    return ResolvedSource(
        folder=Path("/home/somebody/models/tiny"),
        origin=f"https://huggingface.co/owner/Tiny at {COMMIT}",
        model_type="llama",
        sha256={"model.safetensors": "a" * 64, "config.json": "b" * 64},
        parameters=134_515_008,
    )


def captured() -> CapturedRanges:
    """The ranges of the twelve layers."""
    return CapturedRanges(
        file="ranges.safetensors", sha256="c" * 64, layers=LAYERS, neurons=NEURONS * LAYERS, tokens=16_384
    )


def statements(**changes: Any) -> dict[str, Any]:
    """What the bundle states. changes: other `exactness`, `audit`, `converted` or `latency` records."""
    evidence: dict[str, Any] = {
        "source": source(),
        "converted": converted(),
        "latency": latency(),
        "exactness": exactness(),
        "audit": audit(),
    }
    return {
        "format": 1,
        "name": "tiny-taylor",
        "version": "1.2.0",
        "config": document(),
        "tools": {"torch": "2.13.0", "transformers": "5.20.0", "python": "3.11.9"},
        "loads_with": {"python": "3.11", "torch": "2.6", "transformers": "5.20"},
    } | Findings(**evidence | changes).identity()


def record(**changes: Any) -> ReleaseRecord:
    """The whole release. changes: other records of its stages, by name, another `config` or other costs, `stages`."""
    stages = ("resolve", "capture", "calibrate", "convert", "validate", "audit", "assemble", "publish", "verify")
    parts: dict[str, Any] = {
        "config": config(),
        "source": source(),
        "ranges": captured(),
        "latency": latency(),
        "converted": converted(),
        "exactness": exactness(),
        "audit": audit(),
        "bundle": BundleRecord(folder="bundle", bytes=1_453_210_000, files={"README.md": "d" * 64}),
        "published": Published(
            target="folder",
            repo_id="example-org/Tiny-Taylor",
            version="1.2.0",
            path="hub/example-org/Tiny-Taylor/1.2.0",
            unchanged=False,
        ),
        "verified": Verified(files=14, prompts=8, tokens=512),
        "stages": {
            name: StageCost(seconds=0.4 + 17.3 * index, peak_rss_bytes=(900 + 210 * index) * 10**6, cached=index == 1)
            for index, name in enumerate(stages)
        },
    }
    parts |= {"tasks": (), "approval": None, "leaks": None, "published_at": None} | changes
    return release_record(
        parts["config"],
        parts["ranges"],
        Findings(**{name: parts[name] for name in Findings.model_fields}),
        Publication(**{name: parts[name] for name in Publication.model_fields}),
        parts["stages"],
    )


def timed(slowdown: float = 1.03, settled: bool = True) -> Timed:
    """Eleven pairs of the original and a model that is about as fast."""
    return Timed(
        slowdown=slowdown,
        ci95=(slowdown - 0.02, slowdown + 0.02),
        settled=settled,
        device="Example CPU 7, 2 threads",
        seconds_original=(0.5,) * 11,
        seconds_other=(0.5 * slowdown,) * 11,
    )


def rebuilt(residual: Timed | None = None) -> Rebuilt:
    """A rebuilt model that says what the original says, on all but one prompt."""
    return Rebuilt(
        prompts=24,
        prompts_equal=23,
        tokens_compared=765,
        kl_mean=4.1e-9,
        kl_max=2e-7,
        top1_agreement=0.9987,
        residual=residual or timed(),
    )
