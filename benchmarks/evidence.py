"""Measure the evidence on a release of SmolLM2-135M: whether traces find the right recipients, and what a mark costs.

    python -m benchmarks.evidence --data FOLDER

The source of release_configs/smollm2.yaml is captured over 2048 tokens and converted by the cheapest plan that keeps
its tolerance. Copies of two recipients are marked at the default strength. The rank-one attack rebuilds a model from
one copy. Each descendant of this model is traced among 1 000 recipients. Descendants that are trained see the project's
own texts and, if FOLDER holds it, wikitext2_valid.txt. Marking and plain copying are timed in turn. False accusations
are counted over recipients who received nothing, under fresh keys, in marked and unmarked material.

It takes about fifteen minutes on two cores, and 12 GB of disk.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks import descendants as become
from benchmarks.command import typed
from benchmarks.measurement import write_result
from taylor_ops.attacks import rank_one
from taylor_ops.attacks.protected_layer import ProtectedLayer
from taylor_ops.attacks.target import Target
from taylor_ops.audit.rebuilt import held_out
from taylor_ops.capture.capture import capture
from taylor_ops.config.audit import Audit
from taylor_ops.config.evidence import STRENGTH
from taylor_ops.config.exactness import Exactness
from taylor_ops.config.release import ReleaseConfig
from taylor_ops.config.texts import TextSource
from taylor_ops.config_file.read import read
from taylor_ops.conversion.convert import convert
from taylor_ops.conversion.terms import Subject
from taylor_ops.evidence.key import Key
from taylor_ops.evidence.marking import Copy, MarkedModel
from taylor_ops.evidence.recipients import Recipient
from taylor_ops.evidence.record import Traced
from taylor_ops.evidence.statistic import log_p
from taylor_ops.evidence.trace import AddedUp, probability, trace
from taylor_ops.exactness.generation import Continuation, batches, continue_greedily, padding_token
from taylor_ops.exactness.tally import Tally
from taylor_ops.machine.devices import device_description
from taylor_ops.machine.threads import use_threads
from taylor_ops.model.loading import load_bundle, load_original, load_tokenizer
from taylor_ops.model.original import Original
from taylor_ops.source.resolve import resolve
from taylor_ops.storage.files import canonical_json, read_json, sha256_of_tree, write_text
from taylor_ops.texts.prompts import sequences

CONFIG = Path(__file__).parents[1] / "release_configs" / "smollm2.yaml"
RESULT = Path(__file__).parent / "results" / "evidence.json"
CPU = torch.device("cpu")
TOKENS = 2048
PROMPTS, NEW_TOKENS = 24, 64
FILE = "model.safetensors"
PARTS = ("copying", "exactness", "traced", "lora", "fine_tuning", "null")
KEY = Key(b"the key of this benchmark and of nothing else")
RECIPIENTS = [Recipient(f"recipient-{number:04}", "1.0.0") for number in range(1000)]
ACME, BETA = RECIPIENTS[417], RECIPIENTS[802]
TRAINING_STEPS, TRAINING_TOKENS = 200, 32
COPIES_TIMED = 3
FRESH_KEYS, TRIALS = 5, 10_000


def main() -> None:
    """Make copies and their descendants, trace them, and write and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with wikitext2_valid.txt")
    parser.add_argument("--strength", type=float, default=STRENGTH)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--scratch", type=Path, help="folder that keeps finished parts, so that another run continues")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this; may be repeated")
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    with ExitStack() as stack:
        scratch = arguments.scratch or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bench = Bench(read(CONFIG).config, scratch, arguments.strength, arguments.data)
        kept = {part: scratch / f"{part}.json" for part in PARTS}
        for part in arguments.part or PARTS:
            if not kept[part].exists():
                write_text(kept[part], canonical_json(getattr(bench, part)()))
        if not all(file.exists() for file in kept.values()):
            return
        result = {
            "command": typed("evidence"),
            "device": device_description(CPU),
            "threads": arguments.threads,
            "strength": arguments.strength,
            "recipients": len(RECIPIENTS),
        } | {part: read_json(file) for part, file in kept.items()}
    if arguments.strength == STRENGTH:
        write_result(RESULT, "evidence", result)
    _show(result)


