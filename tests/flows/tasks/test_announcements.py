"""What the server shows of a release: names that say model and version, artifacts of its end, events."""

from __future__ import annotations

import base64
import re
import shutil
from pathlib import Path
from typing import Any
from uuid import UUID
from xml.etree import ElementTree

import pytest
from prefect import flow, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import Artifact, FlowRun

from flows.release import release
from flows.run.release_run import ReleaseRun, open_release
from flows.tasks.approval import Decision, approve
from taylor_ops.bundle.findings import Findings
from taylor_ops.bundle.record import Approval
from taylor_ops.errors import BadInput, GateRejected, WorkFailed
from taylor_ops.publishing.publish import publish
from taylor_ops.releases.headlines import headline_before_publication
from tests.support import release_example as example
from tests.support.keys import write_key
from tests.support.released import released

pytestmark = pytest.mark.usefixtures("prefect_server", "consumer_in_this_process")
FINDINGS = Findings(
    source=example.source(),
    converted=example.converted(),
    latency=example.latency(),
    exactness=example.exactness(),
    audit=example.audit(),
)


def artifacts_of(run: UUID) -> dict[str, Artifact]:
    """The artifacts of a flow run by key."""
    with get_client(sync_client=True) as client:
        wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
        return {str(found.key): found for found in client.read_artifacts(artifact_filter=wanted)}


def last_run() -> FlowRun:
    """The flow run that began last."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs()
    return max(runs, key=lambda run: run.created)  # type: ignore[arg-type, return-value]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is emitted from here on, in place of a worker that sends it."""
    emitted: list[Any] = []
    monkeypatch.setattr("flows.tasks.announcements.emit_event", lambda event, **more: emitted.append((event, more)))
    return emitted


@pytest.mark.usefixtures("simulated_clock")
def test_a_release_shows_its_report_with_plots_and_its_card_and_one_that_a_gate_ends_says_so(
    tiny_config: Path, tmp_path: Path, events: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "a" / "hub" / "org" / "tiny" / "1.0.0" / "config.json"

    def then_damage(*given: Any) -> Any:
        done = publish(*given)
        copy.write_text("{}", encoding="utf-8")
        return done

    with monkeypatch.context() as patch:
        patch.setattr("taylor_ops.publishing.publish.publish", then_damage)
        with pytest.raises(
            WorkFailed, match=r"tiny 1\.0\.0 is published and does not verify: .*config\.json"
        ) as caught:
            released(tiny_config, tmp_path / "a")
    assert caught.value.remedy.startswith("remove hub/org/tiny/1.0.0 below the artifacts folder")
    [(out, _), (unverified, said)] = events
    assert (out, unverified) == ("release.published", "release.unverified")
    assert "config.json" in said["payload"]["cause"]
    assert said["payload"]["published"]["path"] == "hub/org/tiny/1.0.0"
    events.clear()
    shutil.copyfile(tmp_path / "a" / "tiny" / "1.0.0" / "bundle" / "config.json", copy)

    released(tiny_config, tmp_path / "a")
    run = last_run()
    assert run.name == "tiny 1.0.0"
    with get_client(sync_client=True) as client:
        tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))
    stages = (
        "resolve",
        "capture",
        "calibrate",
        "transfer",
        "convert",
        "mark",
        "validate",
        "audit",
        "assemble",
        "refuse leaks",
        "publish",
        "verify",
        "report",
    )
    assert {task.name for task in tasks} == set(stages)
    assert {"model: tiny", "version: 1.0.0", "target: folder"} <= set(run.tags)

    shown = artifacts_of(run.id)
    place = tmp_path / "a" / "hub" / "org" / "tiny" / "1.0.0"
    # Beside them stand the progress of stages and the few lines of the outcome.
    kinds = {found.type for found in shown.values()}
    assert kinds <= {"markdown", "progress"}
    report, card = str(shown["tiny-report"].data), str(shown["tiny-card"].data)
    assert report.startswith("## tiny 1.0.0\n\n**The bundle generated the same tokens as the original on ")
    assert "\n- **passed** slowdown: " in report
    assert f"```\n{place}\n```" in report
    assert "file://" not in report + card
    plots = re.findall(r"^!\[.+\]\(data:image/svg\+xml;base64,(.*)\)$", report, re.MULTILINE)
    assert len(plots) == (tmp_path / "a" / "tiny" / "1.0.0" / "report.html").read_text("utf-8").count("<svg")
    for plot in plots:
        assert ElementTree.fromstring(base64.b64decode(plot)).tag == "{http://www.w3.org/2000/svg}svg"
    assert card.startswith("# tiny 1.0.0\n\n- **What it is**: ")

    with pytest.raises(GateRejected):
        released(tiny_config, tmp_path / "a", {"card.license": "apache-2.0"})
    (published, about), (rejected, why) = events
    assert (published, rejected) == ("release.published", "release.rejected")
    assert about["resource"]["prefect.resource.id"] == "taylor-release.tiny.1.0.0"
    assert about["payload"]["published"]["path"] == "hub/org/tiny/1.0.0"
    assert about["related"][0]["prefect.resource.id"] == f"prefect.flow-run.{run.id}"
    assert "published already, with other bytes" in why["payload"]["cause"]
    refused = str(artifacts_of(last_run().id)["tiny-report"].data)
    assert refused.startswith("## tiny 1.0.0\n\n**failed**: ")
    assert "published already, with other bytes" in refused


