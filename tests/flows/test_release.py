"""The release flow: what it leaves behind, what it reuses, and what it refuses to publish."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator
from prefect import flow
from torch import Tensor

from flows.commands.answers import answer_schema
from flows.run.release_run import open_release
from flows.tasks import conversion, preparation, proof
from taylor_ops.config_file.read import read
from taylor_ops.conversion import convert, terms
from taylor_ops.errors import BadInput, GateRejected, ReleaseError, WorkFailed
from taylor_ops.model.row_blocks import ByRows
from taylor_ops.series import layout
from taylor_ops.signing.keys import name_of_key, read_public_key
from taylor_ops.source.record import ResolvedSource
from taylor_ops.storage.files import files_below, read_json, sha256_of_tree
from taylor_ops.verification.verify import verify
from tests.support import release_example as example
from tests.support.keyed import key_of
from tests.support.keys import write_key
from tests.support.released import released

pytestmark = pytest.mark.usefixtures("prefect_server", "simulated_clock", "consumer_in_this_process")

Tensors = Iterable[tuple[str, Tensor | ByRows]]
DOWN = "model.layers.1.mlp.terms.weight"


def run(config: Path, artifacts: Path, **overrides: str) -> Any:
    return released(config, artifacts, {key.replace("__", "."): value for key, value in overrides.items()})


def release_again(tiny_release: Path, config: Path, artifacts: Path, **overrides: str) -> Any:
    """Run a release in a copy of the artifacts folder that the tiny release left."""
    shutil.copytree(tiny_release, artifacts)
    return run(config, artifacts, **overrides)


@flow
def resolved(config: Path, artifacts: Path, overrides: dict[str, str]) -> ResolvedSource:
    return preparation.resolve.fn(open_release(str(config), overrides, str(artifacts)))


def published(artifacts: Path) -> list[Path]:
    return sorted(path for path in (artifacts / "hub").rglob("*") if path.is_file() and not path.name.endswith(".lock"))


def test_a_release_leaves_bundle_record_report_and_publication(tiny_release: Path) -> None:
    place = tiny_release / "tiny" / "1.0.0"
    record = read_json(place / "release.json")
    assert record["coverage"]["neurons_protected"] == record["coverage"]["neurons_total"] == 96
    assert record["exactness"]["project"]["bundle"]["prompts_equal"] == 8
    assert record["slowdown"]["target"] == 6.0
    assert abs(record["slowdown"]["achieved"] / 6.0 - 1) <= 0.1
    assert len(record["slowdown"]["ci95"]) == 2
    assert {name: attack["recovered_1pct"] > 0.99 for name, attack in record["audit"].items()} == {
        "rank_one": True,
        "ratios": True,
        "collapse": True,
    }
    assert min(record["leaks"].values()) > 0
    rebuilt = record["audit"]["collapse"]["rebuilt"]
    assert (rebuilt["prompts"], rebuilt["prompts_equal"]) == (4, 4)
    # The clock of these tests goes by bytes, and the rebuilt model has those of the original.
    assert record["intrinsic"]["rebuilt"]["slowdown"] == rebuilt["residual"]["slowdown"] == 1.0
    assert record["intrinsic"]["compiled"] is None
    assert "gets the protected weights back" in (place / "bundle" / "README.md").read_text(encoding="utf-8")
    for layer, error in zip(record["coverage"]["layers"], record["layer_errors"], strict=True):
        assert 0 < error["inside"] <= layer["truncation"] + layer["rounding"] <= 1e-4
    assert record["exactness"]["project"]["ranges"]["activations"] > 0
    assert record["bundle"]["bytes"] == sum(path.stat().st_size for path in files_below(place / "bundle"))
    assert {"name", "version", "source", "published", "stages"} <= record.keys()
    assert all({"seconds", "peak_rss_bytes", "cached"} == cost.keys() for cost in record["stages"].values())
    Draft202012Validator(answer_schema("run")).validate(record)
    assert "<svg" in (place / "report.html").read_text(encoding="utf-8")
    assert sha256_of_tree(place / "bundle") == sha256_of_tree(tiny_release / "hub" / "org" / "tiny" / "1.0.0")


def test_an_unchanged_release_reuses_every_stage_and_publishes_nothing_new(
    tiny_release: Path, tiny_config: Path, tmp_path: Path
) -> None:
    # The key of resolve knows the folder, and this one is a copy.
    release_again(tiny_release, tiny_config, tmp_path / "a")
    with pytest.MonkeyPatch.context() as patched:
        # The files of an unchanged source were used when it was resolved.
        patched.setattr("taylor_ops.source.usable.GenerationConfig", None)
        again = run(tiny_config, tmp_path / "a")
    assert all(cost.cached for cost in again.stages.values())
    assert again.published.unchanged
    assert sha256_of_tree(tmp_path / "a" / "hub") == sha256_of_tree(tiny_release / "hub")


def test_two_releases_in_two_folders_have_the_same_bytes(tiny_release: Path, tiny_config: Path, tmp_path: Path) -> None:
    run(tiny_config, tmp_path / "b")
    assert sha256_of_tree(tiny_release / "hub") == sha256_of_tree(tmp_path / "b" / "hub")


def test_another_target_does_not_capture_again_but_calibrates_again(
    tiny_release: Path, tiny_config: Path, tmp_path: Path
) -> None:
    again = release_again(tiny_release, tiny_config, tmp_path / "a", latency__target_slowdown="7", version="1.0.1")
    assert again.stages["capture"].cached
    assert not again.stages["calibrate"].cached
    assert not again.stages["convert"].cached


def test_a_missed_target_of_another_device_is_judged_by_what_was_stored_and_calibrates_nothing_again(
    tiny_config: Path, tmp_path: Path
) -> None:
    missed = "[{device: cpu, target_slowdown: 20}]"
    with pytest.raises(GateRejected, match=r"the slowdown is [56]\.\d\d .*, not surely 20 within 10%"):
        run(tiny_config, tmp_path / "a", latency__devices=missed)
    memories = tmp_path / "a" / "tiny" / "stages"
    before = sha256_of_tree(memories)
    with pytest.raises(GateRejected, match="not surely 20"):
        run(tiny_config, tmp_path / "a", latency__devices=missed)
    assert sha256_of_tree(memories) == before
    with pytest.raises(GateRejected, match="not surely 30"):
        run(tiny_config, tmp_path / "a", latency__devices="[{device: cpu, target_slowdown: 30}]")
    after = sha256_of_tree(memories)
    assert {name for name in after if after[name] != before[name]} == {"transfer.json"}
    assert published(tmp_path / "a") == []


def test_another_licence_changes_the_card_and_converts_nothing(
    tiny_release: Path, tiny_config: Path, tmp_path: Path
) -> None:
    again = release_again(tiny_release, tiny_config, tmp_path / "a", card__license="apache-2.0", version="1.0.1")
    assert again.stages["convert"].cached
    assert not again.stages["assemble"].cached


def test_a_published_version_with_other_bytes_is_refused(tiny_release: Path, tiny_config: Path, tmp_path: Path) -> None:
    with pytest.raises(GateRejected, match=r"org/tiny 1\.0\.0 is published already, with other bytes"):
        release_again(tiny_release, tiny_config, tmp_path / "a", card__license="apache-2.0")
    assert sha256_of_tree(tmp_path / "a" / "hub") == sha256_of_tree(tiny_release / "hub")


def flip_one_sign(tensors: Tensors) -> Iterator[tuple[str, Tensor | ByRows]]:
    for name, tensor in tensors:
        if name == DOWN:
            assert isinstance(tensor, ByRows)
            flipped = tensor.whole()
            flipped[3, 5] *= -1
            yield name, flipped
        else:
            yield name, tensor


def zero_one_tensor(tensors: Tensors) -> Iterator[tuple[str, Tensor | ByRows]]:
    for name, tensor in tensors:
        yield name, torch.zeros(tensor.shape) if name == "model.layers.0.mlp.up.weight" else tensor


def leave_the_output_weights(tensors: Tensors) -> Iterator[tuple[str, Tensor | ByRows]]:
    for name, tensor in tensors:
        yield name, tensor
        if name == DOWN:
            yield "model.layers.1.mlp.original.weight", torch.randn(32, 48)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_one_sign, f"tensor {DOWN} is not what source and plan give"),
        (zero_one_tensor, "tensor model.layers.0.mlp.up.weight is not what source and plan give"),
        (leave_the_output_weights, "model.layers.1.mlp.original.weight does not belong to a protected model"),
    ],
)
def test_a_damaged_conversion_is_rejected_and_nothing_is_published(
    tiny_config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Tensors], Iterator[tuple[str, Tensor | ByRows]]],
    message: str,
) -> None:
    whole = convert.write_shards
    monkeypatch.setattr(convert, "write_shards", lambda folder, tensors, size: whole(folder, damage(tensors), size))
    with pytest.raises(GateRejected, match=message):
        run(tiny_config, tmp_path / "a")
    assert published(tmp_path / "a") == []


def test_terms_that_say_other_tokens_are_rejected_though_stored_as_planned(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = terms.terms

    def wrong(weight: Tensor, stacked: layout.Layout, *given: Any) -> ByRows:
        theta = right(weight, stacked, *given).whole()
        theta[:, :48] *= -1
        return ByRows(tuple(theta.shape), theta.dtype, lambda: iter([theta]))

    # The calibration measures bytes alone, and inspection repeats the mistake: only the tokens can tell.
    monkeypatch.setattr(terms, "terms", wrong)
    with pytest.raises(GateRejected, match="prompts equal"):
        run(tiny_config, tmp_path / "a")
    assert published(tmp_path / "a") == []


def test_an_attack_above_its_threshold_ends_a_release_that_is_to_be_blocked(tiny_config: Path, tmp_path: Path) -> None:
    overrides = {"audit__policy": "block", "audit__attacks": "[collapse]", "audit__rebuild": "[]"}
    with tiny_config.open("a", encoding="utf-8") as stream:
        stream.write("overridable: [audit.attacks]\n")
    with pytest.raises(GateRejected, match=r"attack `collapse` recovers 100 % .* more than the 1 % of `audit.thresho"):
        run(tiny_config, tmp_path / "a", **overrides)
    assert published(tmp_path / "a") == []
    assert not (tmp_path / "a" / "tiny" / "1.0.0" / "bundle").exists()


def test_a_run_takes_no_approval_away_without_leave_of_the_config_and_with_it_the_bundle_says_so(
    tiny_release: Path, tiny_config: Path, tmp_path: Path
) -> None:
    asks = tiny_config.read_text("utf-8").replace("publish:\n", "publish:\n  approval: true\n")
    tiny_config.write_text(asks, "utf-8")
    with pytest.raises(BadInput, match=r"publish\.approval: is false, the file has true, and an override may only"):
        run(tiny_config, tmp_path / "a", publish__approval="false")
    assert not (tmp_path / "a").exists()
    tiny_config.write_text(asks + "overridable: [publish.approval]\n", "utf-8")
    release_again(tiny_release, tiny_config, tmp_path / "a", publish__approval="false", version="1.0.1")
    bundle = tmp_path / "a" / "hub" / "org" / "tiny" / "1.0.1"
    assert read_json(bundle / "taylor_release.json")["overridden"] == {
        "publish.approval": {"file": True, "run": False},
        "version": {"run": "1.0.1"},
    }
    assert "| `publish.approval` | true | false |" in (bundle / "README.md").read_text("utf-8")


def test_a_signed_release_is_verified_with_its_key_and_one_that_gives_a_path_away_is_not_published(
    tiny_config: Path, tmp_path: Path
) -> None:
    key = write_key(tmp_path / "key.pem")
    signing = f"{{key_file: {key}}}"
    record = run(tiny_config, tmp_path / "a", publish__signing=signing)
    public = read_public_key(key.with_suffix(".pub"))
    assert record.verified.signed_by == name_of_key(public)
    bundle = tmp_path / "a" / "hub" / "org" / "tiny" / "1.0.0"
    assert verify(bundle, public).tokens > 0
    assert not any(b"key.pem" in path.read_bytes() for path in files_below(bundle))
    with pytest.raises(GateRejected, match=r"README\.md gives away the path /home/somebody"):
        run(tiny_config, tmp_path / "a", version="1.0.1", card__tags="[/home/somebody/models]")
    assert {path.relative_to(tmp_path / "a" / "hub").parts[2] for path in published(tmp_path / "a")} == {"1.0.0"}
    with pytest.raises(BadInput, match=r"none\.pem holds no usable key"):
        run(tiny_config, tmp_path / "a", version="1.0.1", publish__signing="{key_file: /none.pem}")


@pytest.mark.parametrize("target", ["1.01", "50"])
def test_an_unreachable_slowdown_is_bad_input_with_the_reachable_interval(
    tiny_config: Path, tmp_path: Path, target: str
) -> None:
    with pytest.raises(BadInput, match=r"cannot be reached: (about )?\d+\.\d\d to \d+\.\d\d can"):
        run(tiny_config, tmp_path / "a", latency__target_slowdown=target)
    assert published(tmp_path / "a") == []


def test_a_run_that_died_goes_on_where_it_stopped(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_arguments: Any) -> Any:
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(conversion.conversion, "convert", dies)
        with pytest.raises(RuntimeError, match="killed"):
            run(tiny_config, tmp_path / "a")
    again = run(tiny_config, tmp_path / "a")
    finished = {stage for stage, cost in again.stages.items() if cost.cached}
    assert finished == {"resolve", "capture", "calibrate", "transfer"}


def test_a_second_run_of_the_same_release_at_the_same_time_is_refused(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[ReleaseError] = []

    def meanwhile(*_arguments: Any) -> Any:
        try:
            run(tiny_config, tmp_path / "a")
        except WorkFailed as error:
            seen.append(error)
        raise RuntimeError("enough")

    monkeypatch.setattr(preparation.sources, "resolve", meanwhile)
    with pytest.raises(RuntimeError, match="enough"):
        run(tiny_config, tmp_path / "a")
    assert "another run of tiny is at work" in seen[0].cause


def test_a_mistake_in_a_held_out_text_ends_the_run_before_any_long_work(tiny_config: Path, tmp_path: Path) -> None:
    (tmp_path / "asked.jsonl").write_text('{"query": "Why?"}\n', encoding="utf-8")
    prompts = f"[{{name: asked, file: {tmp_path / 'asked.jsonl'}, column: question}}]"
    with pytest.raises(BadInput, match=r"asked\.jsonl:1: no text in `question`; it has query"):
        run(tiny_config, tmp_path / "a", exactness__prompts=prompts)
    assert not (tmp_path / "a" / "tiny" / "stages" / "capture").exists()


def test_a_broken_config_is_refused_with_every_mistake(tiny_config: Path, tmp_path: Path) -> None:
    tiny_config.write_text(tiny_config.read_text(encoding="utf-8") + "sede: 1\n", encoding="utf-8")
    with pytest.raises(BadInput, match="sede"):
        run(tiny_config, tmp_path / "a")


@pytest.mark.parametrize("read_as", ["limit: 3", "limit: 2, seed: 5", 'limit: 2, template: "Say: {text}"'])
def test_the_audit_is_another_where_other_records_of_the_same_file_are_read(
    tiny_config: Path, tmp_path: Path, read_as: str
) -> None:
    def key(how: str, file: str = "texts.jsonl") -> str:
        (tmp_path / file).write_text('{"text": "one"}\n{"text": "two"}\n{"text": "three"}\n')
        prompts = f"[{{name: mine, file: {tmp_path / file}, {how}}}]"
        loaded = read(tiny_config, {"exactness.prompts": prompts})
        return key_of(proof.audit, loaded, example.source(), example.converted(), example.exactness())

    assert key("limit: 2") == key("limit: 2", "elsewhere.jsonl")
    assert key("limit: 2") != key(read_as)


def test_the_audit_is_another_where_the_original_said_something_else_and_not_where_it_was_measured_again(
    tiny_config: Path,
) -> None:
    found = example.exactness()
    spoken = found.continuations[0]
    other = spoken.model_copy(update={"new_tokens": (*spoken.new_tokens[:-1], spoken.new_tokens[-1] + 1)})

    def key(**changed: Any) -> str:
        exactness = found.model_copy(update=changed)
        return key_of(proof.audit, read(tiny_config, {}), example.source(), example.converted(), exactness)

    assert key() == key(tie_margin=2 * found.tie_margin)
    assert key() != key(continuations=(other, *found.continuations[1:]))


def test_a_source_of_the_hub_whose_cache_is_gone_is_fetched_again(
    tiny_config: Path, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, fetched = tmp_path / "cache", []

    def fetch(repo_id: str, **_given: Any) -> str:
        fetched.append(repo_id)
        shutil.copytree(tiny_llama, cache)
        return str(cache)

    monkeypatch.setattr("taylor_ops.source.resolve.snapshot_download", fetch)
    hub = {"source": f"{{kind: hub, repo_id: owner/tiny, revision: '{'0' * 40}'}}"}
    first = resolved(tiny_config, tmp_path / "a", hub)
    assert resolved(tiny_config, tmp_path / "a", hub) == first
    assert fetched == ["owner/tiny"]
    # As in a container, whose cache ends with it.
    shutil.rmtree(cache)
    assert resolved(tiny_config, tmp_path / "a", hub) == first
    assert fetched == ["owner/tiny", "owner/tiny"]
    assert (cache / "tokenizer_config.json").is_file()