class Bench:
    """The original, its conversion and two marked copies of it, in `scratch`."""

    def __init__(self, config: ReleaseConfig, scratch: Path, strength: float, data: Path | None) -> None:
        self._scratch, self._strength, self._data = scratch, strength, data
        self._original = scratch / "source" / "original"
        if not self._original.exists():
            self._original = resolve(config.source, scratch / "source", _unwatched).folder
        ranges = scratch / "ranges" / "ranges.safetensors"
        if not ranges.exists():
            calibration = config.calibration.model_copy(update={"tokens": TOKENS})
            capture(self._original, config.conversion.dtype, calibration, CPU, ranges.parent, _unwatched)
        self._converted = scratch / "converted"
        self._copies = {one: scratch / one.name for one in (ACME, BETA)}
        if not self._converted.exists():
            subject = Subject(Original(self._original), ranges, config.conversion)
            convert(subject, subject.expansions().ladder()[0], self._converted, _unwatched)
        for recipient, folder in self._copies.items():
            if not folder.exists():
                self._mark(recipient, folder)

    def _mark(self, recipient: Recipient, folder: Path) -> None:
        folder.mkdir()
        copy = Copy(KEY, recipient.name, recipient.version, self._strength)
        MarkedModel(self._converted, copy).write(folder, _unwatched)

    def copying(self) -> dict[str, Any]:
        """Time plain and marked copies of the converted model in turn. Marking includes the hashes of its files."""
        seconds: dict[str, list[float]] = {"plain": [], "marked": []}
        sha256_of_tree(self._converted)  # both read what is in memory
        for _ in range(COPIES_TIMED):
            for kind in ("plain", "marked"):
                folder = self._scratch / f"{kind}-copy"
                begin = time.perf_counter()
                if kind == "plain":
                    shutil.copytree(self._converted, folder)
                else:
                    self._mark(ACME, folder)
                _written(folder)
                seconds[kind].append(time.perf_counter() - begin)
                shutil.rmtree(folder)
        medians = {kind: statistics.median(some) for kind, some in seconds.items()}
        return {
            "bytes": sum(file.stat().st_size for file in self._converted.iterdir()),
            "seconds_plain": seconds["plain"],
            "seconds_marked": seconds["marked"],
            "speed_of_plain_copy": medians["plain"] / medians["marked"],
            "goal": 0.5,
        }

    def exactness(self) -> dict[str, Any]:
        """Compare the original's greedy continuations of held-out prompts with the unmarked and the marked bundle.

        A bundle that is shown a continuation and would choose each of its tokens generates the same by itself.
        """
        asked = held_out(self._original, Exactness().prompts, PROMPTS)
        model = load_original(self._original, "float32", CPU)
        pad = padding_token(load_tokenizer(self._original), model)
        said = [one for batch in batches(asked, 12) for one in continue_greedily(model, batch, NEW_TOKENS, 12, pad)]
        result = {}
        for name, folder in (("unmarked", self._converted), ("marked", self._copies[ACME])):
            model, tally = load_bundle(folder, CPU), Tally()
            for one in said:
                tally.add(one, _shown(model, one))
            result[name] = tally.comparison(0.0).plain()
        return result

    def traced(self) -> dict[str, Any]:
        """The traces of a copy, of the model that the attack rebuilds, and of its changed descendants."""
        found = {"the bundle": self._look(self._copies[ACME], [ACME])}
        acme, beta = self._rebuilt(ACME), self._rebuilt(BETA)
        found["rebuilt by the rank-one attack"] = self._look(acme, [ACME])
        tensors = load_file(acme / FILE)
        made: dict[str, Callable[[], become.Tensors]] = {
            "bfloat16": lambda: become.in_bfloat16(tensors),
            "int8 rounding": lambda: become.rounded_to(8)(tensors),
            "int4 rounding": lambda: become.rounded_to(4)(tensors),
            "30 % magnitude pruning": lambda: become.pruned(0.3)(tensors),
            "5 % relative noise": lambda: become.noisy(0.05)(tensors),
        }
        for name, make in made.items():
            found[name] = self._look(self._saved(make(), "descendant"), [ACME])
        merged = become.merged(tensors, load_file(beta / FILE))
        found["equal merge of two copies"] = self._look(self._saved(merged, "descendant"), [ACME, BETA])
        found["a part: 64 rows of one layer"] = self._look(self._part(tensors), [ACME])
        return found

    def lora(self) -> dict[str, Any]:
        """The trace of the rebuilt model after LoRA."""
        return self._after(become.lora_tuned, "lora")

    def fine_tuning(self) -> dict[str, Any]:
        """The trace of the rebuilt model after training of all its weights."""
        return self._after(become.fine_tuned, "fine-tuned")

    def _after(self, train: Callable[..., None], name: str) -> dict[str, Any]:
        model = load_original(self._rebuilt(ACME), "float32", CPU)
        before = {key: value.clone() for key, value in model.state_dict().items() if "down_proj" in key}
        train(model, self._texts(), TRAINING_STEPS)
        state = model.state_dict()
        moved = [float((state[key] - value).norm() / value.norm()) for key, value in before.items()]
        model.save_pretrained(self._scratch / name)
        steps = {"steps": TRAINING_STEPS, "tokens_a_step": TRAINING_TOKENS}
        return self._look(self._scratch / name, [ACME]) | steps | {"moved": statistics.median(moved)}

    def _look(self, weights: Path, expected: Sequence[Recipient]) -> dict[str, Any]:
        begin = time.perf_counter()
        found = trace(weights, self._original, KEY, RECIPIENTS, _unwatched)
        right = {one.recipient for one in found.named} == {one.name for one in expected}
        return {"right": right, "seconds": time.perf_counter() - begin} | _figures(found)

    def _rebuilt(self, recipient: Recipient) -> Path:
        """The dense model that the rank-one attack makes of a copy, as one file."""
        folder = self._scratch / f"rebuilt-{recipient.name}"
        if (folder / FILE).exists():
            return folder

        def recovered(layer: ProtectedLayer) -> Tensor:
            return rank_one.recover(layer, Audit()).weights

        with tempfile.TemporaryDirectory(dir=self._scratch) as scratch:
            made = Target(self._copies[recipient], Path(scratch) / "made").rebuild(recovered)
            tensors = {name: one for file in made.glob("*.safetensors") for name, one in load_file(file).items()}
            for file in made.glob("*.safetensors*"):
                file.unlink()
            save_file(tensors, made / FILE, metadata={"format": "pt"})
            made.rename(folder)
        return folder

    def _saved(self, tensors: become.Tensors, name: str) -> Path:
        folder = self._scratch / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        save_file({name: one.contiguous() for name, one in tensors.items()}, folder / FILE)
        return folder

    def _part(self, tensors: become.Tensors) -> Path:
        path = self._scratch / "part.safetensors"
        save_file({"a": tensors["model.layers.11.mlp.down_proj.weight"][100:164].contiguous()}, path)
        return path

    def _texts(self) -> list[Tensor]:
        """Texts [1, T] to train on: the project's own, and running text if there is one."""
        sources = [TextSource(name="project", builtin="calibration")]
        if self._data is not None and (self._data / "wikitext2_valid.txt").is_file():
            sources.append(TextSource(name="wikitext", file=self._data / "wikitext2_valid.txt"))
        tokens = TRAINING_STEPS * TRAINING_TOKENS
        found = sequences(tuple(sources), load_tokenizer(self._original), tokens, TRAINING_TOKENS)
        return [torch.tensor([text]) for text in found]

    def null(self) -> dict[str, Any]:
        """Trials with recipients who received nothing, under fresh keys: the distribution of their p-values.

        For each key the material is added up once, and then asked about many recipients.
        """
        z: list[float] = []
        asked = TRIALS // FRESH_KEYS // 2
        for number, material in zip(range(FRESH_KEYS), _in_turn(self._materials()), strict=False):
            # Under the owner's key, too, where the marks of others are seen: nothing but the recipient is foreign.
            for key in (Key(number.to_bytes(32, "big")), KEY):
                added = AddedUp(key, Original(self._original))
                added.add(material, _unwatched)
                names = (f"innocent-{number}-{trial}" for trial in range(asked))
                z += [added.deviation(Recipient(name, "1.0.0")) for name in names]
        p = np.exp([log_p(one) for one in z])
        return {
            "trials": len(z),
            "keys": FRESH_KEYS + 1,
            "accused_below_1e-6": int((p < 1e-6).sum()),
            "smallest_p": float(p.min()),
            "largest_z": max(z),
            "mean_z": float(np.mean(z)),
            "deviation_of_z": float(np.std(z)),
            "shares": {f"{limit:g}": float((p <= limit).mean()) for limit in (0.5, 0.1, 0.01, 1e-3, 1e-4)},
        }

    def _materials(self) -> list[Path]:
        """Material that is marked for others, in several forms, and material that is not marked."""
        acme = load_file(self._rebuilt(ACME) / FILE)
        changes = enumerate((become.rounded_to(4), become.noisy(0.05)))
        changed = [self._saved(change(acme), f"material-{number}") for number, change in changes]
        return [self._converted, self._copies[ACME], self._rebuilt(BETA), *changed]


