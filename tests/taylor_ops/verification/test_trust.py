"""The code of a bundle runs if it is this project's, or if somebody vouches for it; all other code is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from taylor_ops.bundle.manifest import MANIFEST
from taylor_ops.conversion.modeling_files import _MODELING, write_code
from taylor_ops.errors import GateRejected
from taylor_ops.exactness.greedy import GREEDY
from taylor_ops.model.architectures import ARCHITECTURES
from taylor_ops.modeling import taylor_mlp
from taylor_ops.storage.files import read_json, sha256_of_tree
from taylor_ops.verification import consumer
from taylor_ops.verification.known_code import CLASSES, LAYERS
from taylor_ops.verification.trust import AUTO_MAP, LAYER, MODEL, require_trusted_code, unknown_code
from taylor_ops.verification.verify import verify
from tests.support.commands import called_here
from tests.taylor_ops.conftest import Sample

PROMPT = [5, 17, 42]
CODE = "import os\n"


@pytest.fixture
def bundle(llama: Sample, tmp_path: Path) -> Path:
    """A bundle to spoil."""
    return shutil.copytree(llama.converted, tmp_path / "bundle")


def append(file: Path) -> None:
    file.write_text(file.read_text() + CODE)


def set_key(file: Path, **changes: object) -> None:
    document = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(document | changes))


def named_anew(bundle: Path) -> None:
    """Another name in the place of the model's class, with code behind it."""
    file = bundle / MODEL
    file.write_text(file.read_text().replace("LlamaForCausalLM", "LlamaForCausalLM; import os"))


OTHER_CODE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "layer": (LAYER, lambda bundle: append(bundle / LAYER)),
    "classes": (MODEL, lambda bundle: append(bundle / MODEL)),
    "layer is missing": (LAYER, lambda bundle: (bundle / LAYER).unlink()),
    "code in a name": (MODEL, named_anew),
    "a further file": ("more.py", lambda bundle: (bundle / "more.py").write_text(CODE)),
    "a folder of code": (
        "custom_generate/generate.py",
        lambda bundle: (
            (bundle / "custom_generate").mkdir(),
            (bundle / "custom_generate/generate.py").write_text(CODE),
        ),
    ),
    "compiled": ("taylor_mlp.pyc", lambda bundle: (bundle / "taylor_mlp.pyc").write_bytes(b"")),
    "another map": (
        "config.json",
        lambda bundle: set_key(bundle / "config.json", auto_map=AUTO_MAP | {"AutoModelForCausalLM": "evil/x--m.M"}),
    ),
    "a map of the tokenizer": (
        "tokenizer_config.json",
        lambda bundle: set_key(bundle / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil/x--t.T", None]}),
    ),
    "a map inside": (
        "config.json",
        lambda bundle: set_key(bundle / "config.json", text_config={"auto_map": {"AutoConfig": "evil/x--c.C"}}),
    ),
    "a pipeline": (
        "config.json",
        lambda bundle: set_key(bundle / "config.json", custom_pipelines={"text": {"impl": "evil/x--p.P"}}),
    ),
    "an adapter": (
        "adapter_config.json",
        lambda bundle: set_key(bundle / "adapter_config.json", base_model_name_or_path="evil/x"),
    ),
}


def test_the_present_modeling_files_are_on_the_list() -> None:
    assert hashlib.sha256(Path(taylor_mlp.__file__).read_bytes()).hexdigest() in LAYERS
    assert hashlib.sha256(_MODELING.encode()).hexdigest() in CLASSES


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_the_code_of_every_architecture_is_known(model_type: str, tmp_path: Path) -> None:
    write_code(tmp_path, ARCHITECTURES[model_type])
    assert unknown_code(tmp_path) is None


def test_a_bundle_of_this_version_is_trusted(bundle: Path) -> None:
    assert unknown_code(bundle) is None
    require_trusted_code(bundle, signed=False, trust=False)


@pytest.mark.parametrize("change", OTHER_CODE)
def test_other_code_is_refused_by_name_unless_somebody_vouches_for_it(bundle: Path, change: str) -> None:
    name, spoil = OTHER_CODE[change]
    spoil(bundle)
    with pytest.raises(GateRejected, match="no code of the bundle was run") as caught:
        require_trusted_code(bundle, signed=False, trust=False)
    assert caught.value.cause.startswith(str(bundle / name))
    assert "--trust-code" in caught.value.remedy
    require_trusted_code(bundle, signed=True, trust=False)
    require_trusted_code(bundle, signed=False, trust=True)


