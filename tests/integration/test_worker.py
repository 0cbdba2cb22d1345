"""Releases as people operate them: real Prefect server, process work pool, worker and database, by the documents."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from prefect import get_client
from prefect.events import Event
from prefect.states import Cancelled, Crashed, Pending
from prefect.utilities.templating import resolve_block_document_references

from flows.run import pulse
from flows.server import dead_runs
from taylor_ops.storage.files import read_json
from tests.repository.test_workflows import step as workflow_step
from tests.support.documented import ROOT, documented, told
from tests.support.killed import silence_of, silent_run
from tests.support.operated import Prefect, suspended
from tests.support.run_form import prefilled
from tests.support.tiny_models import save_tiny_model

NAME, OWNER = "smollm2-135m-instruct-taylor", Path("example-org") / "SmolLM2-135M-Instruct-Taylor"


@pytest.fixture(scope="module")
def prefect(prefect_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """Server, deployments and worker, in a checkout whose release/smollm2 releases a tiny model under that name."""
    place = tmp_path_factory.mktemp("operated")
    running = Prefect(place, prefect_database)
    document = {
        "name": NAME,
        "version": "1.0.0",
        "source": {"kind": "folder", "path": str(save_tiny_model(place / "original"))},
        "calibration": {"tokens": 4096},
        # Tolerance and disturbance leave room for the clock of a busy machine: what is tested here is the worker.
        "latency": {
            "target_slowdown": 1.7,
            "tolerance": 0.5,
            "pairs": 15,
            "min_seconds": 0,
            "new_tokens": 8,
            "disturbance": 1,
            "also": [],
        },
        "conversion": {"tolerance": 1e-4},
        "exactness": {
            "prompts": [{"name": "project", "builtin": "held_out", "limit": 4}],
            "new_tokens": 8,
            "running_tokens": 128,
        },
        "card": {"license": "mit"},
        "publish": {"repo_id": str(OWNER)},
    }
    (running.checkout / "release_configs" / "smollm2.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    try:
        running.start(documented("prefect server start"))
        running.typed(documented("taylor-release deploy"))
        running.start(documented("prefect worker start --pool local"))
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def released(prefect: Prefect) -> Path:
    """The artifacts folder, in which version 1.0.0 was released in a process of its own."""
    said = prefect.typed(documented("taylor-release run"))
    assert "is published" in said
    assert "| ERROR" not in said
    return prefect.checkout / "artifacts"


def test_there_is_one_deployment_for_each_config_and_setting_up_again_changes_nothing(prefect: Prefect) -> None:
    def deployed() -> dict[str, str]:
        found = prefect.asked("deployments/filter", {})
        return {one["name"]: one["id"] for one in found}

    configs = {path.stem for path in (ROOT / "release_configs").glob("*.yaml")}
    declared = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    assert {entry["name"] for entry in declared} == configs
    assert {entry["parameters"]["config"] for entry in declared} == {f"release_configs/{name}.yaml" for name in configs}
    before = deployed()
    assert before.keys() == configs

    # By prefect.yaml, then by the command, which leaves the two slots that there are.
    prefect.typed("prefect --no-prompt deploy --all")
    assert deployed() == before
    prefect.typed(
        f"{documented('prefect gcl update gpu --limit')} && {documented('prefect gcl update gpu --active-slots')} && "
        f"{documented('prefect work-pool set-concurrency-limit')}"
    )
    there = ["work pool local: there, of type process", "concurrency limit gpu: there, 2 at once"]
    there += ["automation crashed releases: there", "automation releases that never began: there\n"]
    assert "\n".join(there) in prefect.called(documented("taylor-release deploy --pool local"))
    assert deployed() == before

    # One that an earlier version has made listens to what no run says any more.
    wanted, again = dead_runs.automation(), documented("taylor-release deploy --pool local")
    heartbeats = wanted.trigger.model_copy(update={"after": {"prefect.flow-run.heartbeat"}})
    with prefect.settings(), get_client(sync_client=True) as client:
        (found,) = client.read_automations_by_name(dead_runs.NAME)
        client.update_automation(found.id, wanted.model_copy(update={"trigger": heartbeats}))
        assert "automation crashed releases: made anew" in prefect.called(again)
        (found,) = client.read_automations_by_name(dead_runs.NAME)
        assert dead_runs.same_events(found, wanted)


def test_a_pool_of_containers_is_made_from_its_template_and_gets_a_token_from_the_server(prefect: Prefect) -> None:
    template = (ROOT / "containers" / "docker-pool.yaml").read_text("utf-8")
    for line in re.findall(r"^# ((?:python|prefect) .*)$", template, re.M):
        prefect.typed(line)
    said = prefect.called(documented("taylor-release deploy --pool containers"))
    assert "work pool containers: there, of type docker" in said
    found = prefect.asked("deployments/filter", {})
    assert {(one["work_pool_name"], one["job_variables"]["image"]) for one in found} == {
        ("containers", "taylor-release")
    }
    assert all("/release" in str(one["pull_steps"]) for one in found)
    prefect.called(documented("taylor-release deploy"))
    assert {one["work_pool_name"] for one in prefect.asked("deployments/filter", {})} == {"local"}

    prefect.typed(documented("python -c"), given="hf_a-token\n")
    (default,) = re.findall(r"^    # default: (.*)$", template, re.M)

    async def filled_in() -> Any:
        async with get_client() as client:
            return await resolve_block_document_references(yaml.safe_load(default), client=client)

    with prefect.settings():
        assert asyncio.run(filled_in()) == {"HF_TOKEN": "hf_a-token"}


def test_a_run_that_a_worker_took_and_that_never_began_is_marked_as_crashed(prefect: Prefect) -> None:
    with prefect.settings(), get_client(sync_client=True) as client:
        (found,) = client.read_automations_by_name(dead_runs.NEVER_BEGAN)
        client.update_automation(found.id, dead_runs.never_began(timedelta(seconds=10)))
        deployment = client.read_deployment_by_name("release/llama").id
        # As its machine leaves it that dies before the process is there.
        run = str(client.create_flow_run_from_deployment(deployment, state=Pending()).id)
        assert prefect.until(run, "CRASHED", "RUNNING", "FAILED") == "CRASHED"
        # A busy machine takes longer than those ten seconds to begin the runs of the tests below.
        client.update_automation(found.id, dead_runs.never_began())


def test_wrong_parameters_and_broken_configs_are_refused_with_the_reason_before_a_run_is_created(
    prefect: Prefect, tmp_path: Path
) -> None:
    before = len(prefect.runs())
    wrong = "prefect deployment run release/smollm2 -p target_slowdown=fast"
    refused = " ".join(prefect.typed(wrong, status=1).split())
    assert "target_slowdown" in refused
    assert "Failure reason: 'fast' is not valid" in refused

    submit = "taylor-release submit release_configs/smollm2.yaml --set"
    assert "latency.target_slowdown" in prefect.called(f"{submit} latency.target_slowdown=fast", status=2)
    (tmp_path / "unknown.yaml").write_bytes((prefect.checkout / "release_configs" / "smollm2.yaml").read_bytes())
    assert "no deployment release/unknown" in prefect.called(f"taylor-release submit {tmp_path}/unknown.yaml", status=2)

    (tmp_path / "broken.yaml").write_text("name: Tiny\n", encoding="utf-8")
    for command in (f"submit {tmp_path}/broken.yaml", f"deploy --configs {tmp_path}"):
        assert "broken.yaml:1: name" in prefect.called(f"taylor-release {command}", status=2)
    assert len(prefect.runs()) == before
    assert "unknown" not in {found["name"] for found in prefect.asked("deployments/filter", {})}


def test_the_form_of_the_ui_releases_untouched_what_the_config_says_and_a_dry_run_of_it_releases_nothing(
    prefect: Prefect, released: Path
) -> None:
    (deployment,) = (one for one in prefect.asked("deployments/filter", {}) if one["name"] == "smollm2")
    untouched = prefilled(deployment["parameter_openapi_schema"], deployment["parameters"])

    def run_of(**changed: Any) -> str:
        sent = {"parameters": untouched | changed, "enforce_parameter_schema": True}
        return str(prefect.asked(f"deployments/{deployment['id']}/create_flow_run", sent)["id"])

    # The dry run says so of a release that is to be approved, too, and asks nobody.
    for run in (run_of(), run_of(dry_run=True, version="3.0.0", more="publish: {approval: true}")):
        assert prefect.until(run, "COMPLETED", "FAILED", "CRASHED", "PAUSED") == "COMPLETED"
    record = read_json(released / NAME / "1.0.0" / "release.json")
    assert all(cost["cached"] for cost in record["stages"].values())
    manifest = read_json(released / "hub" / OWNER / "1.0.0" / "taylor_release.json")
    assert "overridden" not in manifest

    assert not (released / NAME / "3.0.0").exists()
    (shown,) = prefect.asked("artifacts/filter", {"artifacts": {"key": {"any_": [f"{NAME}-dry-run"]}}})
    assert f"| {NAME} 3.0.0 |" in shown["data"]
    assert "after approval |" in shown["data"]


def test_what_the_documents_have_people_type_releases_shows_and_compares(prefect: Prefect, released: Path) -> None:
    assert "1 config in order" in prefect.called(documented("taylor-release check release_configs/smollm2.yaml"))
    assert "configs in order" in prefect.called(documented("taylor-release check release_configs/*.yaml"))
    assert "slowdowns within reach" in prefect.called(documented("taylor-release plan"))
    said = prefect.typed(documented("prefect deployment run release/smollm2 --watch"), COLUMNS="200")
    assert "an attacker recovers" in said
    record = read_json(released / NAME / "1.0.0" / "release.json")
    assert all(cost["cached"] for cost in record["stages"].values())

    prefect.typed(documented("prefect deployment run release/smollm2 --watch -p"))
    changed = read_json(released / NAME / "1.0.1" / "release.json")
    assert (released / "hub" / OWNER / "1.0.1" / "config.json").is_file()
    assert {stage for stage, cost in changed["stages"].items() if not cost["cached"]} == {
        "assemble",
        "leaks",
        "publish",
        "verify",
    }
    assert {f"{NAME} 1.0.0", f"{NAME} 1.0.1"} <= {run["name"] for run in prefect.runs()}

    assert "1.0.1" in prefect.called(documented("taylor-release list"))
    assert "slowdown" in prefect.called(documented("taylor-release show"))
    # The two differ in no gate.
    compared = documented("taylor-release diff")
    assert "slowdown" not in prefect.called(compared)
    assert "slowdown" in prefect.called(f"{compared} --all")
    assert "files as listed; " in prefect.called(documented("taylor-release verify"))


def assert_not_taken_for_dead(prefect: Prefect, run: str) -> None:
    """See a run that waits left alone, though Prefect's own heartbeat comes late.

    Prefect sends it until the process has ended, which takes longer than to suspend its run.
    """
    (deployment,) = prefect.asked("deployments/filter", {"deployments": {"name": {"any_": ["smollm2"]}}})
    resource = {"prefect.resource.id": f"prefect.flow-run.{run}", "prefect.resource.name": "late"}
    flow = {"prefect.resource.id": f"prefect.flow.{deployment['flow_id']}", "prefect.resource.role": "flow"}
    late = Event(
        event="prefect.flow-run.heartbeat", resource=resource, related=[flow | {"prefect.resource.name": "release"}]
    )
    silence_of(prefect, 10)
    with prefect.settings(), get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[late.model_dump(mode="json")]).raise_for_status()
    assert prefect.until(silent_run(prefect, deployment["id"]), "CRASHED") == "CRASHED"
    assert prefect.state(run) == "PAUSED"
    silence_of(prefect, 90)
    beats = {"event": {"name": [pulse.ALIVE, pulse.SILENT]}, "resource": {"id": [resource["prefect.resource.id"]]}}
    events = prefect.asked("events/filter", {"filter": {**beats, "order": "ASC"}, "limit": 50})["events"]
    assert (events[0]["event"], events[-1]["event"]) == (pulse.ALIVE, pulse.SILENT)


def test_a_release_waits_for_approval_and_publishes_nothing_unless_it_is_given(
    prefect: Prefect, released: Path, tmp_path: Path
) -> None:
    place, out = released / NAME, released / "hub" / OWNER / "1.0.2"
    submitted = prefect.begun(documented("taylor-release submit"))
    run = suspended(submitted)
    assert_not_taken_for_dead(prefect, run)
    (parameters,) = (one["parameters"] for one in prefect.runs() if one["id"] == run)
    assert parameters["expected"].startswith(f"{NAME} 1.0.2 ")
    shown = prefect.asked("artifacts/filter", {"artifacts": {"key": {"any_": [f"{NAME}-approval"]}}})
    assert all(
        gate in shown[0]["data"] for gate in ("** slowdown: ", "** exactness, project: ", "** audit, rank_one: ")
    )
    assert f"{NAME} 1.0.2" in " ".join(prefect.typed(documented("prefect flow-run ls"), COLUMNS="200").split())
    # The server still knows the run to wait: what it will go on with stays.
    assert f"left alone: {NAME}" in prefect.called(documented("taylor-release clean --keep 3 --dry-run"))
    assert f"left alone: {NAME}" in prefect.called("taylor-release clean --keep 0")
    assert "'comment'" in prefect.called(f'taylor-release approve {run} --by Kim --comment ""', status=2)
    prefect.called(told("taylor-release reject", run))
    said, _ = submitted.communicate()
    assert submitted.returncode == 1
    assert "rejected by Ada Lovelace: the licence is not settled" in said
    assert not out.exists()
    assert not (place / "1.0.2").exists()
    assert "waits for no answer" in prefect.called(told("taylor-release approve", run), status=2)

    # A retry asks anew, also where the run was ended while it waited. An automation and a person in the UI do that
    # without force, and the server then takes the question for answered.
    for ended, force in ((Crashed(), False), (Cancelled(), True), (Cancelled(), True)):
        prefect.typed(told("prefect flow-run retry", run))
        assert prefect.until(run, "PAUSED", "COMPLETED", "FAILED", "CRASHED") == "PAUSED"
        with prefect.settings(), get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(run), ended, force=force)

    # As the workflow does it.
    step = workflow_step("release", "on-server", "Release")["run"]
    script = step.replace(".venv/bin/taylor-release", f"{sys.executable} -m flows.commands")
    config, summary = "release_configs/smollm2.yaml", tmp_path / "summary.md"
    submitted = prefect.begun(
        f"{script} --set version=1.0.2 --set publish.approval=true",
        CONFIG=config,
        DRY_RUN="",
        GITHUB_STEP_SUMMARY=str(summary),
    )
    run = suspended(submitted)
    twin = prefect.begun(documented("taylor-release submit"))
    other = suspended(twin)
    assert not out.exists()
    # Who stops to watch stops nothing else.
    twin.terminate()
    cause, remedy = twin.communicate()[0].splitlines()[-2:]
    assert twin.returncode == 1
    assert cause == f"error: no longer watched: run {other} goes on without this command"
    assert f"prefect flow-run cancel {other} ends it" in remedy
    prefect.called(told("taylor-release approve", run))
    said, _ = submitted.communicate()
    assert submitted.returncode == 0, said
    *asked, published, slowdown, tokens, recovered, report = said.splitlines()
    options = f'{run} --by "YOUR NAME" --comment "WHY"'
    page = f"{prefect.environment['PREFECT_API_URL'].removesuffix('/api')}/runs/flow-run/{run}"
    answers = [f"{NAME} 1.0.2 waits for approval: {page}"]
    answers += [f"taylor-release approve {options}", f"taylor-release reject {options}"]
    gates = asked[: asked.index(answers[0])]
    assert asked[len(gates) : len(gates) + 3] == answers
    assert any(line.startswith("- **passed** slowdown: ") for line in gates)
    # What it says besides, of which a release says nothing more that nobody has to approve.
    assert len(said.splitlines()) - len(gates) - len(answers) < 25
    assert published == f"- {NAME} 1.0.2 is published: {out}"
    assert re.fullmatch(r"- slowdown [\d.]+ \(95 % of loadings [\d.]+ to [\d.]+, target 1\.7\)", slowdown)
    assert re.fullmatch(r"- tokens equal on \d of 4 prompts", tokens)
    assert recovered.startswith("- an attacker recovers ")
    assert report == f"- report: {place / '1.0.2' / 'report.html'}"
    # Who follows the log, as `prefect deployment run --watch` does, reads the same.
    logs = prefect.asked("logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200})
    said_there = [found["message"] for found in logs]
    assert "\n".join([*gates, *answers]) in said_there
    assert any(message.endswith(report.removeprefix("- ")) for message in said_there)
    record, manifest = read_json(place / "1.0.2" / "release.json"), read_json(out / "taylor_release.json")
    assert record["approval"] == manifest["approval"] == {"by": "Ada Lovelace", "comment": "as agreed"}
    made_before = ("resolve", "capture", "calibrate", "transfer", "convert", "validate", "audit")
    assert all(record["stages"][stage]["cached"] for stage in made_before)
    assert re.search(r"- \*\*passed\*\* slowdown: [^;]+; required: 1\.7 within 50 %: ", summary.read_text("utf-8"))
    # The other one, of the same content, heeds its own answer in place of that one.
    prefect.called(told("taylor-release reject", other))
    assert prefect.until(other, "COMPLETED", "FAILED", "CRASHED") == "FAILED"
    (ended,) = (one["state"]["message"] for one in prefect.runs() if one["id"] == other)
    assert "rejected by Ada Lovelace: the licence is not settled" in ended
    assert not list((place / "stages").glob("*.waiting"))
    assert "left alone" not in prefect.called(documented("taylor-release clean --keep 3"))

    # The server writes events down some seconds after it got them: these are of the runs before.
    wanted = {"filter": {"event": {"name": ["release.published", "release.rejected"]}}, "limit": 50}
    events = prefect.asked("events/filter", wanted)["events"]
    happened = {(event["event"], event["resource"]["prefect.resource.id"]) for event in events}
    assert ("release.published", f"taylor-release.{NAME}.1.0.0") in happened
    assert ("release.rejected", f"taylor-release.{NAME}.1.0.2") in happened
