"""Harden the terms of layers of SmolLM2-135M, attack each form with knowledge of it, and report both costs.

    python -m benchmarks.hardening

The release of `benchmarks.audit` is made, and layers 0, 15 and 29 of it are put into other forms. The result gives for
each form its columns over those before, its error on held-out text as a share of the output (beside the error of
storing the terms in bfloat16), what the rank-one attack still recovers, and what an attack recovers that was written
against the form. It takes about five minutes on two cores. docs/hardening.md says what follows from it.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.audit import CONFIG, CPU, released
from benchmarks.command import typed
from benchmarks.hardened import (
    features_of,
    folded,
    known_coefficients,
    mixed,
    recovered_by_moments,
    recovered_without_intervals,
    recovered_without_order_0,
    unmixed,
    with_even_noise,
    with_hidden_noise,
    with_terms,
)
from benchmarks.measurement import write_result
from taylor_ops.attacks import least_squares, rank_one
from taylor_ops.attacks.protected_layer import ProtectedLayer
from taylor_ops.attacks.target import Target
from taylor_ops.audit.run import Score, protected_weights
from taylor_ops.config.audit import Audit
from taylor_ops.config.texts import TextSource
from taylor_ops.config_file.read import read
from taylor_ops.machine.devices import device_description
from taylor_ops.machine.threads import use_threads
from taylor_ops.model.loading import load_original, load_tokenizer
from taylor_ops.model.original import Original
from taylor_ops.texts.prompts import sequences

RESULT = Path(__file__).parent / "results" / "hardening.json"
LAYERS = (0, 15, 29)
TOKENS = 1024
EVEN = (1e-4, 1e-3, 1e-2, 3e-2)
HIDDEN = (1e-3, 1e-2, 3e-2)
GROUP_SIZES = (2, 3, 4)
GROUPS = 32


@dataclass
class Attacked:
    """The score of one attack over all layers so far."""

    score: Score = field(default_factory=Score)
    seconds: float = 0.0

    def figures(self) -> dict[str, Any]:
        """The figures for the result."""
        return self.score.figures() | {"seconds": self.seconds}


@dataclass
class Form:
    """What one form costs over all layers. `errors` has the relative error of a held-out output, one for each layer."""

    columns: float = 1.0
    errors: list[float] = field(default_factory=list)
    attacks: dict[str, Attacked] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)

    def attack(self, name: str, truth: Tensor, recover: Callable[[], Tensor]) -> None:
        """Time an attack and score it."""
        attacked = self.attacks.setdefault(name, Attacked())
        start = time.perf_counter()
        found = recover()
        attacked.seconds += time.perf_counter() - start
        attacked.score.add(found, truth)

    def plain(self) -> dict[str, Any]:
        """The figures for the result."""
        attacks = {name: attack.figures() for name, attack in self.attacks.items()}
        plain = {"columns": self.columns, "error": max(self.errors, default=None), "attacks": attacks} | self.more
        cosines = plain.pop("cosines", [])
        if cosines:
            ordered = sorted(cosines)
            plain |= {"cosine_median": ordered[len(ordered) // 2], "cosine_worst": ordered[0], "neurons": len(ordered)}
        return plain


@dataclass(frozen=True)
class Case:
    """One layer: its protected weights `truth` [H, P]; features [T, K] of the texts owner, attacker and held_out."""

    layer: ProtectedLayer
    truth: Tensor
    known: Tensor
    owner: Tensor
    attacker: Tensor
    held_out: Tensor
    hidden: Tensor

    def error(self, theta: Tensor) -> float:
        """Median over held-out tokens of the change of an output with these terms, as a share of the output."""
        right = self.held_out @ self.layer.theta.T
        off = self.held_out @ (theta - self.layer.theta).T
        return float((off.norm(dim=1) / right.norm(dim=1)).median())


def main() -> None:
    """Make a release, harden and attack some of its layers, and write and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--scratch", type=Path, help="folder for temporary files")
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    forms: dict[str, Form] = {}
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch, torch.inference_mode():
        for case in _cases(Path(scratch)):
            _try_all(case, forms)
    result = {
        "command": typed("hardening"),
        "device": device_description(CPU),
        "threads": arguments.threads,
        "layers": list(LAYERS),
        "tokens": TOKENS,
        "forms": {name: form.plain() for name, form in forms.items()},
    }
    write_result(RESULT, "hardening", result)
    Console().print(_table(result))


def _cases(scratch: Path) -> Iterator[Case]:
    config = read(CONFIG).config
    original, bundle = released(config, scratch)
    truth = Original(original)
    texts = [config.calibration.texts, config.exactness.running_text, config.exactness.prompts]
    seen = [_hidden(original, tuple(text)) for text in texts]
    for number, layer in enumerate(Target(bundle, scratch / "attack").layers()):
        if number in LAYERS:
            owner, attacker, held_out = (features_of(layer, states[number]) for states in seen)
            weights = protected_weights(layer, truth.weights(truth.mlps[number])).float()
            yield Case(layer, weights, known_coefficients(layer), owner, attacker, held_out, seen[2][number])


