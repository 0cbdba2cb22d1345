"""A bundle is verified as it was assembled, and refused after any change to it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from taylor_ops.attestations.attest import FOLDER
from taylor_ops.audit.audit import audit
from taylor_ops.bundle.assemble import assemble
from taylor_ops.bundle.findings import Findings
from taylor_ops.bundle.manifest import MANIFEST, read_manifest
from taylor_ops.config.audit import Audit
from taylor_ops.config.exactness import Exactness
from taylor_ops.config.source import FolderSource
from taylor_ops.config.texts import TextSource
from taylor_ops.errors import BadInput, GateRejected
from taylor_ops.exactness.validate import validate
from taylor_ops.progress import Progress
from taylor_ops.source.resolve import resolve
from taylor_ops.storage.files import canonical_json, files_below, read_json, sha256_of, sha256_of_tree
from taylor_ops.verification import verify as verifying
from taylor_ops.verification.record import Verified
from taylor_ops.verification.verify import verify
from tests.support import release_example as example
from tests.taylor_ops.conftest import CPU, Sample, silent

PROMPTS, NEW_TOKENS = 3, 6
TOKENS = list(range(NEW_TOKENS))
WEIGHTS = "model-00001-of-00001.safetensors"


@pytest.fixture(scope="module")
def original_bundle(llama: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that the real stages made of a tiny model; only its latency was not measured."""
    root = tmp_path_factory.mktemp("verify")
    held_out = TextSource(name="project", builtin="held_out", limit=PROMPTS)
    exactness = Exactness(prompts=(held_out,), running_text=(), new_tokens=NEW_TOKENS)
    evidence = Findings(
        source=resolve(FolderSource(kind="folder", path=llama.original), root, silent),
        converted=llama.record,
        latency=example.latency(),
        exactness=validate(llama.subject, llama.converted, exactness, CPU, silent),
        audit=audit(llama.original, llama.converted, Audit(attacks=("rank_one",)), silent),
    )
    assemble(llama.converted, example.config(), example.document(), evidence, root / "bundle")
    return root / "bundle"


@pytest.fixture
def bundle(original_bundle: Path, tmp_path: Path) -> Path:
    """A bundle to spoil."""
    return shutil.copytree(original_bundle, tmp_path / "bundle")


def rejected(bundle: Path, trust_code: bool = False) -> str:
    """Why a bundle is refused."""
    with pytest.raises(GateRejected) as caught:
        verify(bundle, trust_code=trust_code)
    assert "do not use this copy" in caught.value.remedy
    return caught.value.cause


def says(continuations_of: Callable[..., list[list[int]]]) -> Callable[[bool], Any]:
    """Stands in for the clean process: one that is started at once and says this."""
    return lambda _own: nullcontext(SimpleNamespace(continuations_of=continuations_of))


