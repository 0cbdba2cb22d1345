"""Terminal tables: the estimate of a release, and what was released, how it was proven and what it cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Group
from rich.table import Table
from rich.text import Text

from taylor_ops.audit.record import AttackResult, Rebuilt
from taylor_ops.masking import printable
from taylor_ops.preflight.record import Preflight
from taylor_ops.presentation.wording import count, figure, fixed, percent
from taylor_ops.releases.record import ReleaseRecord
from taylor_ops.storage.files import size
from taylor_ops.verification.record import Remeasured

_MOST_NAMES = 12


def summary(record: ReleaseRecord) -> Group:
    """A release as tables for a rich console."""
    tables = [_result(record), _exactness(record), audit_table(record.audit), _stages(record)]
    return Group(*[part for table in tables for part in (table, Text())][:-1])


def _result(record: ReleaseRecord) -> Table:
    coverage, slowdown, bundle, published = record.coverage, record.slowdown, record.bundle, record.published
    share = percent(coverage.neurons_protected / coverage.neurons_total)
    already = ", already there with the same bytes" if published.unchanged else ""
    table = _table(f"{record.name} {record.version}", ["", ""])
    for name, value in (
        ("neurons protected", f"{count(coverage.neurons_protected)} of {count(coverage.neurons_total)} ({share})"),
        ("mean order", fixed(coverage.mean_order, 2)),
        ("slowdown", f"{fixed(slowdown.achieved, 2)} (95 % of loadings {_interval(slowdown.ci95)})"),
        ("target", f"{figure(slowdown.target, 3)} within {percent(slowdown.tolerance)}"),
        ("bundle", f"{bundle.path}/, {size(bundle.bytes)} (original {size(bundle.original_bytes)})"),
        (
            "published" if published.pull_request is None else "left for review",
            f"{published.repo_id} {published.version} in {published.path}{already}",
        ),
        ("verified", f"{count(record.verified.files)} files, {count(record.verified.prompts)} prompts"),
    ):
        _row(table, [name, value])
    table.show_header = False
    return table


def _exactness(record: ReleaseRecord) -> Table:
    headings = ["data set", "run", "prompts equal", "tokens", "KL mean", "KL largest", "top-1 equal"]
    table = _table("Exactness", headings)
    for data_set in record.exactness.values():
        for what, run in (("bundle", data_set.bundle), ("noise floor", data_set.floor)):
            equal = f"{count(run.prompts_equal)} of {count(run.prompts)}"
            measured = [figure(run.kl_mean), figure(run.kl_max), percent(run.top1_agreement)]
            _row(table, [data_set.name, what, equal, count(run.tokens_compared), *measured])
    return table


def audit_table(attacks: Mapping[str, AttackResult]) -> Group | Text:
    """What the attacks recovered and what was rebuilt from it, or a line that says that no attack was run."""
    if not attacks:
        return Text("Audit skipped: no attack was run against this release", style="bold")
    table = _table("Audit", ["attack", "recovered to 1 %", "to 0.1 %", "cosine, median", "worst", "seconds"], names=1)
    models = _table("Rebuilt models", ["attack", "prompts equal", "KL mean", "slowdown left"], names=1)
    notes: list[Text] = []
    for attack in attacks.values():
        shares = [percent(attack.recovered_1pct), percent(attack.recovered_01pct)]
        cosines = [fixed(attack.cosine_median, 6), fixed(attack.cosine_worst, 6)]
        _row(table, [attack.attack, *shares, *cosines, fixed(attack.seconds, 1)])
        if attack.under_determined is not None:
            notes.append(Text(f"{attack.attack} is under-determined: {attack.under_determined}"))
        if attack.rebuilt is not None:
            _row(models, [attack.attack, *_rebuilt(attack.rebuilt)])
    more: list[Text | Table] = [Text(), models] if models.row_count else []
    return Group(table, *notes, *more)


def _rebuilt(rebuilt: Rebuilt) -> list[str]:
    """How well a rebuilt model agrees with the original, and how much slower it is."""
    left = "not timed"
    if rebuilt.residual is not None:
        left = f"{fixed(rebuilt.residual.slowdown, 2)} (95 % interval {_interval(rebuilt.residual.ci95)})"
        left += "" if rebuilt.residual.settled else ", a noisy machine"
    return [f"{count(rebuilt.prompts_equal)} of {count(rebuilt.prompts)}", figure(rebuilt.kl_mean), left]


def _stages(record: ReleaseRecord) -> Table:
    table = _table("Stages", ["stage", "seconds", "peak memory, MB", "result"], names=1)
    for name, stage in record.stages.items():
        memory = count(round(stage.peak_rss_bytes / 1e6))
        _row(table, [name, fixed(stage.seconds, 1), memory, "reused" if stage.cached else "made"])
    return table


def preflight_table(estimate: Preflight) -> Group:
    """What a release is expected to take and reach, and what the estimate rests on."""
    fetch = f", {size(estimate.to_fetch)} still to be fetched" if estimate.to_fetch else ""
    differ = "" if estimate.source_license == estimate.card_license else f"; on the card: {estimate.card_license}"
    least = f"{size(estimate.least_bytes)} with layers read from disk"
    ratio = estimate.bundle_bytes / estimate.original_bytes
    warnings = [Text(printable(f"warning: {text}"), style="yellow") for text in estimate.warnings]
    table = _table("Estimate", ["", ""])
    for name, value in (
        ("source", f"{estimate.origin}{fetch}"),
        ("bundle", f"about {size(estimate.bundle_bytes)}, {fixed(ratio, 1)} times the original in the same data type"),
        ("access", estimate.access),
        ("licence of the source", estimate.source_license + differ),
        ("files left out", _left(estimate)),
        *(("of the tokenizer", note) for note in estimate.notes),
        ("neurons to protect", _neurons_to_protect(estimate)),
        ("orders from", _rests_on(estimate)),
        ("slowdowns from", _timed_on(estimate)),
        ("slowdowns within reach", _within_reach(estimate)),
        ("cheapest plan", _cheapest(estimate)),
        ("target", f"{figure(estimate.target, 3)}, at a mean order of about {fixed(estimate.mean_order, 1)}"),
        ("to read", size(estimate.read_bytes)),
        ("disk", f"about {size(estimate.disk_needed)} needed, {size(estimate.disk_free)} free"),
        (
            "memory",
            f"about {size(estimate.peak_bytes)} for both models, {least}; {size(estimate.memory_free)} free",
        ),
    ):
        _row(table, [name, value])
    table.show_header = False
    if estimate.sample is None:
        return Group(*warnings, table)
    stages = _table("Stages", ["stage", "seconds, about"], names=1)
    for name, seconds in estimate.seconds.items():
        _row(stages, [name, _seconds(seconds) if seconds else _without_work(name, estimate)])
    stages.add_section()
    _row(stages, ["in all", _seconds(sum(estimate.seconds.values()))])
    return Group(*warnings, table, Text(), stages)


def _seconds(seconds: float) -> str:
    return count(round(seconds)) if seconds >= 1 else "under 1"


def _without_work(stage: str, estimate: Preflight) -> str:
    """What stands in place of the seconds of a stage that has nothing to do."""
    captured = estimate.sample is not None and estimate.sample.captured
    return "reused" if stage == "capture" and captured else "none"


def _left(estimate: Preflight) -> str:
    if estimate.left is None:
        return "not known: the Hub does not answer now"
    if not estimate.left:
        return "none"
    more = len(estimate.left) - _MOST_NAMES
    names = ", ".join(estimate.left[:_MOST_NAMES])
    return f"{names}{f' and {count(more)} more' if more > 0 else ''}; `card.files` adds files"


def _rests_on(estimate: Preflight) -> str:
    sample = estimate.sample
    if sample is None:
        return "nothing yet: fetch the source and plan again"
    if sample.captured:
        return f"the ranges that an earlier run captured over {count(sample.tokens)} tokens"
    layers = f"{count(sample.layers)} of {count(estimate.layers)} layers"
    return f"{layers} and {count(sample.tokens)} of {count(sample.total_tokens)} calibration tokens, extrapolated"


def _timed_on(estimate: Preflight) -> str:
    sample = estimate.sample
    if sample is None:
        return "bytes alone, from the lowest order on"
    timed = f"{count(sample.pairs)} pairs of decode steps of {count(sample.layers_timed)} layers"
    return timed + ("; the machine is too busy to time them well" if sample.busy else "")


def _neurons_to_protect(estimate: Preflight) -> str:
    every = f"{count(estimate.neurons)} in {count(estimate.layers)} layers"
    return every if estimate.protected == 1 else f"about {percent(estimate.protected)} of {every}; the rest unprotected"


def _within_reach(estimate: Preflight) -> str:
    if estimate.pinned:
        return f"about {fixed(estimate.reachable[0], 2)} alone, by the plan that `latency.columns` names"
    return f"about {_interval(estimate.reachable)}, {_protected(estimate.least_protected)}"


def _protected(share: float) -> str:
    return "all neurons protected" if share == 1 else f"at least {percent(share)} of neurons protected"


def _cheapest(estimate: Preflight) -> str:
    if estimate.cheapest is None:
        return "not known until the weights are fetched"
    return f"mean order about {fixed(estimate.cheapest, 1)}, slowdown about {fixed(estimate.cheapest_slowdown, 2)}"


def remeasured_table(found: Remeasured) -> Table:
    """A slowdown that was measured again, with the one that the manifest states."""
    as_stated = "nothing is stated for this device"
    if found.as_stated is not None:
        as_stated = "yes" if found.as_stated else "no"
    noisy = "" if found.settled else "; the machine is too noisy to tell it better"
    table = _table("Slowdown, measured again", ["", ""])
    for name, value in (
        ("here", f"{fixed(found.slowdown, 2)} (95 % interval {_interval(found.ci95)}){noisy}"),
        ("device", found.device),
        ("stated", f"{figure(found.target, 3)} within {percent(found.tolerance)}, on {found.stated_for}"),
        ("as stated", as_stated),
        ("pairs", f"{len(found.seconds_bundle)}, of {found.new_tokens} tokens each, batch size {found.batch_size}"),
    ):
        _row(table, [name, value])
    table.show_header = False
    return table


def _interval(ends: tuple[float, float]) -> str:
    return f"{fixed(ends[0], 2)} to {fixed(ends[1], 2)}"


def _table(title: str, headings: Iterable[str], names: int = 2) -> Table:
    """A table whose first `names` columns hold words, and whose other columns hold figures."""
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index < names else "right")
    return table


def _row(table: Table, cells: Iterable[str]) -> None:
    # As Text, because names come from outside and rich takes square brackets in a string for markup.
    table.add_row(*[Text(printable(cell)) for cell in cells])
