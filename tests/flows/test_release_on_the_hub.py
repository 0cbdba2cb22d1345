"""A release through the real flow onto the stand-in for the Hub, and what a reader does with it in a clean process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from prefect.blocks.system import Secret
from prefect.settings import PREFECT_API_AUTH_STRING, get_current_settings, temporary_settings
from transformers import AutoModelForCausalLM

from flows.commands.main import app
from flows.run.release_run import open_release
from flows.run.secrets import secrets_here
from taylor_ops.config.publish import Publish
from taylor_ops.errors import BadInput, GateRejected
from taylor_ops.publishing.publish import require_access
from taylor_ops.storage.files import read_json, sha256_of_tree
from tests.support.loopback_hub.app import Hub
from tests.support.loopback_hub.bench import client_on_loopback
from tests.support.loopback_hub.reader import tokens_of_a_reader
from tests.support.loopback_hub.server import WRITER
from tests.support.released import released

pytestmark = pytest.mark.usefixtures("prefect_server", "simulated_clock")

REPO, PROMPT, NEW_TOKENS = "org/tiny", [5, 17, 42, 99, 7], 24
HUB = {"publish.target": "hub"}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with client_on_loopback(tmp_path / "hub-store") as hub:
        yield hub


def tokens_of_the_original(folder: Path) -> list[int]:
    model = AutoModelForCausalLM.from_pretrained(folder)
    made = model.generate(torch.tensor([PROMPT]), max_new_tokens=NEW_TOKENS, do_sample=False)
    tokens: list[int] = made[0, len(PROMPT) :].tolist()
    return tokens


def places_that_hold(text: str, folder: Path) -> list[str]:
    """Files below a folder with this text in them."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return [path.name for path in files if text.encode() in path.read_bytes()]


@pytest.mark.usefixtures("consumer_in_this_process")
def test_a_release_on_the_hub_is_what_a_reader_loads_and_verifies_until_it_is_withdrawn(
    tiny_config: Path,
    tiny_llama: Path,
    tmp_path: Path,
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    Secret(value=WRITER).save("hub-token", overwrite=True)
    record = released(tiny_config, tmp_path / "a", HUB | {"publish.token_secret": "hub-token"})
    place = tmp_path / "a" / "tiny" / "1.0.0"
    written = read_json(place / "release.json")
    assert written["published"]["path"] == f"{hub.endpoint}/{REPO}/tree/v1.0.0"
    assert written["published"]["commit"] == hub.store.repositories[REPO].refs["refs/tags/v1.0.0"]
    assert record.verified.prompts > 0
    said = tokens_of_a_reader(hub, REPO, "v1.0.0", PROMPT, NEW_TOKENS, tmp_path / "reader")
    assert said == tokens_of_the_original(tiny_llama)

    again = released(tiny_config, tmp_path / "a", HUB | {"publish.token_secret": "hub-token"})
    assert again.published.unchanged
    assert all(cost.cached for cost in again.stages.values())
    assert places_that_hold(WRITER, tmp_path / "a") == []
    database = get_current_settings().server.database.connection_url
    assert database is not None
    kept = Path(database.get_secret_value().partition("///")[2])
    assert kept.is_file()
    assert places_that_hold(WRITER, kept.parent) == []

    monkeypatch.setenv("HF_TOKEN", WRITER)
    app(["verify", f"{REPO}@v1.0.0"], standalone_mode=False)
    files = len(sha256_of_tree(place / "bundle")) - 1
    assert f"{REPO}@v1.0.0: {files} files as listed" in capsys.readouterr().out
    app(["yank", REPO, "1.0.0", "--why", "a test"], standalone_mode=False)
    assert f"{REPO} 1.0.0 is withdrawn; main still shows it, with a notice" in capsys.readouterr().out
    with pytest.raises(GateRejected, match=f"^{REPO}@main was withdrawn: a test"):
        app(["verify", REPO], standalone_mode=False)
    with pytest.raises(BadInput, match="not the name of a repository"):
        app(["yank", "tiny", "1.0.0", "--why", "a test"], standalone_mode=False)


def test_the_gate_for_leaks_knows_the_token_of_the_block_and_who_may_use_the_server() -> None:
    Secret(value="token-of-a-block").save("another-token", overwrite=True)
    where = Publish(target="hub", repo_id=REPO, token_secret="another-token")
    with temporary_settings({PREFECT_API_AUTH_STRING: "operator:correct-horse"}):
        found = secrets_here(where)
    assert {"token-of-a-block", "operator:correct-horse", "correct-horse"} <= set(found)


def test_a_secret_that_is_not_there_is_named_before_any_work(tiny_config: Path, tmp_path: Path, hub: Hub) -> None:
    with pytest.raises(BadInput, match="no Prefect Secret block `nowhere`"):
        released(tiny_config, tmp_path / "a", HUB | {"publish.token_secret": "nowhere"})
    assert not (tmp_path / "a" / "tiny" / "stages" / "capture").exists()


def test_a_token_that_may_not_write_ends_a_release_before_any_work(
    tiny_config: Path, tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_LoopbackStranger00000000000000000")
    with pytest.raises(BadInput, match="does not belong to org"):
        released(tiny_config, tmp_path / "a", HUB)
    assert not (tmp_path / "a" / "tiny" / "stages" / "capture").exists()
    assert hub.store.repositories == {}


def test_a_run_puts_a_release_into_a_public_repository_of_its_choice_only_with_leave_of_the_config(
    tiny_config: Path, tmp_path: Path, hub: Hub
) -> None:
    hub.store.create(REPO, private=False, resource_group=None)
    elsewhere = open_release(str(tiny_config), HUB, str(tmp_path / "a")).loaded
    with pytest.raises(BadInput, match="org/tiny is public, and the file of the config names another place"):
        require_access(elsewhere.config.publish, None, elsewhere.redirected)
    hub.store.repositories[REPO].private = True
    require_access(elsewhere.config.publish, None, elsewhere.redirected)

    hub.store.repositories[REPO].private = False
    text = tiny_config.read_text("utf-8")
    tiny_config.write_text(text + "overridable: [publish.private]\n", "utf-8")
    allowed = open_release(str(tiny_config), HUB, str(tmp_path / "a")).loaded
    require_access(allowed.config.publish, None, allowed.redirected)
    tiny_config.write_text(text.replace("publish:\n", "publish:\n  target: hub\n"), "utf-8")
    its_own = open_release(str(tiny_config), {"version": "1.0.1"}, str(tmp_path / "a")).loaded
    require_access(its_own.config.publish, None, its_own.redirected)
