"""The gates of a release side by side: verdict, what was found and required, for tables that help a person decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from taylor_ops.audit.record import AttackResult, AuditRecord
from taylor_ops.exactness.record import DataSetExactness, ExactnessRecord, LayerError
from taylor_ops.latency.record import DeviceSlowdown, LatencyRecord
from taylor_ops.leaks.record import NoLeak
from taylor_ops.presentation.sentences import band_in_words, device_in_words, recovered_in_words
from taylor_ops.presentation.wording import count, figure, fixed, markdown_table, percent, plain
from taylor_ops.releases.record import ReleaseRecord
from taylor_ops.storage.files import size
from taylor_ops.storage.record import Record
from taylor_ops.tasks.record import TaskScores

if TYPE_CHECKING:
    from taylor_ops.config.audit import Audit


Verdict = Literal["passed", "failed", "reported only", "to come"]


class Gate(Record):
    """One promise of a release.

    Attributes:
        verdict: `reported only` if the config lets the release pass whatever is found, `to come` if nothing was found
            yet.
        gate: The name of the gate.
        found: What was measured, in words that stand alone.
        required: What the gate asks for.
    """

    verdict: Verdict
    gate: str
    found: str
    required: str


def gates(record: ReleaseRecord) -> tuple[Gate, ...]:
    """Every gate of a finished release, in the order of its stages."""
    coverage, slowdown, verified = record.coverage, record.slowdown, record.verified
    return (
        _protected(coverage.neurons_protected, coverage.neurons_total),
        _slowdown(slowdown.target, slowdown.tolerance, slowdown.achieved, slowdown.ci95, loadings=True),
        *_devices(slowdown.devices),
        *map(_exact, record.exactness.values()),
        *map(_alike, record.tasks),
        *_layers(record.layer_errors, [layer.bound for layer in record.coverage.layers]),
        *_attacks(tuple(record.audit.values()), record.audit_policy, record.audit_thresholds),
        *([_leaks(record.leaks)] if record.leaks else []),
        Gate(
            verdict="passed",
            gate="published copy",
            found=f"{count(verified.files)} files and the tokens of {count(verified.prompts)} prompts as recorded",
            required="all files and tokens as recorded",
        ),
    )


def gates_before_publication(
    latency: LatencyRecord,
    exactness: ExactnessRecord,
    attacks: AuditRecord,
    audit: Audit,
    tasks: Sequence[TaskScores] = (),
) -> tuple[Gate, ...]:
    """The gates on which a person approves: those known before publication, and the leak gate, still to come."""
    achieved = latency.achieved
    return (
        _slowdown(latency.target, latency.tolerance, achieved.slowdown, achieved.ci95, loadings=True),
        *_devices(latency.devices),
        *map(_exact, exactness.data_sets),
        *map(_alike, tasks),
        *_attacks(attacks.attacks, audit.policy, audit.thresholds.model_dump()),
        _leaks(None),
    )


def gates_in_markdown(found: Iterable[Gate]) -> str:
    """Gates as a Markdown table, the verdict first."""
    headings = list(Gate.model_fields)
    return markdown_table(headings, [list(gate.plain().values()) for gate in found])


def gates_listed(found: Iterable[Gate]) -> str:
    """Gates as a Markdown list, for the Prefect UI, which breaks no line in a table and would cut off its columns."""
    return "".join(
        f"- **{gate.verdict}** {plain(gate.gate)}: {plain(gate.found)}; required: {plain(gate.required)}\n"
        for gate in found
    )


def _passed(met: bool) -> Verdict:
    return "passed" if met else "failed"


def _protected(protected: int, total: int) -> Gate:
    share = percent(protected / total)
    return Gate(
        verdict="passed",
        gate="neurons protected",
        found=f"{count(protected)} of {count(total)} neurons ({share})",
        required="as planned",
    )


def _devices(devices: Sequence[DeviceSlowdown]) -> list[Gate]:
    seen: Counter[str] = Counter()
    found = []
    for result in devices:
        seen[result.device] += 1
        # Two GPUs of one kind have the same description, but each gate of a release needs a name of its own.
        number = "" if seen[result.device] == 1 else f" ({seen[result.device]})"
        name = f"slowdown, {device_in_words(result.device)}{number}"
        measured = _slowdown(result.target, result.tolerance, result.slowdown, result.ci95, name)
        found.append(measured if result.met else measured.model_copy(update={"verdict": "failed"}))
    return found


def _slowdown(
    target: float,
    tolerance: float,
    achieved: float,
    ci95: tuple[float, float],
    name: str = "slowdown",
    loadings: bool = False,
) -> Gate:
    interval = "95 % of loadings" if loadings else "95 % interval"
    return Gate(
        verdict=_passed(abs(achieved - target) <= target * tolerance),
        gate=name,
        found=f"{fixed(achieved, 2)} times as long per token ({interval} {fixed(ci95[0], 2)} to {fixed(ci95[1], 2)})",
        required=f"{figure(target, 3)} within {percent(tolerance)}: {band_in_words(target, tolerance)}",
    )


def _exact(data_set: DataSetExactness) -> Gate:
    bundle, floor = data_set.bundle, data_set.floor
    return Gate(
        verdict=_passed(all(divergence.tie for divergence in bundle.divergences)),
        gate=f"exactness, {data_set.name}",
        found=f"the same tokens on {count(bundle.prompts_equal)} of {count(bundle.prompts)} prompts, "
        f"KL {figure(bundle.kl_mean)} nats per token",
        required="every difference a numerical tie (original against itself: the same on "
        f"{count(floor.prompts_equal)} of {count(floor.prompts)})",
    )


def _alike(task: TaskScores) -> Gate:
    farthest = max(task.metrics, key=lambda one: abs(one.difference))
    return Gate(
        verdict=_passed(all(abs(one.difference) <= task.allowed for one in task.metrics)),
        gate=f"task, {task.task}",
        found=f"{farthest.metric} of the bundle {figure(farthest.bundle, 4)}, of the original "
        f"{figure(farthest.original, 4)}, on {count(task.documents)} documents",
        required=f"no score apart by more than {figure(task.allowed)}",
    )


def _layers(errors: Sequence[LayerError], bounds: Sequence[float]) -> list[Gate]:
    measured = [
        (error.inside / bound if bound else 0.0, error.inside, bound)
        for error, bound in zip(errors, bounds, strict=True)
        if error.inside is not None
    ]
    if not measured:
        return []
    _share, error, bound = max(measured)
    return [
        Gate(
            verdict=_passed(all(inside <= limit for _, inside, limit in measured)),
            gate="error of every MLP",
            found=f"layer closest to its bound: error {figure(error)}, bound {figure(bound)}",
            required="every layer within its bound",
        )
    ]


def _attacks(attacks: Sequence[AttackResult], policy: str, thresholds: Mapping[str, float]) -> list[Gate]:
    binding = policy == "block"
    if not attacks:
        return [
            Gate(
                verdict="failed" if binding else "reported only",
                gate="audit",
                found="skipped: no attack was run",
                required="an attack is run" if binding else "nothing",
            )
        ]
    return [_attack(attack, binding, thresholds.get(attack.attack)) for attack in attacks]


def _attack(attack: AttackResult, binding: bool, threshold: float | None) -> Gate:
    """One attack. `binding` is whether its threshold decides; a record of an earlier version has none."""
    verdict: Verdict = "reported only"
    required = "nothing" if threshold is None else f"nothing; policy `block` would allow {percent(threshold)}"
    if binding and threshold is not None:
        verdict = _passed(attack.recovered_1pct <= threshold and attack.under_determined is None)
        required = f"at most {percent(threshold)} of the weights"
    return Gate(
        verdict=verdict,
        gate=f"audit, {attack.attack}",
        found=recovered_in_words(attack.recovered_1pct)
        + ("" if attack.under_determined is None else ", and could not determine all of them"),
        required=required,
    )


def _leaks(found: NoLeak | None) -> Gate:
    return Gate(
        verdict="to come" if found is None else "passed",
        gate="leaks",
        found="looked for once the bundle is assembled, before anything is published"
        if found is None
        else f"none in {count(found.files)} files and {count(found.tensors)} tensors, "
        f"which were searched for {count(found.lines)} protected rows and columns",
        required="no protected weights, secrets, or paths and names of the machine in the files to publish",
    )


def facts(record: ReleaseRecord) -> list[tuple[str, str]]:
    """Name and value of each fact: what was released, to where, when, by which approval, and the size of the bundle."""
    published, approval = record.published, record.approval
    when = record.published_at.strftime("%Y-%m-%d %H:%M UTC") if record.published_at else "not recorded"
    place = f"{published.repo_id} {published.version} in {published.path}"
    if published.pull_request is not None:
        place = f"not yet: pull request {published.pull_request} of {published.repo_id} waits at {published.path}"
        when = f"left for review {when}"
    return [
        ("source", record.source.origin),
        ("published", place),
        ("when", when),
        ("approval", f"{approval.by}: {approval.comment}" if approval else "not asked for"),
        ("bundle", f"{size(record.bundle.bytes)} (original {size(record.bundle.original_bytes)})"),
    ]
