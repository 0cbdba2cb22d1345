"""Which direction is tighter, key by key, and that an override goes into no other without leave of the file."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from taylor_ops.config.audit import AttackName
from taylor_ops.config.tighter import TIGHTER, Guarded
from taylor_ops.config_file.read import ConfigErrors, read
from taylor_ops.config_file.schema import schema, schema_below
from tests.support.config_example import VALID, errors_of, written

CPU, NARROW, GPU = (
    {"device": "cpu", "target_slowdown": 2},
    {"device": "cpu", "target_slowdown": 2, "tolerance": 0.05},
    {"device": "cuda", "target_slowdown": 2, "tolerance": 0.5},
)
MARK = {"key": "OWNER_KEY", "recipient": "acme"}
# Values of each key, from the loosest to the tightest.
LADDERS: dict[str, list[Any]] = {
    "conversion.tolerance": [1, 0.01, 1e-3, 1e-6],
    "conversion.order": [2, 12, None],
    "conversion.min_protected": [0.1, 0.5, 1],
    "latency.tolerance": [0.5, 0.1, 0.03, 0.01],
    "latency.devices": [[], [GPU], [GPU, CPU], [NARROW, GPU]],
    "exactness.tasks": [
        [],
        [{"difference": 0.1, "limit": 5, "name": "arc_easy"}],
        [{"difference": 0.1, "name": "arc_easy"}],
        [{"name": "arc_easy"}],
        [{"name": "piqa"}, {"name": "arc_easy"}],
    ],
    "audit.attacks": [["rank_one"], ["rank_one", "collapse"], ["collapse", "ratios", "lora", "rank_one"]],
    **{f"audit.{effort}": [1, 16, 20_000] for effort in ("samples", "steps", "tuning_steps", "lora_rank")},
    "audit.policy": ["disclose", "block"],
    **{f"audit.thresholds.{name}": [1, 0.5, 0.02, 0] for name in get_args(AttackName)},
    "evidence": [None, *(MARK | {"strength": strength} for strength in (0.001, 0.1))],
    "publish.signing": [None, {"key_file": "k.pem"}],
    "publish.approval": [False, True],
    "publish.private": [False, None, True],
    "publish.gated": [False, None, "auto", "manual"],
    "publish.review": [False, True],
}
STEPS = [(key, *step) for key, ladder in LADDERS.items() for step in pairwise(ladder)]


def config_with(folder: Path, key: str, value: Any, *overridable: str) -> Path:
    """The file of a config that says this value, and which keys a run may loosen."""
    document = yaml.safe_load(VALID) | {"overridable": list(overridable)}
    *sections, last = key.split(".")
    section = document
    for name in sections:
        section = section.setdefault(name, {})
    section[last] = value
    return written(folder, yaml.safe_dump(document))


def test_every_guarded_key_has_a_direction_and_a_place_in_the_config() -> None:
    assert tuple(TIGHTER) == get_args(Guarded)
    assert TIGHTER.keys() == LADDERS.keys()
    for key in TIGHTER:
        allowed = schema()
        for part in key.split("."):
            allowed = schema_below(allowed, part)
        assert allowed, key


@pytest.mark.parametrize(("key", "looser", "tighter"), STEPS)
def test_a_run_may_tighten_a_key_and_loosen_it_only_with_leave_of_the_file(
    tmp_path: Path, key: str, looser: Any, tighter: Any
) -> None:
    assert read(config_with(tmp_path, key, looser), {key: json.dumps(tighter)}).overridden
    same = read(config_with(tmp_path, key, tighter), {key: json.dumps(tighter)})
    assert same.overridden == {}
    with pytest.raises(ConfigErrors) as caught:
        read(config_with(tmp_path, key, tighter), {key: json.dumps(looser)})
    (line,) = caught.value.lines
    assert line.startswith(f"--set {key}: is {json.dumps(looser)[:40]}")
    assert f"the file has {json.dumps(tighter)[:40]}" in line
    assert f"list `{key}` under `overridable`" in line
    assert read(config_with(tmp_path, key, tighter, key), {key: json.dumps(looser)}).overridden


@pytest.mark.parametrize(
    ("key", "value", "default"),
    [
        ("latency.tolerance", "0.5", "0.03"),
        ("conversion.order", "3", "null"),
        ("publish.private", "false", "null"),
        ("publish.gated", "false", "null"),
        ("audit.attacks", "[]", '["rank_one", "ratios", "collapse"]'),
        ("audit.thresholds.lora", "0.5", "0.03"),
    ],
)
def test_what_a_file_leaves_out_is_as_tight_as_its_default(tmp_path: Path, key: str, value: str, default: str) -> None:
    (line,) = errors_of(tmp_path, VALID, {key: value})
    assert line.startswith(f"--set {key}: is {value}, the file has {default}, and an override may only tighten it")


def test_a_section_that_is_given_whole_loosens_nothing_by_what_it_leaves_out(tmp_path: Path) -> None:
    path = written(tmp_path, VALID + "  approval: true\n  review: true\nlatency: {tolerance: 0.01}\n")
    loaded = read(path, {"publish": "{repo_id: owner/other}", "latency": "{target_slowdown: 4}"})
    assert (loaded.config.publish.approval, loaded.config.publish.review) == (True, True)
    assert loaded.config.latency.tolerance == 0.01
    assert loaded.overridden.keys() == {"publish.repo_id", "latency.target_slowdown"}


def test_leave_is_given_by_the_file_alone_and_for_keys_that_guard_a_release(tmp_path: Path) -> None:
    guarded = VALID + "  approval: true\n"
    settings = {"overridable": "[publish.approval]", "publish.approval": "false"}
    (line,) = errors_of(tmp_path, guarded, settings)
    assert line == "--set overridable: is what the file alone can say; change it there"
    (line,) = errors_of(tmp_path, guarded + "overridable: [publish.aproval]\n")
    assert "overridable.0: is the text 'publish.aproval', must be `conversion.tolerance`" in line
    assert read(written(tmp_path, guarded + "overridable: [publish.approval]\n"), {"publish.approval": "false"})


def test_a_value_of_the_file_that_is_no_value_is_not_loosened_by_an_override(tmp_path: Path) -> None:
    (line,) = errors_of(tmp_path, VALID + "  approval: mostly\n", {"publish.approval": "false"})
    assert line.startswith('--set publish.approval: is false, the file has "mostly"')


def test_a_run_names_another_recipient_but_marks_with_the_key_of_the_file(tmp_path: Path) -> None:
    path = config_with(tmp_path, "evidence", MARK)
    found = read(path, {"evidence.recipient": "beta"}).overridden
    assert found == {"evidence.recipient": {"file": "acme", "run": "beta"}}
    for weaker in ({"evidence.key": "MY_KEY"}, {"evidence.strength": "0.001"}):
        with pytest.raises(ConfigErrors) as caught:
            read(path, weaker)
        (line,) = caught.value.lines
        assert line.startswith("--set evidence: is {")
        assert "tighter is a mark under the `key` of the file" in line


def test_a_promise_that_is_loosened_in_an_item_of_a_list_is_refused_where_that_is_asked(tmp_path: Path) -> None:
    path = config_with(tmp_path, "latency.devices", [NARROW])
    with pytest.raises(ConfigErrors, match=r"^more:2: latency\.devices: is \["):
        read(path, {}, "seed: 3\nlatency.devices.0.tolerance: 0.5\n")
