"""The run form of the UI on a real server: what it sends untouched, or with one field changed, is the config's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import get_client
from prefect.settings import PREFECT_API_URL

from flows.parameters import as_settings
from flows.release import release
from flows.run.release_run import open_release
from flows.server.deploy import deploy
from taylor_ops.config_file.read import ConfigErrors, LoadedConfig, read
from tests.flows.tasks.test_announcements import artifacts_of, last_run
from tests.support.documented import ROOT
from tests.support.prefect_database import temporary_server
from tests.support.run_form import prefilled

# Of every kind that an untouched form once changed, and as strict as can be.
GUARDED = """\
evidence: {recipient: acme, key: KEY_OF_THE_OWNER}
overridable: [latency.tolerance]
"""


@pytest.fixture(scope="module")
def form_server(
    prefect_server: None, prefect_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """One of its own: the automations that `deploy` makes end silent runs, and so would those of other tests."""
    with temporary_server(prefect_database, tmp_path_factory.mktemp("form-server")):
        yield


def asked(method: str, what: str, **question: Any) -> httpx.Response:
    return httpx.request(method, f"{PREFECT_API_URL.value()}/{what}", timeout=60, **question)


class Form:
    """The form of a deployment that was made for a config."""

    def __init__(self, config: Path) -> None:
        deploy([config], "local", 1, str(ROOT))
        self.deployment = asked("GET", f"deployments/name/release/{config.stem}").json()

    def sent(self, **changed: Any) -> httpx.Response:
        """The answer to what is sent when a person opens the form, changes these fields and submits it."""
        values = prefilled(self.deployment["parameter_openapi_schema"], self.deployment["parameters"]) | changed
        place = f"deployments/{self.deployment['id']}/create_flow_run"
        return asked("POST", place, json={"parameters": values, "enforce_parameter_schema": True})

    def parameters(self, **changed: Any) -> dict[str, Any]:
        """The parameters of the run that the server makes of it."""
        answer = self.sent(**changed)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()["parameters"]
        return found


@pytest.fixture
def form(form_server: None, tiny_config: Path) -> Form:
    return Form(tiny_config)


def loaded_of(parameters: dict[str, Any]) -> LoadedConfig:
    """The config of a run with these parameters."""
    settings = as_settings(parameters["version"], parameters["target_slowdown"], parameters["publish_to"])
    return open_release(parameters["config"], settings, "artifacts", parameters["more"]).loaded


@pytest.mark.usefixtures("form_server")
def test_an_untouched_form_makes_a_run_with_the_values_of_the_config(tiny_config: Path) -> None:
    text = tiny_config.read_text("utf-8").replace("publish:\n", "publish:\n  approval: true\n  private: true\n")
    tiny_config.write_text(text + GUARDED, "utf-8")
    loaded = loaded_of(Form(tiny_config).parameters())
    assert loaded.document == read(tiny_config).document
    assert loaded.config == read(tiny_config).config
    assert loaded.config.publish.approval
    assert loaded.overridden == {}


@pytest.mark.usefixtures("simulated_clock", "consumer_in_this_process")
def test_the_run_of_an_untouched_form_reuses_what_a_run_without_it_has_made(
    form: Form, tiny_release: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_release, tmp_path / "a")
    record = release(**form.parameters(artifacts=str(tmp_path / "a")))
    assert record is not None
    # The key of resolve knows the folder, and this one is a copy.
    made = {stage for stage, cost in record.stages.items() if not cost.cached}
    assert made.isdisjoint({"capture", "calibrate", "transfer", "convert", "validate", "audit"})
    assert record.published.unchanged


@pytest.mark.parametrize(
    ("field", "value", "overridden"),
    [
        ("version", "1.0.1", {"version": ("1.0.0", "1.0.1")}),
        ("target_slowdown", 7, {"latency.target_slowdown": (6.0, 7)}),
        ("publish_to", "folder", {}),
        ("publish_to", "org/other", {"publish.repo_id": ("org/tiny", "org/other")}),
        ("comment", "for the workshop", {}),
        ("dry_run", True, {}),
        ("more", "publish:\n  approval: true\nlatency.pairs: 13\n", {"publish.approval": (False, True)}),
    ],
)
def test_one_changed_field_changes_its_key_and_no_other(
    form: Form, tiny_config: Path, field: str, value: Any, overridden: dict[str, tuple[Any, Any]]
) -> None:
    loaded, before = loaded_of(form.parameters(**{field: value})), read(tiny_config)
    expected = {key: {"file": file, "run": run} for key, (file, run) in overridden.items()}
    if field == "more":
        expected["latency.pairs"] = {"file": 11, "run": 13}
    assert loaded.overridden == dict(sorted(expected.items()))
    for section in ("evidence", "card", "exactness", "audit", "conversion", "source"):
        assert getattr(loaded.config, section) == getattr(before.config, section)


@pytest.mark.parametrize(
    ("field", "value"), [("target_slowdown", "fast"), ("target_slowdown", 0.5), ("version", "1"), ("publish_to", "x y")]
)
def test_the_server_refuses_a_wrong_value_and_names_its_field(form: Form, field: str, value: Any) -> None:
    answer = form.sent(**{field: value})
    assert answer.status_code == 409
    assert field in answer.json()["detail"]


def test_a_mistake_in_more_is_one_line_with_its_line_and_a_remedy(form: Form) -> None:
    with pytest.raises(ConfigErrors) as caught:
        loaded_of(form.parameters(more="seed: 3\nlatency: [1\n"))
    (line,) = caught.value.lines
    assert line.startswith("more:")
    assert "not valid YAML" in line
    assert "taylor-release schema" in caught.value.remedy


@pytest.mark.usefixtures("form_server")
def test_a_dry_run_says_what_would_be_released_and_does_no_work(
    tiny_config: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    more = "latency: {tolerance: 0.01}"
    nothing = release(str(tiny_config), version="2.0.0", dry_run=True, more=more, artifacts=str(tmp_path / "a"))
    assert nothing is None
    assert not (tmp_path / "a").exists()
    run = last_run()
    assert run.name == "tiny 2.0.0, dry run"
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run.id).state
    assert state is not None
    assert state.is_completed()
    shown = str(artifacts_of(run.id)["tiny-dry-run"].data)
    source = f"folder {tiny_llama.name}"
    assert f"| tiny.yaml | tiny 2.0.0 | {source} | float32 | 6 within 1 % | org/tiny (folder) |" in shown
    assert '| `version` | "1.0.0" | "2.0.0" |' in shown
    assert "| `latency.tolerance` | 0.03 | 0.01 |" in shown


def test_a_deployment_carries_the_model_the_version_and_the_target(form: Form) -> None:
    assert set(form.deployment["tags"]) == {"model: tiny", "version: 1.0.0", "target: folder"}
    assert set(form.sent(version="1.0.1").json()["tags"]) == set(form.deployment["tags"])