def change_manifest(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = read_json(bundle / MANIFEST)
    change(manifest)
    (bundle / MANIFEST).write_text(canonical_json(manifest), encoding="utf-8")


def without_attestations(bundle: Path) -> Path:
    """The bundle as a version that made no attestations would have made it."""

    def change(manifest: dict[str, Any]) -> None:
        del manifest["attestations"]
        manifest["files"] = {name: sha256 for name, sha256 in manifest["files"].items() if FOLDER not in name}

    shutil.rmtree(bundle / FOLDER)
    change_manifest(bundle, change)
    return bundle


@pytest.fixture(scope="module")
def older_bundle(original_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle without attestations, which would not fit another manifest."""
    return without_attestations(shutil.copytree(original_bundle, tmp_path_factory.mktemp("older") / "bundle"))


def spoil_weights(bundle: Path) -> None:
    """Turn the sign of the terms of one layer, and let the manifest list the changed file."""
    without_attestations(bundle)
    tensors = load_file(bundle / WEIGHTS)
    tensors["model.layers.0.mlp.terms.weight"].neg_()
    save_file(tensors, bundle / WEIGHTS, metadata={"format": "pt"})
    change_manifest(bundle, lambda manifest: manifest["files"].update({WEIGHTS: sha256_of(bundle / WEIGHTS)}))


# What is accepted


def test_a_bundle_is_verified_wherever_it_lies_and_is_left_as_it_was(bundle: Path) -> None:
    before = sha256_of_tree(bundle)
    assert verify(bundle) == Verified(
        files=len(before) - 1, attestations=3, prompts=PROMPTS, tokens=PROMPTS * NEW_TOKENS
    )
    assert sha256_of_tree(bundle) == before


def test_a_bundle_without_recorded_continuations_is_verified_by_its_files(bundle: Path) -> None:
    change_manifest(bundle, lambda manifest: manifest["exactness"].update(continuations=[]))
    assert verify(bundle) == Verified(files=len(sha256_of_tree(bundle)) - 1, attestations=3, prompts=0, tokens=0)


# What is refused


@settings(deadline=None)
@given(data=st.data())
def test_one_changed_byte_anywhere_is_found_and_its_file_named(original_bundle: Path, data: st.DataObject) -> None:
    files = [path for path in files_below(original_bundle) if path.name != MANIFEST]
    path = data.draw(st.sampled_from(files))
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[place] ^ (1 << data.draw(st.integers(0, 7)))
    try:
        path.write_bytes(whole[:place] + bytes([changed]) + whole[place + 1 :])
        assert rejected(original_bundle) == f"{path} does not have the bytes that the manifest lists"
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("name", ["extra.safetensors", ".hidden", "sub/modeling.py", "modeling_taylor.pyc"])
def test_an_added_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_bytes(b"")
    assert rejected(bundle) == f"{bundle / name} is not in the manifest"


def test_each_file_that_is_removed_is_named(bundle: Path) -> None:
    for path in [path for path in files_below(bundle) if path.name != MANIFEST]:
        aside = path.rename(bundle.parent / "aside")
        assert rejected(bundle) == f"{path} is missing; the manifest lists it"
        aside.rename(path)


def test_a_renamed_file_is_refused(bundle: Path) -> None:
    (bundle / WEIGHTS).rename(bundle / "model.safetensors")
    assert str(bundle / WEIGHTS) in rejected(bundle)


def test_a_recorded_token_that_the_bundle_does_not_say_is_named_with_its_prompt(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = read_json(bundle / MANIFEST)["exactness"]["continuations"]
    recorded, said = every[1], [one["new_tokens"] for one in every]
    monkeypatch.setattr(verifying, "clean_process", says(lambda *_given: said))
    wrong = (recorded["new_tokens"][4] + 1) % 256

    def change(manifest: dict[str, Any]) -> None:
        manifest["exactness"]["continuations"][1]["new_tokens"][4] = wrong

    change_manifest(bundle, change)
    assert rejected(bundle) == (
        f"{bundle} continues prompt {recorded['prompt']} with other tokens than recorded, from new token 4"
    )


def test_weights_that_were_changed_together_with_their_hash_are_found_by_what_they_say(bundle: Path) -> None:
    spoil_weights(bundle)
    assert "with other tokens than recorded" in rejected(bundle)


# In which order


def marking_code(bundle: Path, marker: Path) -> None:
    """Let the modeling code of a bundle leave a file where it runs, and let the manifest list the changed code."""
    path = without_attestations(bundle) / "modeling_taylor.py"
    code = f"open({str(marker)!r}, 'w').close()\n"
    path.write_text(code + path.read_text(encoding="utf-8"), encoding="utf-8")
    change_manifest(bundle, lambda manifest: manifest["files"].update({path.name: sha256_of(path)}))


@pytest.mark.parametrize("small", [0, 2**20], ids=["while the process starts", "before it starts"])
def test_no_code_of_a_bundle_runs_before_every_hash_is_checked(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr(verifying, "_SMALL", small)
    marker, whole = tmp_path / "marker", (bundle / WEIGHTS).read_bytes()
    marking_code(bundle, marker)
    (bundle / WEIGHTS).write_bytes(whole[:-1])
    assert rejected(bundle, trust_code=True) == f"{bundle / WEIGHTS} does not have the bytes that the manifest lists"
    assert not marker.exists()
    (bundle / WEIGHTS).write_bytes(whole)
    assert verify(bundle, trust_code=True).prompts == PROMPTS
    assert marker.exists()


def test_large_files_are_read_while_the_clean_process_starts(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    hashed, start = verifying.sha256_of_all, verifying.clean_process

    def hashing(paths: list[Path], progress: Progress) -> list[str]:
        happened.extend(path.name for path in paths)
        return hashed(paths, progress)

    @contextmanager
    def starting(own: bool) -> Iterator[Any]:
        happened.append("start")
        with start(own) as process:
            yield process

    monkeypatch.setattr(verifying, "sha256_of_all", hashing)
    monkeypatch.setattr(verifying, "clean_process", starting)
    monkeypatch.setattr(verifying, "_SMALL", (bundle / WEIGHTS).stat().st_size - 1)
    verify(bundle)
    assert happened.index("modeling_taylor.py") < happened.index("start") < happened.index(WEIGHTS)


def test_progress_counts_the_files_and_then_the_tokens(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "_SMALL", 0)
    told: list[tuple[int, int]] = []
    verify(bundle, progress=lambda *step: told.append(step))
    assert told == sorted(told)
    assert told[-1] == (100, 100)
    files = len(read_json(bundle / MANIFEST)["files"])
    assert len(told) == files + NEW_TOKENS + 1
    told.clear()
    verify(bundle, tokens=False, progress=lambda *step: told.append(step))
    assert told[-1] == (100, 100)


# What is no bundle


def test_a_folder_without_a_manifest_is_no_bundle(bundle: Path) -> None:
    (bundle / MANIFEST).unlink()
    with pytest.raises(BadInput) as caught:
        verify(bundle)
    assert str(bundle / MANIFEST) in caught.value.cause
    assert "folder of a bundle" in caught.value.remedy
    assert caught.value.exit_status == 2


def test_a_folder_that_is_not_there_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere"):
        verify(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"format": 2}', '{"format": 1}', '{"format": "1"}'])
def test_a_manifest_that_is_none_or_of_another_format_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text, encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        verify(tmp_path)
    assert str(tmp_path / MANIFEST) in caught.value.cause


def test_a_manifest_of_a_later_format_asks_for_a_newer_tool(bundle: Path) -> None:
    change_manifest(bundle, lambda manifest: manifest.update(format=2))
    with pytest.raises(BadInput, match="has format 2; this version reads format 1") as caught:
        read_manifest(bundle)
    assert "newer taylor-release" in caught.value.remedy


# Strange manifests

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
READ = ("format", "files", "exactness", "yanked", "signature")


def places_in(part: Any, *above: str | int) -> list[tuple[str | int, ...]]:
    """The way to every part of a JSON document that verification reads, itself included."""
    keys = list(part) if isinstance(part, dict) else list(range(len(part))) if isinstance(part, list) else []
    keys = keys if above else [key for key in keys if key in READ]
    return [above, *(place for key in keys for place in places_in(part[key], *above, key))]


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_a_manifest_with_anything_anywhere_is_refused_in_words_or_holds(
    older_bundle: Path, data: st.DataObject
) -> None:
    whole = (older_bundle / MANIFEST).read_text(encoding="utf-8")
    document = json.loads(whole) | {"yanked": None, "signature": None}
    document["exactness"] = {"continuations": [{"prompt": "a", "prompt_tokens": [1, 2], "new_tokens": list(TOKENS)}]}
    place = data.draw(st.sampled_from(places_in(document)[1:]))
    part: Any = document
    for key in place[:-1]:
        part = part[key]
    if data.draw(st.booleans()):
        del part[place[-1]]
    else:
        part[place[-1]] = data.draw(ANY_JSON)
    try:
        (older_bundle / MANIFEST).write_text(json.dumps(document), encoding="utf-8")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                verifying,
                "clean_process",
                says(lambda _bundle, prompts, length, _progress: [TOKENS[:length] for _ in prompts]),
            )
            assert verify(older_bundle).files == len(document["files"])
    except (BadInput, GateRejected) as error:
        if str(older_bundle) not in error.cause:
            raise
    finally:
        (older_bundle / MANIFEST).write_text(whole, encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"exactness": {}}, "exactness.continuations: Field required"),
        ({"files": {"README.md": 3}}, "files.README.md: Input should be a valid string"),
        ({"yanked": "yes"}, "yanked: Input should be"),
        (
            {"exactness": {"continuations": [{"prompt": "a"}]}},
            "exactness.continuations.0.prompt_tokens: Field required",
        ),
        (
            {"exactness": {"continuations": [{"prompt": "a", "prompt_tokens": [1], "new_tokens": []}]}},
            "exactness.continuations.0.new_tokens: List should have at least 1 item",
        ),
    ],
)
def test_what_a_manifest_lacks_is_named(bundle: Path, change: dict[str, Any], says: str) -> None:
    change_manifest(bundle, lambda manifest: manifest.update(change))
    with pytest.raises(BadInput, match="is not a whole manifest") as caught:
        verify(bundle)
    assert says in caught.value.cause
    assert str(bundle / MANIFEST) in caught.value.cause


def test_a_bundle_that_ends_early_is_refused_where_it_ends(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = [one["new_tokens"] for one in read_json(bundle / MANIFEST)["exactness"]["continuations"]]
    said = [*recorded[:-1], recorded[-1][:2]]
    monkeypatch.setattr(verifying, "clean_process", says(lambda *_given: said))
    assert rejected(bundle).endswith("with other tokens than recorded, from new token 2")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
def test_a_manifest_of_endless_depth_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match="cannot be read"):
        verify(tmp_path)
