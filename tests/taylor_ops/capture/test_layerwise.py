"""Capture layer by layer: to the bit what the whole model gives, one layer in memory, resumed after a kill."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from taylor_ops.capture import capture as ranges
from taylor_ops.capture import resumable
from taylor_ops.capture.capture import capture
from taylor_ops.capture.layerwise import Layerwise, State
from taylor_ops.capture.record import CapturedRanges
from taylor_ops.errors import BadInput, WorkFailed
from taylor_ops.model.original import Original
from taylor_ops.storage import files
from taylor_ops.storage.files import sha256_of_tree, write_text
from taylor_ops.storage.stage_cache import kept_beside, kept_for
from tests.support.forked import exit_code
from tests.support.killed_capture import killed_capture
from tests.support.tiny_models import save_tiny_model
from tests.support.whole_model import ranges_of_whole_model
from tests.taylor_ops.conftest import CALIBRATION, CPU, Sample, captured, silent

SHARED = {
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}
IDS = torch.arange(32, 48).reshape(2, 8)


def require_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("gemma4_text", SHARED),
        ("olmo3", {"attn_implementation": "eager"}),
        ("llama", {"num_hidden_layers": 1}),
        ("falcon", {"num_hidden_layers": 1}),
    ],
)
@pytest.mark.parametrize("room", [0, 1 << 30])
def test_ranges_are_those_of_the_whole_model_however_little_stays_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_type: str, changes: dict[str, Any], room: int
) -> None:
    monkeypatch.setattr(resumable, "_IN_MEMORY", room)
    original = save_tiny_model(tmp_path / "original", model_type, **changes)
    found = load_file(captured(original, tmp_path / "ranges"))
    require_equal(found, ranges_of_whole_model(original, CALIBRATION))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["original", "ranges"]


@pytest.mark.parametrize("model_type", ["llama", "gemma4_text", "gpt2", "qwen3_moe", "qwen3_5_text"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_ranges_in_16_bits_are_those_of_the_whole_model(tmp_path: Path, model_type: str, dtype: str) -> None:
    original = save_tiny_model(tmp_path / "original", model_type)
    file = capture(original, dtype, CALIBRATION, CPU, tmp_path / "ranges", silent).file
    require_equal(load_file(tmp_path / "ranges" / file), ranges_of_whole_model(original, CALIBRATION, dtype))


def test_only_the_weights_of_the_layer_at_work_are_there(tmp_path: Path) -> None:
    original = Original(save_tiny_model(tmp_path / "original", "mixtral"))
    run = Layerwise(original, torch.float32, CPU)

    def loaded() -> set[str]:
        return {name for name, parameter in run.model.named_parameters() if not parameter.is_meta}

    assert loaded() == set()
    entering = run.enter([IDS], tmp_path)
    next(entering)
    assert loaded() == {"model.embed_tokens.weight", "model.norm.weight"}
    assert list(entering) == []
    for number in range(run.layers):
        with run.layer(number) as mlps:
            of_layer = f"model.layers.{number}."
            assert loaded() == {name for name in original.shapes if name.startswith(of_layer)}
            assert mlps == [mlp for mlp in original.mlps if mlp.path.startswith(of_layer)]
            assert len(mlps) == 4
    assert loaded() == set()


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [("llama", {"max_position_embeddings": 64}), ("gpt2", {"n_positions": 64, "max_position_embeddings": 64})],
)
def test_sequences_of_more_tokens_than_the_model_has_positions_are_refused_before_any_work(
    tmp_path: Path, model_type: str, changes: dict[str, Any]
) -> None:
    original = save_tiny_model(tmp_path / "original", model_type, **changes)
    folder = tmp_path / "work" / "ranges"

    def capture_of(length: int) -> CapturedRanges:
        calibration = CALIBRATION.model_copy(update={"sequence_tokens": length})
        return capture(original, "float32", calibration, CPU, folder, silent)

    with pytest.raises(BadInput, match=r"sequence_tokens`: 65 tokens at once, but the model has 64 positions"):
        capture_of(65)
    assert not folder.parent.exists()
    assert capture_of(64).tokens == CALIBRATION.tokens


def test_a_disk_without_room_for_what_batches_bring_is_refused_before_any_layer(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 2 * CALIBRATION.tokens * int(Original(llama.original).config.hidden_size) * 4
    monkeypatch.setattr(ranges, "_captured", lambda *_given: pytest.fail("a layer was run"))
    monkeypatch.setattr(files, "_free", lambda _place: needed - 1)
    with pytest.raises(WorkFailed, match="are needed"):
        capture(llama.original, "float32", CALIBRATION, CPU, tmp_path / "ranges", silent)

    # What a killed run has written of the layer at work is there already.
    kept = tmp_path / "kept"
    (kept / "states-0").mkdir(parents=True)
    (kept / "states-0" / "0.safetensors").write_bytes(bytes(needed // 2))
    monkeypatch.setattr(files, "_free", lambda _place: needed // 2)
    with pytest.raises(pytest.fail.Exception, match="a layer was run"):
        capture(llama.original, "float32", CALIBRATION, CPU, tmp_path / "ranges", silent, kept)


# Layers that cannot be run one at a time


def changed(
    arguments: tuple[Any, ...], named: dict[str, Any], **changes: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return arguments, named | changes


FAILURES = [
    torch.AcceleratorError("CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("an operation failed: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
]
NO_ROOM = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nMore about it"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", [*FAILURES, *NO_ROOM])
def test_a_device_that_fails_is_not_taken_for_an_architecture_that_cannot_be_run(
    tmp_path: Path, error: Exception
) -> None:
    run = Layerwise(Original(save_tiny_model(tmp_path / "original")), torch.float32, CPU)

    def fails(*_given: Any) -> None:
        raise error

    run.model.model.embed_tokens.register_forward_pre_hook(fails)
    with pytest.raises(type(error)) as caught, torch.inference_mode():
        list(run.enter([IDS], tmp_path))
    assert caught.value is error


def failed_capture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> WorkFailed:
    def fails(*_given: Any) -> None:
        raise error

    monkeypatch.setattr(Layerwise, "run", fails)
    with pytest.raises(WorkFailed) as caught:
        captured(save_tiny_model(tmp_path / "original"), tmp_path / "ranges")
    assert len(str(caught.value).splitlines()) == 2
    assert str(error).partition("\n")[0] in caught.value.cause
    return caught.value


@pytest.mark.parametrize("error", FAILURES)
def test_a_device_that_fails_in_a_capture_is_named_with_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    failed = failed_capture(tmp_path, monkeypatch, error)
    assert failed.cause.startswith("device `cpu` failed in capture: ")


@pytest.mark.parametrize("error", NO_ROOM)
def test_a_capture_without_room_on_its_device_says_which_settings_take_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    failed = failed_capture(tmp_path, monkeypatch, error)
    assert failed.cause.startswith("capture ran out of the memory of device `cpu`: ")
    assert failed.remedy.startswith("lower `calibration.batch_size` or `calibration.sequence_tokens`")


@pytest.mark.parametrize(
    ("between", "cause"),
    [
        (lambda _layer, given, named: ((given[0] * 1.0,), named), "does not simply pass the output"),
        (lambda _layer, given, named: ((given[0].add_(1.0),), named), "does not simply pass the output"),
        (
            lambda _layer, given, named: changed(given, named, position_ids=given[0].argmax(-1)),
            "does not simply pass the output",
        ),
        (
            lambda _layer, given, named: changed(given, named, position_ids=int(given[0].argmax())),
            "does not simply pass the output",
        ),
        (lambda _layer, given, named: changed(given, named, memory=object()), "takes an object `object`"),
    ],
)
def test_a_model_that_computes_between_its_layers_is_refused(tmp_path: Path, between: Any, cause: str) -> None:
    run = Layerwise(Original(save_tiny_model(tmp_path / "original")), torch.float32, CPU)
    run.model.model.layers[1].register_forward_pre_hook(between, with_kwargs=True)
    with pytest.raises(BadInput, match=cause), torch.inference_mode():
        list(run.enter([IDS], tmp_path))


@pytest.mark.parametrize("order", [(1, 0), (0,), (0, 1, 0)])
def test_a_model_that_does_not_call_each_layer_once_in_order_is_refused(tmp_path: Path, order: tuple[int, ...]) -> None:
    run = Layerwise(Original(save_tiny_model(tmp_path / "original")), torch.float32, CPU)
    layers = run.model.model.layers
    run.model.model.layers = torch.nn.ModuleList([layers[number] for number in order])
    run.model.config.num_hidden_layers = len(order)
    with pytest.raises(BadInput, match="cannot be run one at a time"), torch.inference_mode():
        list(run.enter([IDS], tmp_path))


# Killed


def killed(original: Path, folder: Path, kept: Path, how: Literal["in a layer", "in a file"]) -> None:
    assert exit_code(killed_capture, original, CALIBRATION, folder, kept, how) == -signal.SIGKILL
    assert not folder.exists()


def capture_and_count(
    monkeypatch: pytest.MonkeyPatch, original: Path, folder: Path, kept: Path | None
) -> tuple[CapturedRanges, list[int]]:
    """The record of a capture and the layers that were run for it."""
    run: list[int] = []

    class Counted(Layerwise):
        def run(self, number: int, batch: int, state: State) -> State:
            run.append(number)
            return super().run(number, batch, state)

    with monkeypatch.context() as patch:
        patch.setattr(ranges, "Layerwise", Counted)
        record = capture(original, "float32", CALIBRATION, CPU, folder, silent, kept)
    return record, sorted(set(run))


@pytest.mark.parametrize("how", ["in a layer", "in a file"])
@pytest.mark.parametrize(("model_type", "changes"), [("llama", {"num_hidden_layers": 4}), ("gemma4_text", SHARED)])
def test_a_killed_capture_goes_on_at_its_layer_and_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_type: str, changes: dict[str, Any], how: Any
) -> None:
    original = save_tiny_model(tmp_path / "original", model_type, **changes)
    folder, kept = tmp_path / "ranges", tmp_path / "kept"
    killed(original, folder, kept, how)
    record, layers = capture_and_count(monkeypatch, original, folder, kept)
    undisturbed, all_layers = capture_and_count(monkeypatch, original, tmp_path / "undisturbed", None)
    assert (layers, all_layers) == ([1, 2, 3], [0, 1, 2, 3])
    assert record == undisturbed
    assert sha256_of_tree(folder) == sha256_of_tree(tmp_path / "undisturbed")


def test_a_capture_of_another_input_does_not_go_on_with_what_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    originals = [save_tiny_model(tmp_path / str(seed), num_hidden_layers=4, seed=seed) for seed in (0, 1)]
    folder = tmp_path / "ranges"
    kept = kept_beside(folder)
    write_text(kept / "key", "the first")
    killed(originals[0], folder, kept, "in a layer")
    with kept_for("the second", folder):
        record, layers = capture_and_count(monkeypatch, originals[1], folder, kept)
    assert layers == [0, 1, 2, 3]
    assert record == capture_and_count(monkeypatch, originals[1], tmp_path / "undisturbed", None)[0]
    assert not kept.exists()
