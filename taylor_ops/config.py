"""The release config: one frozen model of everything that a YAML file may say, with its defaults and limits.

Every section forbids unknown keys. `config_file.read` turns a YAML file into a `ReleaseConfig` or into a list of
errors with their lines; the descriptions below are what `taylor-release schema` and the documentation show.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from taylor_ops.audit_config import Audit
from taylor_ops.card_config import Card
from taylor_ops.evidence_config import Marking
from taylor_ops.publish_config import Publish
from taylor_ops.section import REPO_ID, LocalPath, Section, beside_the_config
from taylor_ops.text_template import parts_of

Basis = Literal["chebyshev", "taylor"]
DtypeName = Literal["float32", "bfloat16", "float16"]
TEXT_SUFFIXES = (".jsonl", ".parquet", ".txt")

DEVICE = r"^(auto|cpu|cuda(:\d+)?)$"
_COMMIT = r"^[0-9a-f]{40}$"
_VERSION = r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?"


class ModelSource(Section):
    """What every kind of source has."""

    recognise_architecture: bool = False
    """Accept an architecture that is not known by name where its MLPs look like those of one that is."""


class HubSource(ModelSource):
    """A model repository on the Hugging Face Hub, at one commit."""

    kind: Literal["hub"]
    repo_id: str = Field(pattern=REPO_ID)
    """Owner and name, such as `meta-llama/Meta-Llama-3-8B-Instruct`."""
    revision: str = Field(pattern=_COMMIT)
    """The commit as 40 hexadecimal digits: a branch or a tag can move, a commit cannot."""


class FolderSource(ModelSource):
    """A local folder with `config.json`, safetensors and tokenizer files."""

    kind: Literal["folder"]
    path: LocalPath
    """The folder; a relative path is taken from the config file's folder."""


class GgufSource(ModelSource):
    """A GGUF file, of a path or an installed Python package. As float32 all of it has to fit into memory at once."""

    kind: Literal["gguf"]
    file: Path
    """The file: a path beside the config, or a name inside `package`."""
    package: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """An installed Python package that carries the file."""

    @model_validator(mode="after")
    def _resolve_the_path(self, info: ValidationInfo) -> GgufSource:
        if self.package is None:
            object.__setattr__(self, "file", beside_the_config(self.file, info))
        return self


Source = Annotated[HubSource | FolderSource | GgufSource, Field(discriminator="kind")]


class DatasetSource(Section):
    """A data set that the library `datasets` reads: one split of a Hub repository or of a local folder."""

    name: str | None = Field(default=None, pattern=REPO_ID)
    """Owner and name on the Hub, such as `openai/gsm8k`."""
    folder: LocalPath | None = Field(default=None, validate_default=True)
    """In place of `name`: a folder of data files, or one that `save_to_disk` wrote; relative to the config file's."""
    config: str | None = Field(default=None, min_length=1)
    """Which of its configurations (subsets), where the data set has more than one."""
    split: str = Field(pattern=r"^\w+(\.\w+)*$")
    """Name of one split, whole: `seed` and `limit` of the text take a part of it."""
    revision: str | None = Field(default=None, pattern=_COMMIT, validate_default=True)
    """The commit of a Hub data set as 40 hexadecimal digits: a branch or a tag can move, a commit cannot."""

    @field_validator("folder")
    @classmethod
    def _one_place(cls, folder: Path | None, info: ValidationInfo) -> Path | None:
        if "name" in info.data and (info.data["name"] is None) == (folder is None):
            raise ValueError("needs exactly one of `name` (on the Hub) and `folder`")
        return folder

    @field_validator("revision")
    @classmethod
    def _a_commit_of_the_hub(cls, revision: str | None, info: ValidationInfo) -> str | None:
        if "folder" in info.data and info.data.get("name") is not None and revision is None:
            raise ValueError("is required with `name`: the commit as 40 hexadecimal digits, because a branch can move")
        if info.data.get("folder") is not None and revision is not None:
            raise ValueError("belongs to a data set of the Hub; a folder has no commit")
        return revision


