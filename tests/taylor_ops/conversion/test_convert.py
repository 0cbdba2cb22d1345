"""Conversion: what the converted model holds and what it does not, and that it says what the original says."""

from __future__ import annotations

import json
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from taylor_ops.config.conversion import Conversion
from taylor_ops.conversion.convert import convert
from taylor_ops.conversion.in_memory import convert_in_memory
from taylor_ops.conversion.parts import parts_of
from taylor_ops.conversion.terms import Subject
from taylor_ops.errors import BadInput, WorkFailed
from taylor_ops.machine.threads import threads_restored, use_threads
from taylor_ops.model.checkpoint import Checkpoint
from taylor_ops.model.loading import load_bundle, load_original
from taylor_ops.model.original import Original
from taylor_ops.model.shape import model_config
from taylor_ops.model.weight_files import INDEX
from taylor_ops.series import ladder
from taylor_ops.series.activations import Activation
from taylor_ops.series.fitted_layer import FittedLayer
from taylor_ops.series.ranges import LayerRange, read_ranges
from taylor_ops.storage.files import sha256_of_tree
from tests.taylor_ops.conftest import CPU, Sample, converted, sample, silent

DOWN = {"llama": "down_proj", "phi": "fc2"}
ROLES = {"gate_proj": "gate", "up_proj": "up", "fc1": "gate"}
RENAMED = re.compile("|".join(ROLES))


def protected_weights(sample: Sample) -> dict[str, Tensor]:
    """The output weights of every MLP of the original."""
    original = Checkpoint(sample.original)
    role = DOWN[model_config(sample.original).model_type]
    found = {name: original.tensor(name) for name in original.names() if name.endswith(f"mlp.{role}.weight")}
    assert len(found) == 2
    return found


