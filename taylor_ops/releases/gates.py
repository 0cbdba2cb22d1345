"""The gates of a release side by side: what each one required and found, for tables that help a person decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from taylor_ops.audit.record import AttackResult, AuditRecord
from taylor_ops.exactness.record import DataSetExactness, ExactnessRecord, LayerError
from taylor_ops.latency.record import DeviceSlowdown, LatencyRecord
from taylor_ops.leaks.record import NoLeak
from taylor_ops.presentation.wording import count, figure, fixed, markdown_table, percent
from taylor_ops.releases.record import ReleaseRecord
from taylor_ops.storage.files import size
from taylor_ops.storage.record import Record

if TYPE_CHECKING:
    from taylor_ops.config.audit import Audit


class Gate(Record):
    """One promise of a release.

    Attributes:
        gate: The name of the gate.
        found: What was measured.
        required: What the gate asks for.
    """

    gate: str
    found: str
    required: str


def gates(record: ReleaseRecord) -> tuple[Gate, ...]:
    """Every gate that a finished release passed, in the order of its stages."""
    coverage, slowdown, verified = record.coverage, record.slowdown, record.verified
    return (
        _protected(coverage.neurons_protected, coverage.neurons_total),
        _slowdown(slowdown.target, slowdown.tolerance, slowdown.achieved, slowdown.ci95, loadings=True),
        *_devices(slowdown.devices),
        *map(_exact, record.exactness.values()),
        *_layers(record.layer_errors, [layer.bound for layer in record.coverage.layers]),
        *_attacks(tuple(record.audit.values()), record.audit_policy, record.audit_thresholds),
        *([_leaks(record.leaks)] if record.leaks else []),
        Gate(
            gate="published copy",
            required="files and tokens as recorded",
            found=f"{count(verified.files)} files, {count(verified.prompts)} prompts",
        ),
    )


def gates_before_publication(
    latency: LatencyRecord, exactness: ExactnessRecord, attacks: AuditRecord, audit: Audit
) -> tuple[Gate, ...]:
    """The gates on which a person approves: those known before publication, and the leak gate, still to come."""
    achieved = latency.achieved
    return (
        _slowdown(latency.target, latency.tolerance, achieved.slowdown, achieved.ci95, loadings=True),
        *_devices(latency.devices),
        *map(_exact, exactness.data_sets),
        *_attacks(attacks.attacks, audit.policy, audit.thresholds.model_dump()),
        _leaks(None),
    )


def gates_in_markdown(found: Iterable[Gate]) -> str:
    """Gates as a Markdown table. `found` precedes `required`, because the form of an approval shows two columns."""
    return markdown_table(["gate", "found", "required"], [(gate.gate, gate.found, gate.required) for gate in found])


def _protected(protected: int, total: int) -> Gate:
    share = percent(protected / total)
    return Gate(
        gate="neurons protected", required="as planned", found=f"{count(protected)} of {count(total)} ({share})"
    )


def _devices(devices: Sequence[DeviceSlowdown]) -> list[Gate]:
    seen: Counter[str] = Counter()
    found = []
    for result in devices:
        seen[result.device] += 1
        # Two GPUs of one kind have the same description, but each gate of a release needs a name of its own.
        number = "" if seen[result.device] == 1 else f" ({seen[result.device]})"
        name = f"slowdown, {result.device}{number}"
        found.append(_slowdown(result.target, result.tolerance, result.slowdown, result.ci95, name))
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
        gate=name,
        required=f"{figure(target, 3)} within {percent(tolerance)}",
        found=f"{fixed(achieved, 2)} ({interval} {fixed(ci95[0], 2)} to {fixed(ci95[1], 2)})",
    )


def _exact(data_set: DataSetExactness) -> Gate:
    bundle, floor = data_set.bundle, data_set.floor
    return Gate(
        gate=f"exactness, {data_set.name}",
        required=f"every divergence a tie; noise floor {count(floor.prompts_equal)} of {count(floor.prompts)}",
        found=f"{count(bundle.prompts_equal)} of {count(bundle.prompts)} prompts equal, KL {figure(bundle.kl_mean)}",
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
            gate="error of every MLP",
            required=f"within its bound, {figure(bound)} for the MLP nearest to it",
            found=f"{figure(error)} for that MLP",
        )
    ]


def _attacks(attacks: Sequence[AttackResult], policy: str, thresholds: Mapping[str, float]) -> list[Gate]:
    if not attacks:
        return [Gate(gate="audit", required="reported", found="skipped: no attack was run")]
    return [
        Gate(
            gate=f"audit, {attack.attack}",
            required=_allowed(policy, thresholds.get(attack.attack)),
            found=f"{percent(attack.recovered_1pct)} recovered to 1 %"
            + ("" if attack.under_determined is None else ", under-determined"),
        )
        for attack in attacks
    ]


def _allowed(policy: str, threshold: float | None) -> str:
    if threshold is None:
        return "reported"
    if policy == "block":
        return f"at most {percent(threshold)} recovered to 1 %"
    return f"reported; policy `block` would allow {percent(threshold)}"


def _leaks(found: NoLeak | None) -> Gate:
    return Gate(
        gate="leaks",
        required="no protected weights, secrets, or paths and names of the machine in the files to publish",
        found="checked once the bundle is assembled, before anything is published"
        if found is None
        else f"none in {count(found.files)} files and {count(found.tensors)} tensors, "
        f"which were searched for {count(found.lines)} protected rows and columns",
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
