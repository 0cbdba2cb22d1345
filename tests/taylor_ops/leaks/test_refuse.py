"""The leak gate: a clean bundle passes, and whatever is planted in one is refused by its file and tensor."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from taylor_ops.config.release import public_texts
from taylor_ops.conversion.convert import convert
from taylor_ops.errors import GateRejected
from taylor_ops.leaks.record import NoLeak
from taylor_ops.leaks.refuse import require_no_leak
from taylor_ops.leaks.texts import Machine, this_machine
from taylor_ops.leaks.weights import ProtectedLines
from taylor_ops.model.checkpoint import Checkpoint
from taylor_ops.model.original import Original
from taylor_ops.storage.files import sha256_of_tree
from tests.support import release_example as example
from tests.taylor_ops.conftest import Sample, sample, silent

PROTECTED = "model.layers.1.mlp.down_proj.weight"
TERMS = "model.layers.1.mlp.terms.weight"
WEIGHTS = "model-00001-of-00001.safetensors"
HERE = Machine("anna.berg", "gpu-box-17.lab.example", (Path("/data/projects/anna"), Path("/tmp")), ("s3cret-of-anna",))
# In pieces, so that no scanner takes this file for a leak.
HUB_TOKEN = "hf_" + "aBcDeFgHiJ" * 3 + "wxyz"
DRAW = torch.Generator().manual_seed(7)


@pytest.fixture
def bundle(llama: Sample, tmp_path: Path) -> Path:
    """A bundle to plant something in."""
    folder = shutil.copytree(llama.converted, tmp_path / "bundle")
    (folder / "README.md").write_text(
        "# A model\n\nThe root mean square. Contact: team@example.org\n", encoding="utf-8"
    )
    return folder


def look(sample: Sample, bundle: Path, files: dict[str, str] | None = None, machine: Machine = HERE) -> NoLeak:
    source_files = sha256_of_tree(sample.original)
    return require_no_leak(
        bundle,
        files or sha256_of_tree(bundle),
        sample.original,
        source_files,
        sample.record.layers,
        ["team@example.org", "anna.berg/Tiny"],
        machine,
        silent,
    )


def refused(sample: Sample, bundle: Path, files: dict[str, str] | None = None, machine: Machine = HERE) -> str:
    with pytest.raises(GateRejected) as caught:
        look(sample, bundle, files, machine)
    assert caught.value.exit_status == 1
    return caught.value.cause


def plant(bundle: Path, name: str, tensor: Tensor) -> None:
    tensors = load_file(bundle / WEIGHTS)
    save_file(tensors | {name: tensor.contiguous()}, bundle / WEIGHTS, metadata={"format": "pt"})


def shuffled(size: int) -> Tensor:
    return torch.randperm(size, generator=DRAW)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=DRAW)


def within(larger: Tensor, row: int, column: int, tensor: Tensor) -> Tensor:
    larger[row : row + len(tensor), column : column + tensor.shape[1]] = tensor
    return larger


def scattered(w: Tensor) -> Tensor:
    """The columns of `w` in any order, between as many of noise, with rows of noise above and below."""
    larger = noise(len(w) + 7, 2 * w.shape[1])
    larger[3 : 3 + len(w), shuffled(2 * w.shape[1])[: w.shape[1]]] = w
    return larger


PLANTED: dict[str, Callable[[Tensor], Tensor]] = {
    "as it is": lambda w: w,
    "columns permuted": lambda w: w[:, shuffled(w.shape[1])],
    "rows permuted": lambda w: w[shuffled(len(w))],
    "rows and columns permuted": lambda w: w[shuffled(len(w))][:, shuffled(w.shape[1])],
    "times 3": lambda w: 3 * w,
    "negated": lambda w: -w,
    "transposed": lambda w: w.T,
    "in bfloat16": lambda w: w.bfloat16(),
    "in float16": lambda w: w.half(),
    "slice of a larger one": lambda w: within(noise(len(w) + 11, w.shape[1] + 13), 5, 9, w),
    "columns scattered in a larger one": scattered,
    "stacked": lambda w: torch.stack([noise(*w.shape), w, noise(*w.shape)]),
    "in a vector": lambda w: torch.cat([noise(101), w.reshape(-1), noise(57)]),
    "half of its columns": lambda w: w[:, ::2],
    "all of it at once": lambda w: within(
        noise(w.shape[1] + 5, len(w) + 5),
        2,
        3,
        (-3 * w[shuffled(len(w))][:, shuffled(w.shape[1])]).bfloat16().T.float(),
    ),
}


# Weights


def test_a_clean_bundle_passes(gated_or_plain: Sample, tmp_path: Path) -> None:
    found = look(gated_or_plain, gated_or_plain.converted)
    assert found.files == len(sha256_of_tree(gated_or_plain.converted))
    assert found.tensors == len(list(Checkpoint(gated_or_plain.converted).stored()))
    mlps = gated_or_plain.record.layers
    hidden = Original(gated_or_plain.original).config.hidden_size
    assert found.lines == sum(layer.neurons + hidden for layer in mlps)


@pytest.mark.parametrize("how", PLANTED)
def test_a_protected_tensor_is_found_and_named(llama: Sample, bundle: Path, how: str) -> None:
    plant(bundle, "model.norm.extra", PLANTED[how](Checkpoint(llama.original).tensor(PROTECTED)))
    cause = refused(llama, bundle)
    assert f"{bundle / WEIGHTS}: tensor model.norm.extra holds protected weights of model.layers.1.mlp" in cause


def test_a_protected_tensor_is_found_whichever_of_two_files_has_a_name(llama: Sample, bundle: Path) -> None:
    name = "model.layers.0.mlp.gate.weight"
    save_file({name: Checkpoint(llama.original).tensor(PROTECTED)}, bundle / "a.safetensors", metadata={"format": "pt"})
    assert f"{bundle / 'a.safetensors'}: tensor {name} holds protected weights" in refused(llama, bundle)


def test_output_weights_that_stand_in_the_terms_as_trained_are_refused(llama: Sample, bundle: Path) -> None:
    secret = Checkpoint(llama.original).tensor(PROTECTED)
    terms = load_file(bundle / WEIGHTS)[TERMS]
    terms[:, : secret.shape[1]] = -secret[:, shuffled(secret.shape[1])]
    plant(bundle, TERMS, terms)
    cause = refused(llama, bundle)
    assert f"tensor {TERMS} holds the output weights of {secret.shape[1]} neurons" in cause


def test_output_weights_that_stand_in_marked_terms_as_trained_are_refused(tmp_path: Path) -> None:
    """So many rows that every column has a marked weight: none is whole."""
    tall = sample(tmp_path, "llama", hidden_size=2048, intermediate_size=64, num_hidden_layers=1)
    down, terms = "model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.terms.weight"
    secret = Checkpoint(tall.original).tensor(down)
    marked = secret * torch.where(torch.rand(secret.shape, generator=DRAW) < 1 / 256, 1.004, 1.0)
    assert (marked != secret).any(0).all()
    stored = load_file(tall.converted / WEIGHTS)[terms]
    stored[:, : secret.shape[1]] = marked
    look(tall, tall.converted)
    plant(tall.converted, terms, stored)
    assert f"tensor {terms} holds the output weights of" in refused(tall, tall.converted)


def test_columns_behind_the_terms_are_refused(llama: Sample, bundle: Path) -> None:
    terms = load_file(bundle / WEIGHTS)[TERMS]
    plant(bundle, TERMS, torch.cat([terms, noise(len(terms), 3)], dim=1))
    assert f"tensor {TERMS} has shape" in refused(llama, bundle)


def test_neurons_that_are_in_clear_by_plan_are_no_leak(llama: Sample, tmp_path: Path) -> None:
    some = llama.again(tmp_path / "some", min_protected=0.6)
    plans = [plan for plan in some.expansions.ladder() if plan.clear]
    assert plans
    record = convert(some.subject, plans[0], tmp_path / "clear", silent)
    assert sum(layer.clear for layer in record.layers) > 0.1 * record.neurons_total
    hashes = sha256_of_tree(tmp_path / "clear")
    require_no_leak(tmp_path / "clear", hashes, llama.original, {}, record.layers, [], HERE, silent)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tails", [0.0, 0.8])
def test_at_the_size_of_a_model_nothing_is_missed_and_nothing_is_taken_for_it(dtype: torch.dtype, tails: float) -> None:
    """Real widths, where lines of chance are most alike; with `tails`, weights are far from normally distributed."""

    def drawn(path: str) -> Tensor:
        draw = torch.Generator().manual_seed(1000 + int(path))
        weights = 0.03 * torch.randn(384, 1024, generator=draw)
        return weights * torch.exp(tails * torch.randn(384, 1024, generator=draw))

    class Layer:
        def __init__(self, path: str) -> None:
            self.path = path

    layers = [Layer(str(number)) for number in range(3)]
    lines = ProtectedLines(layers, lambda layer: drawn(layer.path))  # type: ignore[arg-type,return-value]
    assert lines.look_into("other", torch.cat([drawn("7"), drawn("8")]).to(dtype)) + lines.proven() == []
    leak = scattered(drawn("2")) if tails else within(noise(400, 1100), 3, 50, drawn("2"))
    lines.look_into("leak", (3 * leak).to(dtype))
    assert [(found.tensor, found.mlp) for found in lines.proven()] == [("leak", "2")]


# Files


def test_a_file_that_the_manifest_does_not_list_is_named(llama: Sample, bundle: Path) -> None:
    files = sha256_of_tree(bundle)
    (bundle / ".cache").mkdir()
    (bundle / ".cache" / "notes.txt").write_text("x")
    assert refused(llama, bundle, files) == f"{bundle / '.cache' / 'notes.txt'} is not in the manifest"


@pytest.mark.parametrize("change", ["changed", "removed", "linked"])
def test_a_file_that_is_not_as_assembled_is_named(llama: Sample, bundle: Path, change: str) -> None:
    files, path = sha256_of_tree(bundle), bundle / "config.json"
    if change == "changed":
        path.write_text("{}")
    else:
        shutil.move(path, bundle.parent / "aside")
    if change == "linked":
        path.symlink_to(bundle.parent / "aside")
    assert str(path) in refused(llama, bundle, files)


def test_a_pickle_is_refused_under_any_name(llama: Sample, bundle: Path) -> None:
    for name, content in (
        ("pytorch_model.bin", b"anything"),
        ("notes.txt", pickle.dumps({"a": 1}, protocol=2)),
        ("config_more.json", pickle.dumps([1.0], protocol=5)),
    ):
        (bundle / name).write_bytes(content)
        assert f"{bundle / name} is a pickle" in refused(llama, bundle)
        (bundle / name).unlink()
    torch.save({"a": torch.zeros(2)}, bundle / "state.json")
    assert f"{bundle / 'state.json'} is a pickle or an archive" in refused(llama, bundle)


# Texts


@pytest.mark.parametrize(
    ("said", "named"),
    [
        (HUB_TOKEN, "a secret (Hugging Face token)"),
        ("ghp_" + "a1B2" * 9, "a secret (GitHub Token)"),
        ("github_pat_" + "a1B2_" * 12, "a secret (GitHub Token)"),
        ("AKIA" + "QWERTYUIOPASDF12", "a secret (AWS Access Key)"),
        ("-----BEGIN EC " + "PRIVATE KEY-----", "a secret (Private Key)"),
        ("https://anna:" + "geheim@example.org/x", "a secret (Basic Auth Credentials)"),
        ("pnu_" + "a1B2c3" * 6, "a secret (Prefect API key)"),
        ("s3cret-of-anna", "a token that is set on this machine"),
        ("/home/somebody/models/tiny", "the path /home/somebody"),
        (r"C:\Users\somebody\models", r"the path C:\Users\somebody"),
        ("~/models/tiny", "the path ~/models"),
        ("read from /data/projects/anna/x", "the path /data/projects/anna of this machine"),
        ("made by anna.berg", "the user name `anna.berg`"),
        ("on gpu-box-17.lab.example", "the host name `gpu-box-17.lab.example`"),
        ("on gpu-box-17", "the host name `gpu-box-17`"),
        ("write to anna@lab.example", "the e-mail address anna@lab.example"),
    ],
)
@pytest.mark.parametrize("name", ["README.md", "config.json", "modeling_taylor.py"])
def test_what_a_text_gives_away_is_named_with_its_file_and_line(
    llama: Sample, bundle: Path, said: str, named: str, name: str
) -> None:
    path = bundle / name
    lines = path.read_text(encoding="utf-8").count("\n")
    path.write_text(path.read_text(encoding="utf-8") + f"# {said}\n", encoding="utf-8")
    cause = refused(llama, bundle)
    assert cause.startswith(f"{path} gives away {named}")
    assert cause.endswith(f" in line {lines + 1}")
    assert HUB_TOKEN not in cause


def test_the_header_of_a_weights_file_is_read_too(llama: Sample, bundle: Path) -> None:
    tensors = load_file(bundle / WEIGHTS)
    save_file(tensors, bundle / WEIGHTS, metadata={"format": "pt", "from": "/home/somebody/tiny"})
    assert f"{bundle / WEIGHTS} gives away the path /home/somebody" in refused(llama, bundle)


def test_a_path_in_a_file_of_the_original_is_found_before_it_goes_on(llama: Sample, tmp_path: Path) -> None:
    original = shutil.copytree(llama.original, tmp_path / "original")
    bundle = shutil.copytree(llama.converted, tmp_path / "bundle")
    settings = json.loads((original / "tokenizer_config.json").read_text()) | {"name_or_path": "/home/somebody/tiny"}
    for folder in (original, bundle):
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert "tokenizer_config.json gives away the path /home/somebody" in refused(llama, bundle)


def test_words_of_the_original_vocabulary_are_no_leak(llama: Sample, tmp_path: Path) -> None:
    machine = Machine("quux", "a-token", ())
    bundle = shutil.copytree(llama.converted, tmp_path / "bundle")
    words = ["quux", "/home/user", "me@example.org", "a-token", "://", "a", "@", "-----BEGIN " + "PRIVATE KEY-----"]
    entries = {word: number for number, word in enumerate(words)}
    (bundle / "vocab.json").write_text(json.dumps(entries, separators=(",", ":")))
    vocabulary = {name: sha256 for name, sha256 in sha256_of_tree(bundle).items() if name == "vocab.json"}
    look_with = [llama.original, vocabulary, llama.record.layers, [], machine, silent]
    require_no_leak(bundle, sha256_of_tree(bundle), *look_with)  # type: ignore[arg-type]
    (bundle / "vocab.json").write_text(json.dumps({HUB_TOKEN: 0}))
    assert "vocab.json gives away a secret" in refused(llama, bundle)


def test_what_the_config_means_to_publish_may_stand_there(llama: Sample, bundle: Path) -> None:
    with (bundle / "README.md").open("a") as readme:
        readme.write("from_pretrained('anna.berg/Tiny'); mailto:team@example.org\n")
    look(llama, bundle)
    assert public_texts(example.config()) == ["owner/Tiny", "example-org/Tiny-Taylor", "owner/Tiny"]


@pytest.mark.parametrize("user", ["root", "runner", "ci", ""])
def test_names_that_everybody_has_are_no_leak(llama: Sample, bundle: Path, user: str) -> None:
    look(llama, bundle, machine=Machine(user, "localhost", ()))


def test_this_machine_is_known_by_its_folders(tmp_path: Path) -> None:
    machine = this_machine(tmp_path)
    assert {Path.home(), Path.cwd(), tmp_path} <= set(machine.places)
    assert not set(machine.secrets) & set(map(str, machine.identity().values()))