def test_approval_is_refused_to_a_run_that_cannot_be_suspended_before_any_work(
    tiny_config: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=r"`publish\.approval` needs a run of a deployment"):
        released(tiny_config, tmp_path / "a", {"publish.approval": "true"})
    assert not (tmp_path / "a").exists()


@flow
def approval_of(release: ReleaseRun, comment: str = "") -> Approval | None:
    """The part of a release that asks for an approval."""
    return approve(release, FINDINGS, comment)


def test_what_was_approved_is_asked_about_again_once_another_signs(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answered(_form: Any, key: str) -> Decision:
        asked.append(key)
        return Decision(decision="approve", by="Ada", comment="as agreed")

    def asked_again(signing: str | None) -> bool:
        overrides = {"publish.approval": "true"} | ({} if signing is None else {"publish.signing": signing})
        before = len(asked)
        given = approval_of(open_release(str(tiny_config), overrides, str(tmp_path / "a")))
        assert given == Approval(by="Ada", comment="as agreed")
        return len(asked) > before

    monkeypatch.setattr("flows.tasks.approval.suspend_flow_run", answered)
    key, moved = write_key(tmp_path / "key.pem"), tmp_path / "moved.pem"
    ann, bob = (
        f"{{method: sigstore, identity: {name}@example.org, issuer: https://example.org}}" for name in ("ann", "bob")
    )
    assert asked_again(None)
    assert not asked_again(None)
    assert asked_again(f"{{key_file: {key}}}")
    # Where a key lies is nothing that the bundle states; whose it is, is.
    shutil.copy(key, moved)
    assert not asked_again(f"{{key_file: {moved}}}")
    write_key(key)
    assert asked_again(f"{{key_file: {key}}}")
    assert asked_again(ann)
    assert not asked_again(ann)
    assert asked_again(bob)
    assert len(set(asked)) == len(asked)


def test_an_approval_shows_what_whoever_started_the_run_says_and_has_changed(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    yes = Decision(decision="approve", by="Ada", comment="as agreed")
    monkeypatch.setattr("flows.tasks.approval.suspend_flow_run", lambda _form, key: yes)
    changed = {"publish.approval": "true", "latency.tolerance": "0.01"}
    approval_of(open_release(str(tiny_config), changed, str(tmp_path / "a")), "for the *workshop*\nin May")
    shown = str(artifacts_of(last_run().id)["tiny-approval"].data)
    heading, headline, said, found = shown.split("\n\n")[:4]
    assert (heading, said) == ("## tiny 1.0.0", r"for the \*workshop\* in May")
    assert headline == f"**{headline_before_publication(FINDINGS)}**"
    assert found.startswith("- **passed** slowdown: ")
    assert "| `publish.approval` | false | true |\n" in shown
    assert "| `latency.tolerance` | 0.03 | 0.01 |\n" in shown


def test_a_config_that_cannot_be_read_gives_the_run_the_name_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("name: [", encoding="utf-8")
    with pytest.raises(BadInput):
        release(str(tmp_path / "broken.yaml"))
    assert last_run().name == "broken"
