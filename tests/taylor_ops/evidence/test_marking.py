"""A marked model is what conversion makes of marked weights, bit by bit as planned, and a copy of a bundle verifies."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from flows.commands.evidence import mark as mark_command
from taylor_ops.attestations.attest import BILL_FILE, PROVENANCE_FILE
from taylor_ops.audit.record import AuditRecord
from taylor_ops.bundle.assemble import assemble
from taylor_ops.bundle.findings import Findings
from taylor_ops.bundle.manifest import CARD, MANIFEST
from taylor_ops.bundle.marked_copy import mark_bundle
from taylor_ops.config.evidence import STRENGTH
from taylor_ops.config.exactness import Exactness
from taylor_ops.config.source import FolderSource
from taylor_ops.config.texts import TextSource
from taylor_ops.conversion.convert import convert
from taylor_ops.conversion.terms import Subject
from taylor_ops.errors import BadInput, GateRejected
from taylor_ops.evidence.mark import mark, marking_bound, moved_norms
from taylor_ops.evidence.marking import Copy, MarkedModel
from taylor_ops.exactness.layers import require_within_bounds
from taylor_ops.exactness.validate import validate
from taylor_ops.model.loading import load_bundle, load_original
from taylor_ops.model.original import Original
from taylor_ops.series.ranges import read_ranges
from taylor_ops.signing.keys import SIGNATURE, read_public_key
from taylor_ops.source.resolve import resolve
from taylor_ops.storage.files import files_below, read_json, sha256_of_tree
from taylor_ops.verification import verify as verifying
from taylor_ops.verification.record import Verified
from taylor_ops.verification.verify import verify
from tests.support import release_example as example
from tests.support.evidence_example import KEY, OTHER_KEY, RECIPIENTS, copy_for, marked_original
from tests.support.keys import write_key
from tests.taylor_ops.conftest import CPU, Sample, silent

FILE = "model-00001-of-00001.safetensors"
TERMS = "model.layers.1.mlp.terms.weight"


def marked(sample: Sample, copy: Copy, folder: Path) -> dict[str, Tensor]:
    """The tensors of the marked copy of a converted model."""
    folder.mkdir()
    MarkedModel(sample.converted, copy).write(folder, silent)
    return load_file(folder / FILE)


@pytest.mark.parametrize("changes", [{}, {"min_protected": 0.5}], ids=["all protected", "some unprotected"])
def test_marking_what_was_converted_is_converting_what_was_marked(
    gated_or_plain: Sample, tmp_path: Path, changes: dict[str, Any]
) -> None:
    sample, copy = gated_or_plain.again(tmp_path / "converted", **changes), copy_for(3, 1e-3)
    first = marked_original(sample.original, copy, tmp_path / "marked-original")
    subject = Subject(Original(first), sample.ranges, sample.conversion)
    convert(subject, sample.plan, tmp_path / "then-converted", silent)
    expected, found = load_file(tmp_path / "then-converted" / FILE), marked(sample, copy, tmp_path / "marked")
    before = load_file(sample.converted / FILE)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        # Two roundings in place of two others.
        assert torch.allclose(tensor, expected[name], rtol=4e-7, atol=0), name
        assert torch.equal(tensor, before[name]) != name.endswith("terms.weight"), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_mark_moves_the_terms_of_marked_weights_alone_and_stays_in_16_bits(
    llama: Sample, tmp_path: Path, dtype: str
) -> None:
    sample, copy = llama.again(tmp_path / "converted", dtype=dtype), copy_for(3, STRENGTH)
    before, after = load_file(sample.converted / FILE)[TERMS], marked(sample, copy, tmp_path / "marked")[TERMS]
    layer = MarkedModel(sample.converted, copy).layer(TERMS.removesuffix(".terms.weight"))
    starts = [sum(layer.widths[:n]) for n in range(len(layer.widths))]
    expected = torch.ones(before.shape)
    for width, start in zip(layer.widths, starts, strict=True):
        here = layer.place < width
        expected[layer.row[here], start + layer.place[here]] = layer.factor[here]
    there, here_ = before.double(), after.double()
    large_enough = there.abs() > 1e-4
    assert torch.equal((here_ != there) & large_enough, (expected != 1) & large_enough)
    assert (((here_ / there - 1).sign() == (expected - 1).sign()) | ~large_enough).all()
    step = torch.finfo(before.dtype).eps
    assert ((here_ / there - expected).abs() <= step)[large_enough].all()


def test_a_marked_model_is_the_same_again_and_another_for_another_recipient_key_or_version(
    llama: Sample, tmp_path: Path
) -> None:
    copies = [
        copy_for(3, 1e-2),
        copy_for(3, 1e-2),
        copy_for(4, 1e-2),
        Copy(OTHER_KEY, RECIPIENTS[3].name, "1.2.0", 1e-2),
        Copy(KEY, RECIPIENTS[3].name, "1.2.1", 1e-2),
    ]
    terms = [marked(llama, copy, tmp_path / str(number))[TERMS] for number, copy in enumerate(copies)]
    assert sha256_of_tree(tmp_path / "0") == sha256_of_tree(tmp_path / "1")
    assert all(not torch.equal(terms[0], other) for other in terms[2:])


# The gates of a marked model


@pytest.mark.parametrize("wrong", ["one bit", "an added file", "no mark", "another recipient"])
def test_a_marked_model_that_is_not_as_planned_is_refused(llama: Sample, tmp_path: Path, wrong: str) -> None:
    copy, folder = copy_for(3, 1e-3), tmp_path / "marked"
    tensors = marked(llama, copy, folder)
    MarkedModel(llama.converted, copy).require_in(folder)
    if wrong == "one bit":
        tensors[TERMS].view(torch.int32)[3, 77] ^= 1
        (folder / FILE).unlink()
        save_file(tensors, folder / FILE, metadata={"format": "pt"})
    elif wrong == "an added file":
        (folder / "more").write_text("")
    elif wrong == "no mark":
        (folder / FILE).unlink()
        shutil.copyfile(llama.converted / FILE, folder / FILE)
    else:
        copy = copy_for(4, 1e-3)
    with pytest.raises(GateRejected, match="is not what the converted model and its mark give"):
        MarkedModel(llama.converted, copy).require_in(folder)


def test_the_mark_moves_no_layer_by_more_than_its_bound_and_is_counted_in_the_bound_of_the_layer(
    gated_or_plain: Sample, tmp_path: Path
) -> None:
    sample, copy, margin = gated_or_plain, copy_for(3, 0.1), gated_or_plain.conversion.range_margin
    places = (sample.original, sample.ranges, margin, sample.record, sample.converted)
    record = mark(*places, copy, tmp_path / "marked", silent)
    assert record.mark is not None
    assert record.mark.recipient == RECIPIENTS[3].name
    held_out = TextSource(name="project", builtin="held_out", limit=2)
    settings = Exactness(prompts=(held_out,), running_text=(), new_tokens=4)
    seen = validate(sample.subject, tmp_path / "marked", settings, CPU, silent).layers
    require_within_bounds(seen, record.layers)
    with pytest.raises(GateRejected, match="allow"):
        require_within_bounds(seen, sample.record.layers)
    original, captured = Original(sample.original), read_ranges(sample.ranges)
    for mlp, layer, error in zip(original.mlps, record.layers, seen, strict=True):
        moved = moved_norms(original, mlp, copy)
        assert float(moved.max()) > 0
        assert layer.marking == marking_bound(original.activation, captured[mlp.path], margin, moved)
        assert error.inside is not None
        assert 0 < error.inside <= layer.bound


# A further recipient's copy of a bundle


@pytest.fixture(scope="module")
def master(llama: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that is nobody's."""
    root = tmp_path_factory.mktemp("master")
    held_out = TextSource(name="project", builtin="held_out", limit=2)
    exactness = Exactness(prompts=(held_out,), running_text=(), new_tokens=4)
    evidence = Findings(
        source=resolve(FolderSource(kind="folder", path=llama.original), root, silent),
        converted=llama.record,
        latency=example.latency(),
        exactness=validate(llama.subject, llama.converted, exactness, CPU, silent),
        audit=AuditRecord(attacks=(), skipped=True),
    )
    assemble(llama.converted, example.config(), example.document(), evidence, root / "bundle")
    return root / "bundle"


