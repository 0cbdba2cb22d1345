"""What is read from the artifacts folder: the list of releases, one of them, two beside each other."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.commands.main import app
from taylor_ops.audit.record import AuditRecord
from taylor_ops.bundle.record import Approval
from taylor_ops.config.audit import Audit, Thresholds
from taylor_ops.errors import BadInput
from taylor_ops.leaks.record import NoLeak
from taylor_ops.presentation.wording import figure, markdown_table
from taylor_ops.publishing.record import Published
from taylor_ops.releases.comparison import compare
from taylor_ops.releases.gates import gates, gates_before_publication
from taylor_ops.releases.index import note_published, published_at, run_of, runs
from taylor_ops.releases.markdown import release_in_markdown
from tests.support import release_example as example

WHEN = datetime(2026, 3, 1, 14, 5, tzinfo=UTC)


def released(artifacts: Path, version: str = "1.2.0", **changes: Any) -> None:
    """Write the record of a release of the example."""
    record = example.record(config=example.config(version=version), **changes)
    record.write(artifacts / "tiny-taylor" / version / "release.json")


def said(*arguments: str | Path, columns: int = 240) -> str:
    """What the command line says, in this process and wide enough for every table."""
    done = CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": str(columns)})
    if done.exception:
        raise done.exception
    return done.stdout


def row(text: str, *cells: str) -> list[str]:
    """The cells of the one row that begins with `cells`."""
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines()]
    found = [row for row in rows if tuple(row[: len(cells)]) == cells]
    assert len(found) == 1, text
    return found[0][len(cells) :]


def test_the_list_says_when_from_what_with_which_figures_and_by_which_approval(tmp_path: Path) -> None:
    released(tmp_path, approval=Approval(by="Kim [red]", comment="the audit is as before"), published_at=WHEN)
    (line,) = json.loads(said("list", "--artifacts", tmp_path, "--json"))
    assert line == {
        "name": "tiny-taylor",
        "version": "1.2.0",
        "published": "yes",
        "when": "2026-03-01 14:05 UTC",
        "source": f"https://huggingface.co/owner/Tiny at {example.COMMIT}",
        "slowdown": "2.97",
        "withheld": "100 %",
        "bundle": "1.45 GB",
        "approval": "Kim [red]: the audit is as before",
        "problem": None,
    }
    told = row(said("list", "--artifacts", tmp_path), "tiny-taylor", "1.2.0")
    assert told[0] == "2026-03-01 14:05 UTC"
    assert told[-1] == "Kim [red]: the audit is as before"


def test_versions_are_listed_as_numbers_and_an_unfinished_run_as_such(tmp_path: Path) -> None:
    for version in ("1.10.0", "1.9.0", "1.10.0-rc.1"):
        released(tmp_path, version)
    (tmp_path / "tiny-taylor" / "2.0.0" / "bundle").mkdir(parents=True)
    (tmp_path / "tiny-taylor" / "stages").mkdir()
    (tmp_path / "hub" / "example-org").mkdir(parents=True)
    assert [run.version for run in runs(tmp_path)] == ["1.9.0", "1.10.0-rc.1", "1.10.0", "2.0.0"]
    assert row(said("list", "--artifacts", tmp_path), "tiny-taylor", "2.0.0")[0] == "not finished"


def test_at_80_columns_the_list_has_full_names_and_versions_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    name, version = "a-model-with-a-rather-long-name-7b-instruct-taylor", "10.20.30-rc.1"
    released(tmp_path)
    (tmp_path / name / version / "bundle").mkdir(parents=True)
    text = said("list", "--artifacts", tmp_path, columns=80)
    assert max(map(len, text.splitlines())) <= 80
    assert row(text, name, version) == []
    assert "a wider terminal also shows when, slowdown, protected, bundle, source, approval" in " ".join(text.split())
    assert row(said("list", "--artifacts", tmp_path, columns=90), name, version) == ["not finished"]
    assert "wider" not in said("list", "--artifacts", tmp_path)


def test_a_name_that_is_wider_than_the_terminal_goes_on_in_the_next_line(tmp_path: Path) -> None:
    (tmp_path / "".join(["x" * 49, "y" * 49]) / "1.0.0").mkdir(parents=True)
    text = said("list", "--artifacts", tmp_path, columns=80)
    assert (text.count("x"), text.count("y"), "…" in text) == (49, 49, False)


def test_an_empty_place_is_no_error(tmp_path: Path) -> None:
    assert said("list", "--artifacts", tmp_path / "nowhere") == "nothing was released here yet\n"
    assert json.loads(said("list", "--artifacts", tmp_path, "--json")) == []


def test_a_record_of_other_software_is_named_and_hides_no_other(tmp_path: Path) -> None:
    released(tmp_path)
    old = tmp_path / "tiny-taylor" / "1.0.0" / "release.json"
    old.parent.mkdir()
    old.write_text('{"name": "tiny-taylor"}', encoding="utf-8")
    lines = json.loads(said("list", "--artifacts", tmp_path, "--json"))
    assert [line["problem"] is None for line in lines] == [False, True]
    assert "written by another version of taylor-release: version: Field required" in lines[0]["problem"]
    text = said("list", "--artifacts", tmp_path)
    assert row(text, "tiny-taylor", "1.0.0")[0] == "not readable"
    assert lines[0]["problem"] in text
    with pytest.raises(BadInput, match=r"1\.0\.0.release\.json was written by another version"):
        said("show", "tiny-taylor", "1.0.0", "--artifacts", tmp_path)


def test_one_release_is_shown_with_every_gate(tmp_path: Path) -> None:
    released(tmp_path)
    text = said("show", "tiny-taylor", "1.2.0", "--artifacts", tmp_path)
    assert row(text, "passed", "slowdown") == [
        "2.97 times as long per token (95 % of loadings 2.92 to 3.05)",
        "3 within 10 %: 2.70 to 3.30",
    ]
    assert row(text, "passed", "exactness, gsm8k")[0].startswith("the same tokens on 23 of 24 prompts, KL 2.3e-8")
    assert row(text, "passed", "neurons protected")[0] == "18,432 of 18,432 neurons (100 %)"
    assert row(text, "reported only", "audit, rank_one") == [
        "an attacker recovers over 99.99 % of the weights, errors under 1 %",
        "nothing; policy `block` would allow 1 %",
    ]
    assert json.loads(said("show", "tiny-taylor", "1.2.0", "--artifacts", tmp_path, "--json"))["name"] == "tiny-taylor"


def test_a_version_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    released(tmp_path)
    with pytest.raises(BadInput, match=r"1\.3\.0 was not released here: of tiny-taylor there is 1\.2\.0"):
        run_of(tmp_path, "tiny-taylor", "1.3.0")
    with pytest.raises(BadInput, match="there is no large in"):
        run_of(tmp_path, "large", "1.2.0")


def test_two_releases_differ_in_the_gate_that_changed_and_in_no_other(tmp_path: Path) -> None:
    released(tmp_path)
    data_sets = (
        example.data_set("project", example.comparison(22, 3.1e-9), example.comparison(24, 4.7e-11)),
        example.exactness().data_sets[1],
    )
    released(tmp_path, "1.3.0", exactness=example.exactness(*data_sets), audit=example.audit(skipped=True))
    found = json.loads(said("diff", "tiny-taylor", "1.2.0", "1.3.0", "--artifacts", tmp_path, "--json"))
    changed = {line["what"]: (line["first"], line["second"]) for line in found if not line["same"]}
    assert changed == {
        "exactness, project": (
            "the same tokens on 24 of 24 prompts, KL 3.1e-9 nats per token",
            "the same tokens on 22 of 24 prompts, KL 3.1e-9 nats per token",
        ),
        "audit, rank_one": ("an attacker recovers over 99.99 % of the weights, errors under 1 %", "none"),
        "audit, rank_one, required": ("nothing; policy `block` would allow 1 %", "none"),
        "audit": ("none", "skipped: no attack was run"),
        "audit, required": ("none", "nothing"),
    }
    both = ("diff", "tiny-taylor", "1.2.0", "1.3.0", "--artifacts", tmp_path)
    text = said(*both)
    assert row(text, "exactness, project") == list(changed["exactness, project"])
    assert "slowdown" not in text
    assert f"the same in {len(found) - 5} others, which `--all` shows" in text
    all_lines = said(*both, "--all")
    assert row(all_lines, "slowdown") == ["2.97 times as long per token (95 % of loadings 2.92 to 3.05)"] * 2
    assert row(all_lines, "exactness, project") == list(changed["exactness, project"])
    same = said("diff", "tiny-taylor", "1.2.0", "1.2.0", "--artifacts", tmp_path)
    assert same == f"tiny-taylor 1.2.0 and 1.2.0 are the same in all {len(found) - 2} facts and gates\n"


def test_a_release_does_not_differ_from_itself() -> None:
    record = example.record()
    assert all(difference.same for difference in compare(record, record))


def test_what_is_to_be_approved_has_the_gates_known_by_then() -> None:
    known = gates_before_publication(example.latency(), example.exactness(), example.audit(), Audit())
    of_all = gates(example.record())
    assert [gate.gate for gate in known] == [
        "slowdown",
        "slowdown, Example GPU 9",
        "exactness, project",
        "exactness, gsm8k",
        "audit, rank_one",
        "leaks",
    ]
    assert set(known[:-1]) <= set(of_all)
    assert (known[-1].verdict, known[-1].found.endswith("before anything is published")) == ("to come", True)


def test_each_task_is_a_gate_that_says_its_largest_difference_and_what_is_allowed() -> None:
    found = {gate.gate: gate for gate in gates(example.record(tasks=(example.task(),)))}
    gate = found["task, arithmetic"]
    assert gate.found == "acc_norm of the bundle 0.4083, of the original 0.4, on 120 documents"
    assert (gate.verdict, gate.required) == ("passed", "no score apart by more than 0.01")
    worse = example.task(allowed=0.0)
    assert "failed" in [gate.verdict for gate in gates(example.record(tasks=(worse,)))]
    known = gates_before_publication(
        example.latency(), example.exactness(), example.audit(), Audit(), (example.task(),)
    )
    assert gate in known


def test_each_device_with_a_target_of_its_own_is_a_gate_of_its_own() -> None:
    latency = example.latency()
    (there,) = latency.devices
    twice = latency.model_copy(update={"devices": (there, there.model_copy(update={"target": 2.1}))})
    found = {gate.gate: gate for gate in gates(example.record(latency=twice)) if gate.gate.startswith("slowdown, ")}
    assert list(found) == ["slowdown, Example GPU 9", "slowdown, Example GPU 9 (2)"]
    assert [gate.required for gate in found.values()] == [
        "2 within 15 %: 1.70 to 2.30",
        "2.1 within 15 %: 1.78 to 2.42",
    ]
    assert found["slowdown, Example GPU 9"].found == "2.06 times as long per token (95 % interval 2.03 to 2.10)"
    assert (
        found.items()
        <= {
            gate.gate: gate for gate in gates_before_publication(twice, example.exactness(), example.audit(), Audit())
        }.items()
    )
    differs = [one.what for one in compare(example.record(), example.record(latency=twice)) if not one.same]
    assert differs == ["slowdown, Example GPU 9 (2)", "slowdown, Example GPU 9 (2), required"]


def test_what_is_to_be_approved_has_the_share_that_an_attack_may_recover() -> None:
    settings = Audit(policy="block", thresholds=Thresholds(rank_one=0.25))
    *_, attack, _leaks = gates_before_publication(example.latency(), example.exactness(), example.audit(), settings)
    assert (attack.verdict, attack.required) == ("failed", "at most 25 % of the weights")
    config = example.config(audit=settings)
    assert attack in gates(example.record(config=config))


def test_the_leak_gate_of_a_finished_release_says_what_it_looked_through() -> None:
    record = example.record(leaks=NoLeak(files=14, tensors=273, lines=66_240))
    (gate,) = (gate for gate in gates(record) if gate.gate == "leaks")
    assert gate.found.startswith(
        "none in 14 files and 273 tensors, which were searched for 66,240 protected rows and columns"
    )
    assert "leaks" not in [gate.gate for gate in gates(example.record())]


def test_a_skipped_audit_is_said_where_a_person_decides() -> None:
    skipped = AuditRecord(attacks=(), skipped=True)
    *_, audit, _leaks = gates_before_publication(example.latency(), example.exactness(), skipped, Audit())
    assert (audit.verdict, audit.found) == ("reported only", "skipped: no attack was run")


def test_the_gate_of_the_layers_shows_the_one_nearest_its_bound() -> None:
    record = example.record()
    shares = [
        (error.inside or 0) / layer.bound
        for error, layer in zip(record.layer_errors, record.coverage.layers, strict=True)
    ]
    nearest = record.coverage.layers[shares.index(max(shares))]
    (gate,) = (gate for gate in gates(record) if gate.gate == "error of every MLP")
    error = record.layer_errors[shares.index(max(shares))].inside
    assert error is not None
    assert gate.found == f"layer closest to its bound: error {figure(error)}, bound {figure(nearest.bound)}"
    assert gate.verdict == "passed"


def test_markdown_holds_what_would_end_a_cell_or_begin_an_element() -> None:
    text = markdown_table(["a|b", "c"], [["one\ntwo", "<img>"]])
    assert text == "| a\\|b | c |\n| --- | --- |\n| one two | &lt;img> |\n"
    approval = Approval(by="Kim | <b>", comment="fine\n\n# not a heading")
    told = release_in_markdown(example.record(approval=approval))
    assert "| approval | Kim \\| &lt;b>: fine # not a heading |" in told


def test_a_publication_keeps_its_time_until_other_bytes_are_published(tmp_path: Path) -> None:
    place = Published(target="folder", repo_id="a/b", version="1.0.0", path="hub/a/b/1.0.0", unchanged=False)
    assert published_at(tmp_path) is None
    note_published(tmp_path, place)
    noted = published_at(tmp_path)
    assert noted is not None
    again = tmp_path / "published.json"
    again.write_text(again.read_text("utf-8").replace(noted.strftime("%Y-"), "2001-"), encoding="utf-8")
    note_published(tmp_path, place.model_copy(update={"unchanged": True}))
    kept = published_at(tmp_path)
    assert kept is not None
    assert kept.year == 2001
    note_published(tmp_path, place)
    assert published_at(tmp_path) != kept


def test_a_pull_request_that_waits_is_not_told_as_published(tmp_path: Path) -> None:
    page = "https://huggingface.co/org/tiny/discussions/3"
    waiting = Published(
        target="hub", repo_id="org/tiny", version="1.2.0", path=page, unchanged=False, commit="0" * 40, pull_request=3
    )
    record = example.record(published_at=WHEN).model_copy(update={"published": waiting})
    record.write(tmp_path / "tiny-taylor" / "1.2.0" / "release.json")
    (line,) = json.loads(said("list", "--artifacts", tmp_path, "--json"))
    assert (line["published"], line["when"]) == ("in review", "left for review 2026-03-01 14:05 UTC")
    told = f"not yet: pull request 3 of org/tiny waits at {page}"
    assert row(said("show", "tiny-taylor", "1.2.0", "--artifacts", tmp_path), "published") == [told]
    assert told in release_in_markdown(record)