# Whose code runs, and where


SPY = """
import json as _json, os as _os, socket as _socket
def _reached():
    try:
        _socket.create_connection(("127.0.0.1", PORT), 2).close()
    except OSError:
        return False
    return True
with open(PLACE, "w") as _file:
    _json.dump({"environment": dict(_os.environ), "home": _os.path.expanduser("~"), "reached": _reached()}, _file)
"""


@pytest.fixture(scope="module")
def new_tokens(llama: Sample) -> list[int]:
    """How the bundle goes on after the prompt."""
    return consumer.continued(str(llama.converted), [PROMPT], 3, GREEDY)[0]


def write_manifest(bundle: Path, new_tokens: list[int]) -> None:
    """List the files of a bundle as they are, and one continuation."""
    (bundle / MANIFEST).unlink(missing_ok=True)
    continuation = {"prompt": "first", "prompt_tokens": PROMPT, "new_tokens": new_tokens}
    stated = {"format": 1, "files": sha256_of_tree(bundle), "exactness": {"continuations": [continuation]}}
    (bundle / MANIFEST).write_text(json.dumps(stated))


def spy_in(bundle: Path, new_tokens: list[int], place: Path, port: int) -> None:
    """Add code to a bundle that writes what it can reach, and let the manifest list the changed file."""
    file = bundle / "modeling_taylor.py"
    file.write_text(file.read_text() + SPY.replace("PORT", str(port)).replace("PLACE", repr(str(place))))
    write_manifest(bundle, new_tokens)


def can_leave_the_network() -> bool:
    """Whether this machine cuts a process off from the network."""
    code = "import runpy, sys; print(runpy.run_path(sys.argv[1])['without_network']())"
    command = [sys.executable, "-c", code, consumer.__file__]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "True"


def test_changed_code_with_new_hashes_runs_only_where_it_is_trusted_and_reaches_little(
    bundle: Path,
    new_tokens: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_manifest(bundle, new_tokens)
    assert verify(bundle).prompts == 1
    place = tmp_path / "seen.json"
    monkeypatch.setenv("HF_TOKEN", "correct-horse-battery")
    with socket.create_server(("127.0.0.1", 0)) as server:
        spy_in(bundle, new_tokens, place, server.getsockname()[1])
        with pytest.raises(GateRejected, match=r"modeling_taylor.py is not of a known version of this project"):
            verify(bundle)
        assert not place.exists()
        assert verify(bundle, tokens=False).prompts == 0
        assert not place.exists()
        assert verify(bundle, trust_code=True).prompts == 1
    seen = read_json(place)
    assert "correct-horse-battery" not in str(seen["environment"])
    assert seen["home"] not in (str(Path.home()), "")
    assert seen["reached"] == (not can_leave_the_network())
    assert ("the code of the bundle could reach it" in caplog.text) == seen["reached"]


def test_the_code_of_a_copy_with_a_changed_file_does_not_run(
    bundle: Path, new_tokens: list[int], tmp_path: Path
) -> None:
    spy_in(bundle, new_tokens, tmp_path / "seen.json", 1)
    (bundle / "config.json").write_text((bundle / "config.json").read_text() + "\n")
    with pytest.raises(GateRejected, match=r"config.json does not have the bytes"):
        verify(bundle, trust_code=True)
    assert not (tmp_path / "seen.json").exists()


def test_audit_runs_no_code_of_a_bundle(bundle: Path, llama: Sample, new_tokens: list[int], tmp_path: Path) -> None:
    spy_in(bundle, new_tokens, tmp_path / "seen.json", 1)
    attacks = ("--attack", "rank_one", "--attack", "collapse")
    done = called_here("audit", bundle, "--original", llama.original, *attacks)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "seen.json").exists()


@pytest.mark.parametrize("options", [[], ["--no-tokens"]], ids=["with tokens", "without tokens"])
def test_mark_runs_no_code_that_nothing_vouches_for(
    bundle: Path, new_tokens: list[int], tmp_path: Path, options: list[str]
) -> None:
    spy_in(bundle, new_tokens, tmp_path / "seen.json", 1)
    (tmp_path / "key").write_text("a key of more than sixteen letters")
    arguments = ("--recipient", "acme", "--key", tmp_path / "key", "--to", tmp_path / "copy", *options)
    done = called_here("mark", bundle, *arguments)
    assert ("is not of a known version of this project" in done.stderr) == (not options)
    assert not (tmp_path / "seen.json").exists()
    assert not (tmp_path / "copy").exists() or options