def test_a_marked_copy_of_a_bundle_verifies_and_says_that_it_is_marked_and_not_for_whom(
    master: Path, tmp_path: Path
) -> None:
    before = sha256_of_tree(master)
    mark_bundle(master, RECIPIENTS[9].name, KEY, STRENGTH, tmp_path / "copy", silent)
    assert verify(tmp_path / "copy").prompts == 2
    assert sha256_of_tree(master) == before
    manifest, card = read_json(tmp_path / "copy" / MANIFEST), (tmp_path / "copy" / CARD).read_text(encoding="utf-8")
    assert manifest["evidence"]["marked"] is True
    assert card.count("This copy is marked") == 1
    assert card.startswith("---\n")
    changed = {name for name, sha256 in sha256_of_tree(tmp_path / "copy").items() if sha256 != before[name]}
    assert changed == {FILE, CARD, MANIFEST, BILL_FILE, PROVENANCE_FILE}
    for path in files_below(tmp_path / "copy"):
        text = path.read_bytes()
        assert RECIPIENTS[9].name.encode() not in text
        assert KEY.name.encode() not in text
        assert b"a secret of the owner" not in text


def test_a_second_mark_a_folder_that_is_there_and_a_name_that_is_none_are_refused(master: Path, tmp_path: Path) -> None:
    mark_bundle(master, "acme", KEY, 1e-3, tmp_path / "copy", silent)
    with pytest.raises(BadInput, match="is marked already"):
        mark_bundle(tmp_path / "copy", "beta", KEY, 1e-3, tmp_path / "second", silent)
    with pytest.raises(BadInput, match="exists already"):
        mark_bundle(master, "beta", KEY, 1e-3, tmp_path / "copy", silent)
    with pytest.raises(BadInput, match="is no name"):
        mark_bundle(master, "two words", KEY, 1e-3, tmp_path / "third", silent)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]