class TextSource(Section):
    """Where texts or prompts come from: the project's own, a file, or a data set."""

    name: str = Field(pattern=r"^[\w.-]+$")
    """What reports call it."""
    builtin: Literal["calibration", "held_out", "running_text"] | None = None
    """One of the texts that the project ships."""
    file: LocalPath | None = None
    """A `.jsonl` file (one object a line), a `.parquet` file (one row a text) or a `.txt` file (one text); relative to
    the config file's folder."""
    dataset: DatasetSource | None = Field(default=None, validate_default=True)
    """What the library `datasets` reads, from the Hub or from a folder."""
    column: str | None = Field(default=None, min_length=1)
    """The field or column that holds the text, or the turns of a chat. Where none is named it is the first of
    `messages`, `prompt` and `text` that a record has."""
    template: str | None = None
    """In place of `column`: text with columns in braces, such as `Question: {question}`. A list gives one line an item;
    `{{` and `}}` are braces."""
    chat_template: bool = False
    """Put each text into one user turn of the model's chat template."""
    limit: int | None = Field(default=None, ge=1)
    """Take only so many, from the start."""
    seed: int | None = Field(default=None, ge=0, le=2**32 - 1)
    """Shuffle the records with this seed before `limit` is taken; without it they keep their order."""

    @field_validator("file")
    @classmethod
    def _a_known_format(cls, file: Path | None) -> Path | None:
        if file is not None and file.suffix not in TEXT_SUFFIXES:
            raise ValueError(f"is {file.name!r}, must be a file that ends in {', '.join(TEXT_SUFFIXES)}")
        return file

    @field_validator("dataset")
    @classmethod
    def _one_origin(cls, dataset: DatasetSource | None, info: ValidationInfo) -> DatasetSource | None:
        others = [info.data[key] for key in ("builtin", "file") if key in info.data]
        if len(others) == 2 and [*others, dataset].count(None) != 2:
            raise ValueError("needs exactly one of `builtin`, `file` and `dataset`")
        return dataset

    @field_validator("template")
    @classmethod
    def _columns_and_nothing_else(cls, template: str | None, info: ValidationInfo) -> str | None:
        if template is None:
            return None
        if info.data.get("column") is not None:
            raise ValueError("says the same as `column`; keep one of them")
        parts_of(template)
        return template

    def may_be(self, other: TextSource) -> bool:
        """Whether both may hold the same text. Another column, template, number, seed or commit makes no other text."""
        if self.dataset is None or other.dataset is None:
            return (self.builtin, self.file, self.dataset) == (other.builtin, other.file, other.dataset)
        one, two = self.dataset, other.dataset
        # The Hub takes names without regard to case, and a configuration that is not named may be any.
        same_name = (one.name or "").lower() == (two.name or "").lower() and one.folder == two.folder
        return same_name and one.split == two.split and (one.config == two.config or None in (one.config, two.config))


class Calibration(Section):
    """The text over which the range of every MLP pre-activation is captured."""

    texts: tuple[TextSource, ...] = Field(default=(TextSource(name="project", builtin="calibration"),), min_length=1)
    """Texts that are run through the model, in this order, until there are `tokens`."""
    tokens: int = Field(default=16_384, ge=256)
    """How many tokens to run through the model."""
    sequence_tokens: int = Field(default=512, ge=16, le=131_072)
    """Length of the sequences that the text is cut into."""
    batch_size: int = Field(default=4, ge=1)
    """How many sequences are run at once."""


class Conversion(Section):
    """How the MLP output weights become series parameters."""

    basis: Basis = "chebyshev"
    """`chebyshev` converges on every interval; `taylor` is the paper's form, powers about the local embedding."""
    tolerance: float = Field(default=1e-3, ge=1e-9, le=1)
    """Largest a-priori bound on the error of the output of each MLP, as a fraction of its median norm over the
    calibration text: truncation on the captured ranges and, in float32, rounding of the stored terms. In 16 bits
    rounding is bounded beside it. Calibration may tighten it, never loosen it."""
    order: int | None = Field(default=None, ge=1, le=64)
    """The same expansion order for every neuron, in place of one chosen per neuron from `tolerance`."""
    max_order: int = Field(default=128, ge=1, le=128, validate_default=True)
    """Highest order that any neuron may get. The few that need more than 64 are wide and matter most."""
    min_protected: float = Field(default=1.0, gt=0, le=1)
    """Least share of the neurons whose output weights are withheld. Below 1, a target slowdown under what protecting
    all of them costs is met by leaving those with the longest series in clear; record and card say how many."""
    range_margin: float = Field(default=0.3, ge=0, le=4)
    """How far each interval is widened on both sides, as a share of the captured range."""
    dtype: DtypeName = "float32"
    """Data type of the released weights, and of the original that they are compared with."""
    shard_bytes: int = Field(default=2_000_000_000, ge=1_000_000)
    """Largest size of one safetensors file."""

    @field_validator("max_order")
    @classmethod
    def _room_for_the_order(cls, highest: int, info: ValidationInfo) -> int:
        if (info.data.get("order") or 0) > highest:
            raise ValueError(f"must be at least `order`, which is {info.data['order']}")
        return highest