def logits(model: Any) -> Tensor:
    """Logits over a fixed batch of text tokens."""
    ids = torch.randint(32, 127, (4, 48), generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        answer: Tensor = model(input_ids=ids).logits
    return answer


# What is in it


def test_no_tensor_of_a_converted_model_is_one_of_the_protected_output_weights(gated_or_plain: Sample) -> None:
    released = Checkpoint(gated_or_plain.converted)
    secrets = protected_weights(gated_or_plain).values()
    for name in released.names():
        tensor = released.tensor(name)
        for secret in secrets:
            assert tensor.shape != secret.shape or not torch.allclose(tensor, secret, rtol=1e-3), name
            if tensor.dim() == 2 and tensor.shape[0] == secret.shape[0]:
                apart = (tensor[:, :, None] - secret[:, None, :]).abs().amax(0)
                assert float(apart.min()) > 1e-3, name


def test_every_neuron_is_covered(gated_or_plain: Sample) -> None:
    record = gated_or_plain.record
    assert record.neurons_protected == record.neurons_total == 96
    assert [layer.path for layer in record.layers] == ["model.layers.0.mlp", "model.layers.1.mlp"]
    assert sum(layer.columns for layer in record.layers) == gated_or_plain.plan.columns
    assert all(0 < layer.bound <= gated_or_plain.conversion.tolerance for layer in record.layers)
    widths = json.loads((gated_or_plain.converted / "config.json").read_text())["taylor_mlp"]["layers"]
    released = Checkpoint(gated_or_plain.converted)
    for layer in record.layers:
        assert widths[layer.path][0] == widths[layer.path][1] == layer.neurons == 48
        assert released.shape(f"{layer.path}.terms.weight") == (32, layer.columns)


def test_bytes_are_those_of_the_tensors(gated_or_plain: Sample) -> None:
    for folder, counted in (
        (gated_or_plain.converted, gated_or_plain.record.bytes),
        (gated_or_plain.original, gated_or_plain.record.original_bytes),
    ):
        held = Checkpoint(folder)
        assert counted == sum(held.tensor(name).numel() * 4 for name in held.names())


def test_tensors_outside_the_mlps_are_untouched_and_inputs_are_only_reordered(gated_or_plain: Sample) -> None:
    original, released = Checkpoint(gated_or_plain.original), Checkpoint(gated_or_plain.converted)
    for name in original.names():
        if ".mlp." not in name:
            assert torch.equal(released.tensor(name), original.tensor(name)), name
        elif name not in protected_weights(gated_or_plain) and not name.endswith("fc2.bias"):
            before, after = original.tensor(name), released.tensor(RENAMED.sub(lambda found: ROLES[found[0]], name))
            assert sorted(before.reshape(48, -1).tolist()) == sorted(after.reshape(48, -1).tolist()), name


def test_input_layers_move_together(llama: Sample) -> None:
    original, released = Checkpoint(llama.original), Checkpoint(llama.converted)
    for layer in (0, 1):
        names = [f"model.layers.{layer}.mlp.{role}.weight" for role in ("gate_proj", "up_proj")]
        moved = [name.replace("_proj", "") for name in names]
        before = [torch.cat(rows).tolist() for rows in zip(*map(original.tensor, names), strict=True)]
        after = [torch.cat(rows).tolist() for rows in zip(*map(released.tensor, moved), strict=True)]
        assert before != after
        assert sorted(before) == sorted(after)


# What it says


def test_a_converted_model_loads_and_gives_the_logits_of_the_original(gated_or_plain: Sample) -> None:
    found = AutoModelForCausalLM.from_pretrained(gated_or_plain.converted, trust_remote_code=True)
    exact = load_original(gated_or_plain.original, "float32", CPU)
    torch.testing.assert_close(logits(found), logits(exact), rtol=0, atol=3e-4)


def test_a_model_converted_in_memory_says_what_the_written_one_says(gated_or_plain: Sample) -> None:
    sample = gated_or_plain
    original = load_original(sample.original, "float32", CPU)
    candidate = convert_in_memory(original, Original(sample.original), sample.expansions, sample.plan)
    written = load_bundle(sample.converted, CPU)
    torch.testing.assert_close(logits(candidate), logits(written), rtol=0, atol=1e-6)
    assert dict(candidate.named_parameters()).keys() == dict(written.named_parameters()).keys()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_releases_are_as_near_to_the_original_as_the_original_in_half_precision(
    llama: Sample, tmp_path: Path, dtype: str
) -> None:
    half = llama.again(tmp_path / f"llama-{dtype}", dtype=dtype, tolerance=1e-3)
    exact = logits(load_original(llama.original, "float32", CPU)).float()
    floor = logits(load_original(llama.original, dtype, CPU)).float() - exact
    bundle = load_bundle(half.converted, CPU)
    assert bundle.dtype == getattr(torch, dtype)
    assert float((logits(bundle).float() - exact).norm()) < 3 * float(floor.norm())


def test_without_its_code_a_converted_model_does_not_load(llama: Sample) -> None:
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoConfig.from_pretrained(llama.converted, trust_remote_code=False)
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoModelForCausalLM.from_pretrained(llama.converted, trust_remote_code=False)


def test_the_tokenizer_comes_along(llama: Sample) -> None:
    text = "A loaf goes brown outside."
    original, released = (AutoTokenizer.from_pretrained(folder) for folder in (llama.original, llama.converted))
    assert released(text)["input_ids"] == original(text)["input_ids"]
    assert released.chat_template == original.chat_template


# The folder


def test_two_conversions_give_the_same_bytes(gated_or_plain: Sample, tmp_path: Path) -> None:
    again = gated_or_plain.again(tmp_path / "elsewhere" / "again")
    assert sha256_of_tree(again.converted) == sha256_of_tree(gated_or_plain.converted)
    assert again.record == gated_or_plain.record


def test_no_file_names_the_place_where_it_was_made(llama: Sample) -> None:
    for path in llama.converted.rglob("*"):
        assert str(llama.original.parent).encode() not in path.read_bytes(), path.name


def test_small_shards_are_several_with_a_valid_index(llama: Sample, tmp_path: Path) -> None:
    limit = 50_000
    small = llama.again(tmp_path / "llama-shards", shard_bytes=limit)
    index = json.loads((small.converted / INDEX).read_text())
    files = sorted(path.name for path in small.converted.glob("*.safetensors"))
    assert len(files) > 3
    assert files == [f"model-{number + 1:05}-of-{len(files):05}.safetensors" for number in range(len(files))]
    held = {file: load_file(small.converted / file) for file in files}
    assert index["weight_map"] == {name: file for file, tensors in held.items() for name in tensors}
    sizes = [[tensor.numel() * 4 for tensor in tensors.values()] for tensors in held.values()]
    assert all(sum(shard) <= limit or len(shard) == 1 for shard in sizes)
    assert index["metadata"]["total_size"] == sum(map(sum, sizes)) == small.record.bytes
    assert torch.equal(logits(load_bundle(small.converted, CPU)), logits(load_bundle(llama.converted, CPU)))


def test_progress_is_told_of_every_part(llama: Sample, tmp_path: Path) -> None:
    told = []
    convert(
        llama.subject,
        llama.plan,
        tmp_path / "told",
        lambda *step: told.append(step),
    )
    assert told == [(1, 1)]


def test_each_layer_is_fitted_once_and_all_but_the_first_ahead_of_its_turn(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, fitted = threading.current_thread(), []
    fit_layer = ladder.fit_layer

    def noted(activation: Activation, captured: LayerRange, conversion: Conversion) -> FittedLayer:
        fitted.append((float(captured.output_norm), threading.current_thread() is here, torch.get_num_threads()))
        return fit_layer(activation, captured, conversion)

    monkeypatch.setattr(ladder, "fit_layer", noted)
    with threads_restored():
        use_threads(3)
        convert(llama.subject, llama.plan, tmp_path / "made", silent)
        assert torch.get_num_threads() == 3
    norms = [layer.output_norm for layer in read_ranges(llama.ranges).values()]
    assert fitted == [(norms[0], True, 1), (norms[1], False, 1)]
    assert sha256_of_tree(tmp_path / "made") == sha256_of_tree(llama.converted)


def test_a_fit_that_fails_ahead_of_its_turn_ends_the_conversion(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, fit_layer = threading.current_thread(), ladder.fit_layer

    def failing(activation: Activation, captured: LayerRange, conversion: Conversion) -> FittedLayer:
        if threading.current_thread() is not here:
            raise MemoryError("none left")
        return fit_layer(activation, captured, conversion)

    monkeypatch.setattr(ladder, "fit_layer", failing)
    with pytest.raises(MemoryError, match="none left"):
        convert(llama.subject, llama.plan, tmp_path / "made", silent)
    assert not (tmp_path / "made").exists()


def test_a_conversion_that_is_interrupted_leaves_nothing(llama: Sample, tmp_path: Path) -> None:
    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(llama.subject, llama.plan, tmp_path / "never", interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_refused_before_anything_is_written(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = llama.record.bytes
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=needed // 2))
    with pytest.raises(WorkFailed, match=r"about \d\.\d MB are needed, \d\.\d MB are free"):
        convert(llama.subject, llama.plan, tmp_path / "never", silent)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=2 * needed))
    convert(llama.subject, llama.plan, tmp_path / "there", silent)


@pytest.mark.parametrize("model_type", ["llama", "phi", "phi3", "gpt2", "mixtral"])
def test_parts_are_about_as_large_as_what_is_written_of_them(tmp_path: Path, model_type: str) -> None:
    made = sample(tmp_path, model_type)
    values = sum(part.values for part in parts_of(Original(made.original), made.plan))
    assert made.record.bytes / 4 == pytest.approx(values, rel=0.02)


# Other plans


def test_the_paper_s_basis_converts_where_its_tolerance_can_be_kept(gated_or_plain: Sample, tmp_path: Path) -> None:
    conversion = Conversion(basis="taylor", tolerance=1e-2, range_margin=0.1)
    name = model_config(gated_or_plain.original).model_type
    powers = converted(gated_or_plain.original, gated_or_plain.ranges, conversion, tmp_path / f"{name}-powers")
    exact = logits(load_original(powers.original, "float32", CPU))
    found = logits(load_bundle(powers.converted, CPU))
    assert float((found - exact).norm() / exact.norm()) < 1e-2


def test_the_paper_s_basis_is_refused_where_it_cannot_keep_the_tolerance(llama: Sample) -> None:
    conversion = Conversion(basis="taylor", tolerance=1e-5, dtype="bfloat16")
    with pytest.raises(BadInput, match=r"basis `taylor` cannot keep tolerance 1e-05 .* for \d+ of 96 neurons"):
        Subject(Original(llama.original), llama.ranges, conversion).expansions().ladder()


def test_a_fixed_order_gives_every_neuron_that_order(llama: Sample, tmp_path: Path) -> None:
    fixed = llama.again(tmp_path / "llama-fixed", order=12)
    assert fixed.plan.columns == 96 * 13
    assert [(layer.mean_order, layer.max_order) for layer in fixed.record.layers] == [(12.0, 12), (12.0, 12)]