@pytest.mark.parametrize("strength", [math.nan, math.inf, 0.0, -0.01, 0.3])
def test_a_strength_that_no_copy_may_have_is_refused(master: Path, tmp_path: Path, strength: float) -> None:
    with pytest.raises(BadInput, match=r"strength .* is not between 1e-05 and 0\.2"):
        mark_bundle(master, "acme", KEY, strength, tmp_path / "copy", silent)
    assert list(tmp_path.iterdir()) == []


def test_a_copy_inside_the_bundle_is_refused(master: Path) -> None:
    before = sha256_of_tree(master)
    with pytest.raises(BadInput, match="lies inside the bundle"):
        mark_bundle(master, "acme", KEY, 1e-3, master / "copy", silent)
    assert sha256_of_tree(master) == before


@pytest.mark.parametrize(
    "stops", [KeyboardInterrupt(), GateRejected("another token", "none")], ids=["by hand", "refused"]
)
def test_a_copy_that_was_not_verified_to_the_end_does_not_stay(
    master: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: BaseException
) -> None:
    def stopped(bundle: Path, _signer: object = None, tokens: bool = True, trust_code: bool = False) -> Verified:
        if bundle == master:
            return verify(bundle, tokens=tokens)
        assert not trust_code
        assert (bundle / MANIFEST).is_file()
        raise stops

    (tmp_path / "key").write_text("a secret of the owner, in a file")
    monkeypatch.setattr(verifying, "verify", stopped)
    with pytest.raises(type(stops)):
        mark_command(master, "acme", str(tmp_path / "key"), tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_copy_is_signed_anew_where_a_key_is_given(master: Path, tmp_path: Path) -> None:
    key = write_key(tmp_path / "k.pem")
    mark_bundle(master, "acme", KEY, 1e-3, tmp_path / "copy", silent, key)
    assert verify(tmp_path / "copy", read_public_key(key.with_suffix(".pub")), tokens=False).signed_by
    assert (tmp_path / "copy" / SIGNATURE).is_file()


def test_a_marked_model_says_what_the_original_says(llama: Sample, tmp_path: Path) -> None:
    marked(llama, copy_for(3, STRENGTH), tmp_path / "marked")
    ids = torch.arange(40)[None] % 256
    with torch.inference_mode():
        one = load_original(llama.original, "float32", CPU)(ids).logits
        other = load_bundle(tmp_path / "marked", CPU)(ids).logits
    apart = (one - other).abs().max()
    assert 0 < apart < 5e-3 * one.std()