def _shown(model: Any, said: Continuation) -> Continuation:
    """The tokens that a model would choose along a continuation that it is shown, with the end of text suppressed."""
    ids = torch.tensor([[*said.prompt.tokens, *said.tokens.tolist()]])
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(said.tokens) + 1).logits[0, :-1].float()
    end = torch.as_tensor(model.generation_config.eos_token_id).reshape(-1)
    return Continuation(said.prompt, logits.index_fill(1, end, -torch.inf).argmax(-1), logits)


def _in_turn(materials: Sequence[Path]) -> Iterator[Path]:
    while True:
        yield from materials


def _written(folder: Path) -> None:
    """Wait until the folder is on the disk. Otherwise the next copy would pay for this one."""
    for path in folder.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())


def _figures(found: Traced) -> dict[str, Any]:
    return {
        "named": [one.plain() for one in found.named],
        "nearest_other_z": found.nearest,
        "weights": found.weights,
        "below_1e-9": bool(found.named) and all(one.log10_p < -9 for one in found.named),
    }


def _show(result: dict[str, Any]) -> None:
    console = Console()
    table = Table(title=f"Copies marked at {result['strength']:g}, traced among {result['recipients']} recipients")
    for heading in ("descendant", "named", "z", "p, corrected", "right"):
        table.add_column(heading)
    after = {"LoRA": result["lora"], "full fine-tuning": result["fine_tuning"]}
    for name, one in (result["traced"] | after).items():
        table.add_row(
            name,
            ", ".join(each["recipient"] for each in one["named"]) or "no evidence",
            ", ".join(f"{each['z']:.1f}" for each in one["named"]),
            ", ".join(probability(each["log10_p"]) for each in one["named"]),
            "yes" if one["right"] and one["below_1e-9"] else "no",
        )
    console.print(table)
    null = Table(title=f"{result['null']['trials']} trials with recipients who received nothing")
    for heading in ("p at most", "share of trials"):
        null.add_column(heading)
    for limit, share in result["null"]["shares"].items():
        null.add_row(limit, f"{share:.4f}")
    console.print(null)
    console.print({key: value for key, value in result["null"].items() if key != "shares"})
    console.print({name: (one["prompts_equal"], one["prompts"]) for name, one in result["exactness"].items()})
    console.print({"speed of a plain copy": result["copying"]["speed_of_plain_copy"]})


def _unwatched(_done: int, _total: int) -> None:
    """Ignore progress."""


if __name__ == "__main__":
    main()
