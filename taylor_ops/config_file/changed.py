"""Which release configs a merge or a push changed, and what each of them would release."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from taylor_ops.config.release import ReleaseConfig
from taylor_ops.config.source import FolderSource, GgufSource, HubSource, Source
from taylor_ops.config_file.read import read
from taylor_ops.errors import BadInput
from taylor_ops.presentation.wording import figure, markdown_table, percent

CONFIGS = Path("release_configs")


def changed_configs(since: str, folder: Path = CONFIGS) -> list[Path]:
    """The YAML files directly in `folder`, sorted, that are new or have other bytes than at the commit `since`.

    Compared is the commit where the history of `since` and of the working copy part, so that what others did on the
    branch of `since` meanwhile is no change. A removed file releases nothing. Raises `BadInput` where git does not know
    `since` or the folder is in no repository.
    """
    if not folder.is_dir():
        raise BadInput(f"the folder {folder} does not exist", "run this in the repository, or correct `--configs`")
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{since}^{{commit}}")
    base = _git(folder, "merge-base", commit.strip(), "HEAD").strip()
    names = _git(folder, "diff", "--name-only", "--no-renames", "--relative", "--diff-filter=AM", "-z", base, "HEAD")
    paths = [Path(name) for name in names.split("\0") if name]
    return sorted(folder / path for path in paths if path.parent == Path() and path.suffix == ".yaml")


def release_preview(configs: Sequence[Path]) -> str:
    """What these configs would release, in Markdown, ready to be a comment; raises `ConfigErrors` for a broken one."""
    if not configs:
        return "No release config is changed: a merge releases nothing.\n"
    releases = [read(path).config for path in configs]
    rows = [
        [
            path.name,
            f"{config.name} {config.version}",
            _origin(config.source),
            config.conversion.dtype,
            f"{figure(config.latency.target_slowdown, 3)} within {percent(config.latency.tolerance)}",
            _destination(config),
        ]
        for path, config in zip(configs, releases, strict=True)
    ]
    table = markdown_table(["config", "release", "source", "dtype", "slowdown", "published to"], rows)
    return f"A merge releases {len(rows)} model{'s' if len(rows) > 1 else ''}:\n\n{table}"


def _origin(source: Source) -> str:
    match source:
        case HubSource():
            return f"{source.repo_id} at {source.revision[:12]}"
        case FolderSource():
            return f"folder {source.path.name}"
        case GgufSource():
            return source.file.name
    raise AssertionError(source)


def _destination(config: ReleaseConfig) -> str:
    asked = ", after approval" if config.publish.approval else ""
    return f"{config.publish.repo_id} ({config.publish.target}){asked}"


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise BadInput(
            f"git {' '.join(arguments)}: {said[-1] if said else 'no such commit'}",
            "name a commit of this repository and fetch its history (`fetch-depth: 0` in a workflow)",
        )
    return done.stdout
