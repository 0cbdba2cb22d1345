"""Files by role: what goes along with a release, what stays, and what `card.files` adds."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from taylor_ops.config.release import ReleaseConfig
from taylor_ops.errors import BadInput
from taylor_ops.leaks.sources import require_discreet_source
from taylor_ops.leaks.texts import Machine
from taylor_ops.source.card_files import card_files
from taylor_ops.source.files import copy_along
from taylor_ops.source.roles import copied_files, fetched_patterns, left_files, role_of
from tests.support.tiny_models import save_tiny_model

HERE = Machine("anna.berg", "gpu-box-17.lab.example", (), ())
ALONG = {
    "LICENSE": "licence or policy",
    "LICENSE.txt": "licence or policy",
    "License.md": "licence or policy",
    "LICENCE": "licence or policy",
    "LICENSE-APACHE-2.0": "licence or policy",
    "MODEL_LICENSE": "licence or policy",
    "NOTICE": "licence or policy",
    "Notice.txt": "licence or policy",
    "THIRD_PARTY_NOTICES.md": "licence or policy",
    "USE_POLICY.md": "licence or policy",
    "ACCEPTABLE_USE.md": "licence or policy",
    "COPYING": "licence or policy",
    "COPYING.LESSER": "licence or policy",
    "LICENSE.apache": "licence or policy",
    "LICENSE.GPLv3": "licence or policy",
    "LICENSE.CC-BY-4.0": "licence or policy",
    "config.json": "config",
    "generation_config.json": "generation",
    "tokenizer.json": "tokenizer",
    "tokenizer.model": "tokenizer",
    "spiece.model": "tokenizer",
    "qwen.tiktoken": "tokenizer",
    "vocab.json": "tokenizer",
    "merges.txt": "tokenizer",
    "chat_template.jinja": "chat template",
    "additional_chat_templates/tool_use.jinja": "chat template",
    "preprocessor_config.json": "processor",
    "model.safetensors": "weights",
    "model.safetensors.index.json": "weights",
}
STAY = [
    "README.md",
    "train_data.json",
    "all_results.json",
    "notes.txt",
    "license_plates.json",
    "LICENSE.json",
    "LICENSE.py",
    "license.bin",
    "license_plates.txt",
    "use.txt",
    "trainer_state.json",
    "training_args.bin",
    "adapter_model.safetensors",
    "optimizer.safetensors",
    "tokenizer_training_log.txt",
    "prompts.jinja",
    "data/LICENSE",
    "checkpoint-7/config.json",
    "checkpoint-7/tokenizer.json",
    ".gitattributes",
    ".cache/LICENSE",
    "other/tool_use.jinja",
]


@pytest.mark.parametrize("name", ALONG)
def test_a_file_with_a_role_goes_along_and_is_fetched(name: str) -> None:
    assert role_of(name) == ALONG[name]
    assert any(fnmatchcase(name, pattern) for pattern in fetched_patterns())


@pytest.mark.parametrize("name", STAY)
def test_a_file_without_a_role_stays(name: str) -> None:
    assert role_of(name) is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder as a trainer leaves it."""
    place = save_tiny_model(tmp_path / "model")
    for name in (*ALONG, *STAY):
        if not (place / name).exists():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(f"of {name}", encoding="utf-8")
    return place


def test_a_folder_is_parted_into_what_goes_along_and_what_stays(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    copy_along(folder, tmp_path / "target")
    written = sorted(path.relative_to(tmp_path / "target").as_posix() for path in (tmp_path / "target").rglob("*.*"))
    assert {"additional_chat_templates/tool_use.jinja", "USE_POLICY.md", "Notice.txt"} <= set(written)
    assert set(copied_files(folder)) >= {name for name, role in ALONG.items() if role not in ("config", "weights")}
    assert not set(copied_files(folder)) & {*STAY, "config.json", "model.safetensors"}
    assert left_files(folder) == sorted(name for name in STAY if not name.startswith("."))


def config_with(folder: Path, *files: str) -> ReleaseConfig:
    return ReleaseConfig.model_validate(
        {
            "name": "tiny",
            "version": "1.0.0",
            "source": {"kind": "folder", "path": str(folder)},
            "latency": {"target_slowdown": 1.6},
            "card": {"license": "mit", "files": files},
            "publish": {"repo_id": "org/tiny"},
        },
        context={"folder": folder},
    )


def test_card_files_are_found_in_the_source(folder: Path) -> None:
    found = card_files(config_with(folder, "notes.txt", "data/LICENSE"), folder)
    assert {name: path.read_text() for name, path in found.items()} == {
        "notes.txt": "of notes.txt",
        "data/LICENSE": "of data/LICENSE",
    }
    assert card_files(config_with(folder, "LICENSE"), folder) == {}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none.txt", "is not a file"),
        ("data", "is not a file"),
        ("config.json", "makes itself"),
        ("README.md", "makes itself"),
        ("model.safetensors", "makes itself"),
        ("aside.txt", "leads out of the folder"),
        ("tokenizer_config.json", "makes itself"),
        ("model.safetensors.index.json", "makes itself"),
        ("slowdown.png", "makes itself"),
        ("attestations/bom.cdx.json", "makes itself"),
        ("train.py", "would bring code"),
        ("adapter_config.json", "would bring code"),
    ],
)
def test_a_card_file_that_cannot_go_along_is_named(folder: Path, name: str, reason: str) -> None:
    (folder.parent / "aside.txt").write_text("aside")
    (folder / "aside.txt").symlink_to(folder.parent / "aside.txt")
    with pytest.raises(BadInput, match=reason) as caught:
        card_files(config_with(folder, name), folder)
    assert name in caught.value.cause


@pytest.mark.parametrize("name", ["../aside.txt", "/etc/hostname", "", "a//b", "a\\b", "./x"])
def test_a_card_file_outside_of_the_source_is_no_valid_config(folder: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is no path in the folder of the source"):
        config_with(folder, name)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "LICENSE", "additional_chat_templates/tool_use.jinja"])
def test_a_home_in_a_file_that_goes_along_is_told_before_any_work(folder: Path, name: str) -> None:
    require_discreet_source(config_with(folder), folder, HERE)
    (folder / name).write_text('{"name_or_path": "/home/trainer/checkpoints/run-7"}', encoding="utf-8")
    with pytest.raises(BadInput, match="gives away the path /home/trainer") as caught:
        require_discreet_source(config_with(folder), folder, HERE)
    assert str(folder / name) in caught.value.cause


def test_a_home_in_a_file_that_stays_is_nobodys_concern(folder: Path) -> None:
    (folder / "notes.txt").write_text("/home/trainer/notes", encoding="utf-8")
    require_discreet_source(config_with(folder), folder, HERE)
    with pytest.raises(BadInput, match=r"notes\.txt gives away"):
        require_discreet_source(config_with(folder, "notes.txt"), folder, HERE)
