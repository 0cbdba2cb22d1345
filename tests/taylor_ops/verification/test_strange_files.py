"""Pipes, devices and links to folders in a bundle are refused and never read; names do not steer a terminal."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from taylor_ops.bundle.manifest import CARD, MANIFEST
from taylor_ops.errors import BadInput, GateRejected
from taylor_ops.signing.keys import SIGNATURE, read_public_key
from taylor_ops.storage.files import sha256_of_tree
from taylor_ops.verification.verify import verify
from tests.support.commands import called_here
from tests.support.keys import write_key

STRANGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "pipe": ("a pipe", os.mkfifo),
    "device": ("a device", lambda path: path.symlink_to("/dev/zero")),
    "link to a folder": ("a link to a folder", lambda path: path.symlink_to(path.parent.parent / "aside")),
    "link to nothing": ("a link that leads nowhere", lambda path: path.symlink_to("nowhere")),
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of two files that records no continuations, beside a folder."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (tmp_path / "aside").mkdir()
    (folder / CARD).write_text("a card")
    (folder / "config.json").write_text("{}")
    return folder


def listed(bundle: Path, **more: str) -> Path:
    """The bundle with a manifest of its files."""
    files = {name: sha256 for name, sha256 in sha256_of_tree(bundle).items() if name != SIGNATURE} | more
    (bundle / MANIFEST).write_text(json.dumps({"format": 1, "files": files, "exactness": {"continuations": []}}))
    return bundle


@pytest.mark.parametrize("name", ["custom_generate", "deep/er/model.safetensors", "config.json"])
@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_no_file_is_refused_even_if_the_manifest_lists_it(bundle: Path, kind: str, name: str) -> None:
    words, make = STRANGE[kind]
    (bundle / name).unlink(missing_ok=True)
    (bundle / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle.parent / "bundle/deep/aside").mkdir(parents=True, exist_ok=True)
    make(bundle / name)
    assert sha256_of_tree(bundle)[name] == "not a file"
    with pytest.raises(GateRejected, match=f"{name} is {words}, not a file"):
        verify(listed(bundle))


def test_a_signature_that_is_a_pipe_is_refused_and_not_waited_for(bundle: Path, tmp_path: Path) -> None:
    listed(bundle)
    os.mkfifo(bundle / SIGNATURE)
    with pytest.raises(GateRejected, match="is a pipe, not a file"):
        verify(bundle, read_public_key(write_key(tmp_path / "key.pem").with_suffix(".pub")))


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_manifest_that_is_no_file_is_refused_and_not_waited_for(bundle: Path, kind: str) -> None:
    words, make = STRANGE[kind]
    make(bundle / MANIFEST)
    with pytest.raises(BadInput, match=f"it is {words}, not a file"):
        verify(bundle)


def test_a_link_to_a_file_is_read_as_in_the_cache_of_the_hub(bundle: Path) -> None:
    (bundle.parent / "aside/blob").write_text("{}")
    (bundle / "config.json").unlink()
    (bundle / "config.json").symlink_to("../aside/blob")
    assert verify(listed(bundle)).files == 2


@pytest.mark.parametrize("where", ["manifest", "file"])
def test_names_do_not_steer_a_terminal(bundle: Path, where: str) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m.txt"
    listed(bundle, **{evil: "0" * 64} if where == "manifest" else {})
    if where == "file":
        (bundle / evil).write_text("")
    done = called_here("verify", bundle)
    assert done.returncode == 1
    assert not {"\x1b", "\x07", "\x9b"} & set(done.stdout + done.stderr)
    assert "\\x1b]0;owned" in done.stderr
