"""The verdicts of gates, and the sentence above them."""

from __future__ import annotations

from typing import Any

import pytest

from taylor_ops.audit.record import AuditRecord
from taylor_ops.bundle.findings import Findings
from taylor_ops.config.audit import Audit, Thresholds
from taylor_ops.releases.gates import Gate, gates, gates_before_publication, gates_in_markdown, gates_listed
from taylor_ops.releases.headlines import headline_before_publication, headline_of
from taylor_ops.releases.markdown import release_in_markdown
from taylor_ops.releases.record import ReleaseRecord
from tests.support import release_example as example

BLOCK = Audit(policy="block", thresholds=Thresholds(rank_one=1.0))


def gate(record: ReleaseRecord, name: str) -> Gate:
    (found,) = (one for one in gates(record) if one.gate == name)
    return found


def test_the_example_passes_every_gate_but_the_audit_which_only_reports() -> None:
    verdicts = {one.gate: one.verdict for one in gates(example.record())}
    assert verdicts.pop("audit, rank_one") == "reported only"
    assert set(verdicts.values()) == {"passed"}


def attacked(**attack: Any) -> ReleaseRecord:
    return example.record(audit=example.audit(example.attack(**attack)), config=example.config(audit=BLOCK))


def test_a_threshold_that_binds_passes_or_fails_an_attack() -> None:
    assert gate(attacked(), "audit, rank_one").verdict == "passed"
    assert gate(attacked(recovered_1pct=1.5), "audit, rank_one").verdict == "failed"
    undetermined = gate(attacked(under_determined="too few samples"), "audit, rank_one")
    assert undetermined.verdict == "failed"
    assert undetermined.found.endswith("and could not determine all of them")


def test_a_policy_that_blocks_fails_an_audit_that_was_skipped() -> None:
    skipped = AuditRecord(attacks=(), skipped=True)
    *_, audit, _leaks = gates_before_publication(example.latency(), example.exactness(), skipped, BLOCK)
    assert (audit.verdict, audit.required) == ("failed", "an attack is run")


def test_a_figure_outside_of_what_is_required_is_never_called_passed() -> None:
    slow = example.record(latency=example.latency(example.trial(307_200, 3.0, 3.4)))
    assert gate(slow, "slowdown").verdict == "failed"
    latency = example.latency()
    missed = latency.devices[0].model_copy(update={"met": False})
    elsewhere = example.record(latency=latency.model_copy(update={"devices": (missed,)}))
    assert gate(elsewhere, "slowdown, Example GPU 9").verdict == "failed"
    apart = example.comparison(23, 1e-3, (example.divergence(tie=False),))
    differs = example.exactness(example.data_set("gsm8k", apart, example.comparison(24, 1e-9)))
    assert gate(example.record(exactness=differs), "exactness, gsm8k").verdict == "failed"
    exactness = example.exactness()
    beyond = exactness.layers[0].model_copy(update={"inside": 0.5})
    layers = exactness.model_copy(update={"layers": (beyond, *exactness.layers[1:])})
    assert gate(example.record(exactness=layers), "error of every MLP").verdict == "failed"


def test_tables_begin_with_the_verdict() -> None:
    lines = gates_in_markdown(gates(example.record())).splitlines()
    assert lines[0] == "| verdict | gate | found | required |"
    assert lines[2].startswith("| passed | neurons protected | 18,432 of 18,432 neurons (100 %) |")


def test_what_the_prefect_ui_shows_is_a_list_in_which_no_name_is_markup() -> None:
    one = Gate(verdict="reported only", gate="audit, a*b", found="an attacker", required="nothing")
    assert gates_listed([one]) == "- **reported only** audit, a\\*b: an attacker; required: nothing\n"


def test_one_thread_is_singular_in_the_name_of_a_gate() -> None:
    latency = example.latency()
    alone = latency.devices[0].model_copy(update={"device": "Example CPU 3, 1 threads"})
    record = example.record(latency=latency.model_copy(update={"devices": (alone,)}))
    assert gate(record, "slowdown, Example CPU 3, 1 thread").verdict == "passed"


def test_the_headline_stands_on_top_and_is_the_same_before_and_after_publication() -> None:
    record = example.record()
    said = headline_of(record)
    assert said == (
        "The bundle generated the same tokens as the original on 47 of 48 held-out prompts and takes 2.97 times as "
        "long per token (target 3 within 10 %). It has 2.7 times the bytes of the original. The audit recovered over "
        "99.99 % of the protected weights."
    )
    assert release_in_markdown(record).splitlines()[2] == f"**{said}**"
    findings = Findings(
        source=example.source(),
        converted=example.converted(),
        latency=example.latency(),
        exactness=example.exactness(),
        audit=example.audit(),
    )
    assert headline_before_publication(findings) == said


@pytest.mark.parametrize("skipped", [True, False])
def test_the_headline_says_whether_an_attack_was_tried(skipped: bool) -> None:
    said = headline_of(example.record(audit=example.audit(skipped=skipped)))
    assert ("no attack was tried" in said) is skipped