class Execution(Section):
    """Who converts the parts of a model. Whoever does, and however many there are, the bundle has the same bytes."""

    runner: Literal["sequential", "threads", "processes", "dask", "ray"] = "sequential"
    """`sequential` is this process, one part after another; the others are task runners of Prefect. `dask` and `ray`
    need the extra of their name, as in `pip install taylor-release[dask]`."""
    workers: int = Field(default=2, ge=1)
    """How many parts are converted at once, each in the memory of one decoder layer as it is released. Threads compute
    with one core each, other workers share the cores of this machine. A cluster at `address` has its own number."""
    address: str | None = Field(default=None, min_length=1, validate_default=True)
    """Scheduler of a running Dask or Ray cluster, such as `tcp://host:8786`; without it one is started on this machine
    and ended with the conversion. All machines need this software, processors of one kind, one shared file system for
    the artifacts and the source, and a Prefect server that they reach (`PREFECT_API_URL`)."""

    @field_validator("address")
    @classmethod
    def _of_a_cluster(cls, address: str | None, info: ValidationInfo) -> str | None:
        if address is not None and info.data.get("runner", "dask") not in ("dask", "ray"):
            raise ValueError("belongs to runner `dask` or `ray`")
        return address


class Shape(Section):
    """How a decode step is run: so many sequences at once, each behind a prompt of so many tokens."""

    batch_size: int = Field(ge=1)
    """Sequences that are decoded at once."""
    prompt_tokens: int = Field(ge=1)
    """Tokens of the prompt before each."""


class DeviceTarget(Section):
    """A slowdown that is promised on one more device of the machine that calibrates."""

    device: str = Field(pattern=DEVICE)
    """`cpu`, `cuda` or `cuda:N`; `auto` takes a GPU where there is one."""
    threads: int | None = Field(default=None, ge=1)
    """Of the processor; as many as torch takes by itself where it is left out."""
    target_slowdown: float = Field(gt=1, le=100)
    """Decode time of the bundle over that of the original, on this device."""
    tolerance: float = Field(default=0.1, gt=0, le=0.5)
    """Largest relative distance from the target; the plan is chosen for `device` of the release, so this is wider."""


class Latency(Section):
    """The slowdown that is promised, and how it is measured."""

    target_slowdown: float = Field(default=3.5, gt=1, le=100)
    """Decode time of the bundle over that of the original."""
    tolerance: float = Field(default=0.03, gt=0, le=0.5)
    """Largest relative distance of the achieved slowdown from the target."""
    batch_size: int = Field(default=1, ge=1)
    """Sequences that are decoded at once where the target holds."""
    prompt_tokens: int = Field(default=64, ge=1)
    """Tokens of the prompt before each."""
    new_tokens: int = Field(default=24, ge=4)
    """Forced output length of both models in each sample."""
    pairs: int = Field(default=7, ge=7)
    """Pairs of samples a candidate gets at least: so many can tell that it misses the target, 11 that it meets it."""
    max_pairs: int = Field(default=141, ge=11, validate_default=True)
    """Most pairs a candidate gets on a noisy machine, before the release ends with what to do about it."""
    min_seconds: float = Field(default=2.0, ge=0, le=3600)
    """How long the samples of a candidate last at least, all together, before it is said to meet the target."""
    disturbance: float = Field(default=0.15, ge=0, le=1)
    """Largest share of the time of a pair for which a thread may wait for a processor that other programs have; a pair
    above is timed again. A Prefect server beside the run takes a part of what is allowed. 1 lets all pass, and the
    slowdown is then that of a busy machine. Of Linux alone."""
    warmup: int = Field(default=1, ge=1)
    """Pairs that are run before any is counted."""
    max_trials: int = Field(default=8, ge=1)
    """Most candidates that are measured; most calibrations need one to four."""
    columns: int | None = Field(default=None, ge=1)
    """The plan with so many stacked columns, as an earlier release of the same inputs found it, is the only candidate:
    its bundle has the same bytes, where a search may end at a neighbour from run to run."""
    also: tuple[Shape, ...] = (Shape(batch_size=1, prompt_tokens=512), Shape(batch_size=8, prompt_tokens=64))
    """Other batch sizes and prompt lengths at which the chosen plan is timed; no target is set for them."""
    also_pairs: int = Field(default=7, ge=6)
    """Pairs at each of them; fewer than 6 give no 95 % interval of a median."""
    devices: tuple[DeviceTarget, ...] = ()
    """Slowdowns that hold on other devices of the same machine; a release that misses one is not published."""
    compiled: bool = False
    """Measure also what is left of the slowdown when both models are compiled with `torch.compile`. That takes minutes
    and a C++ compiler, and is done with the audit."""

    @field_validator("max_pairs")
    @classmethod
    def _no_fewer_than_at_least(cls, most: int, info: ValidationInfo) -> int:
        if most < info.data.get("pairs", most):
            raise ValueError(f"must be at least `pairs`, which is {info.data['pairs']}")
        return most