def _hidden(original: Path, texts: tuple[TextSource, ...]) -> dict[int, Tensor]:
    """Hidden states [T, H] that the MLPs of `LAYERS` get on a text."""
    model = load_original(original, "float32", CPU)
    rows = sequences(texts, load_tokenizer(original), TOKENS, 256)
    states: dict[int, list[Tensor]] = {number: [] for number in LAYERS}
    hooks = [model.model.layers[number].mlp.register_forward_pre_hook(_keeper(kept)) for number, kept in states.items()]
    for row in rows:
        model(input_ids=torch.tensor([row]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return {number: torch.cat(found) for number, found in states.items()}


def _keeper(kept: list[Tensor]) -> Callable[[Any, tuple[Tensor, ...]], None]:
    def keep(_module: Any, inputs: tuple[Tensor, ...]) -> None:
        kept.append(inputs[0].flatten(0, 1))

    return keep


def _try_all(case: Case, forms: dict[str, Form]) -> None:
    layer, truth, settings = case.layer, case.truth, Audit()
    generator = torch.Generator().manual_seed(0)

    def form(name: str) -> Form:
        return forms.setdefault(name, Form())

    def by_rank_one(of: ProtectedLayer) -> Callable[[], Tensor]:
        return lambda: rank_one.recover(of, settings).weights

    plain = form("plain")
    plain.attack("rank_one", truth, by_rank_one(layer))
    plain.attack("least_squares", truth, lambda: least_squares.recover(layer, settings).weights)
    plain.errors.append(case.error(layer.theta.bfloat16().float()))
    plain.more["error_is"] = "of the terms rounded to bfloat16"

    order_0 = form("order 0 folded")
    width, columns = layer.protected, layer.theta.shape[1]
    left = (columns - width + layer.theta.shape[0]) / columns
    order_0.columns = max(order_0.columns, left) if order_0.errors else left
    whole = case.held_out @ layer.theta.T
    apart = case.held_out[:, width:] @ layer.theta[:, width:].T + case.hidden @ folded(layer).T
    order_0.errors.append(float(((apart - whole).norm(dim=1) / whole.norm(dim=1)).median()))
    order_0.attack("adaptive", truth, lambda: recovered_without_order_0(layer))

    secret = form("secret centres")
    told: list[float] = secret.more.setdefault("intervals_found", [])

    def without_intervals() -> Tensor:
        weights, share = recovered_without_intervals(layer)
        told.append(share)
        return weights

    secret.attack("adaptive", truth, without_intervals)

    def noise(name: str, theta: Tensor) -> None:
        noisy, made = with_terms(layer, theta), form(name)
        made.errors.append(case.error(theta))
        made.attack("rank_one", truth, by_rank_one(noisy))
        made.attack("adaptive", truth, lambda: recovered_by_moments(noisy, case.attacker, case.known))

    for share in EVEN:
        noise(f"even noise {share:g}", with_even_noise(layer, share, generator))
    for share in HIDDEN:
        noise(f"hidden noise {share:g}", with_hidden_noise(layer, case.owner, share, case.known, generator))
    for size in GROUP_SIZES:
        _mixed(case, form(f"groups of {size} mixed"), size, generator)


def _mixed(case: Case, form: Form, size: int, generator: torch.Generator) -> None:
    """Mix groups of neurons from all over the layer; the columns are counted at its mean order."""
    layer = case.layer
    order = round(float(layer.orders.double().mean()))
    form.columns = max(form.columns, math.comb(order + size, size) / (order + 1))
    places = torch.linspace(0, layer.protected - 1, GROUPS * size).long().reshape(GROUPS, size)
    cosines = form.more.setdefault("cosines", [])
    for place in places:
        part = mixed(case.truth[:, place], case.known[1, place], generator)
        start = time.perf_counter()
        found = torch.nn.functional.normalize(unmixed(part), dim=0)
        form.more["seconds"] = form.more.get("seconds", 0.0) + time.perf_counter() - start
        true = torch.nn.functional.normalize(case.truth[:, place].double(), dim=0)
        # Scale and order within the group are left open: they change nothing that the layer computes.
        cosines += (true.T @ found).abs().amax(1).tolist()


def _error(form: dict[str, Any]) -> str:
    return "" if form["error"] is None else f"{form['error']:.1e}"


def _table(result: dict[str, Any]) -> Table:
    table = Table("form", "columns", "error", "attack", "to 1 %", "cosine", "worst", "seconds")
    for name, form in result["forms"].items():
        for attack, got in form["attacks"].items():
            shares = (f"{got['recovered_1pct']:.2%}", f"{got['cosine_median']:.6f}", f"{got['cosine_worst']:.4f}")
            table.add_row(name, f"{form['columns']:.2f}", _error(form), attack, *shares, f"{got['seconds']:.2f}")
        if "cosine_median" in form:
            cosines = (f"{form['cosine_median']:.6f}", f"{form['cosine_worst']:.4f}")
            table.add_row(name, f"{form['columns']:.1f}", "", "adaptive", "", *cosines, f"{form['seconds']:.2f}")
    return table


if __name__ == "__main__":
    main()