class Exactness(Section):
    """The held-out prompts on which the bundle must say what the original says."""

    prompts: tuple[TextSource, ...] = Field(default=(TextSource(name="project", builtin="held_out"),), min_length=1)
    """Held-out prompts that both models continue; none may be a calibration text."""
    running_text: tuple[TextSource, ...] = (TextSource(name="project", builtin="running_text"),)
    """Texts over which the perplexity of both models is reported."""
    running_tokens: int = Field(default=1024, ge=64)
    """Most tokens of each running text."""
    new_tokens: int = Field(default=64, ge=1)
    """Tokens by which each prompt is continued, greedily."""
    batch_size: int = Field(default=36, ge=2)
    """Prompts that are continued at once, by the original and by the bundle."""
    floor_batch_size: int = Field(default=12, ge=1, validate_default=True)
    """Batch size of the second run of the original, with plain attention: the first against it is the noise floor."""

    @field_validator("prompts", "running_text")
    @classmethod
    def _names_tell_them_apart(cls, texts: tuple[TextSource, ...]) -> tuple[TextSource, ...]:
        names = [text.name for text in texts]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two texts are called `{twice}`; names must differ")
        return texts

    @field_validator("floor_batch_size")
    @classmethod
    def _the_floor_is_another_execution(cls, size: int, info: ValidationInfo) -> int:
        if size >= info.data.get("batch_size", size + 1):
            raise ValueError("must be smaller than `batch_size`: the floor is another execution")
        return size


class ReleaseConfig(Section):
    """One release: a model, a version, and everything that decides what is made of it."""

    model_config = ConfigDict(title="Release config")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    """Name of the release and of its folder below the artifacts folder."""
    version: str = Field(pattern=f"^{_VERSION}$")
    """Semantic version of the release."""
    source: Source
    """Where the original comes from."""
    calibration: Calibration = Calibration()
    conversion: Conversion = Conversion()
    latency: Latency = Latency()
    exactness: Exactness = Field(default=Exactness(), validate_default=True)
    audit: Audit = Audit()
    evidence: Marking | None = None
    card: Card
    publish: Publish
    execution: Execution = Execution()
    device: str = Field(default="auto", pattern=DEVICE)
    """`auto` takes a GPU where there is one."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Seed of everything that draws random numbers (prompts of the latency measurement, bootstrap)."""

    @field_validator("name")
    @classmethod
    def _not_where_releases_are_published(cls, name: str) -> str:
        if name == "hub":
            raise ValueError("is `hub`, the folder below the artifacts folder that holds what was published")
        return name

    @field_validator("exactness")
    @classmethod
    def _held_out_means_held_out(cls, exactness: Exactness, info: ValidationInfo) -> Exactness:
        calibration = info.data.get("calibration")
        seen = calibration.texts if calibration else ()
        for text in (*exactness.prompts, *exactness.running_text):
            if any(text.may_be(other) for other in seen):
                raise ValueError(f"text `{text.name}` is also a calibration text; held-out text must be another")
        return exactness

    @field_validator("audit")
    @classmethod
    def _a_text_to_train_on(cls, audit: Audit, info: ValidationInfo) -> Audit:
        exactness = info.data.get("exactness")
        trains = sorted({"fine_tuning", "lora"} & set(audit.attacks))
        if trains and exactness is not None and not exactness.running_text:
            raise ValueError(f"attack `{trains[0]}` trains on `exactness.running_text`, which is empty")
        return audit
