"""Which release configs a merge or a push changed, and what each of them would release."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from taylor_ops.config.release import ReleaseConfig
from taylor_ops.config.source import FolderSource, GgufSource, HubSource, Source
from taylor_ops.config_file.extends import base_of
from taylor_ops.config_file.read import LoadedConfig
from taylor_ops.errors import BadInput
from taylor_ops.presentation.overridden import overridden_in_markdown
from taylor_ops.presentation.wording import figure, markdown_table, percent

CONFIGS = Path("release_configs")


def changed_configs(since: str, folder: Path = CONFIGS) -> list[Path]:
    """The YAML files directly in `folder`, sorted, that are new or changed since the commit `since`.

    A file is changed if its bytes differ from the commit at which the history of the working copy left the history of
    `since`. What others did on the branch of `since` after that is no change. A config that extends a changed file is
    changed too. A removed file releases nothing.

    Raises:
        BadInput: The folder does not exist or is in no repository, or git does not know `since`.
    """
    if not folder.is_dir():
        raise BadInput(f"the folder {folder} does not exist", "run this in the repository, or correct `--configs`")
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{since}^{{commit}}")
    base = _git(folder, "merge-base", commit.strip(), "HEAD").strip()
    top = Path(_git(folder, "rev-parse", "--show-toplevel").rstrip("\n"))
    names = _git(folder, "diff", "--name-only", "--no-renames", "--diff-filter=AM", "-z", base, "HEAD")
    touched = {top / name for name in names.split("\0") if name}
    own = {folder / path.name for path in touched if path.parent == folder.resolve() and path.suffix == ".yaml"}
    extending = {path for path in folder.glob("*.yaml") if _is_touched(base_of(path), touched)}
    return sorted(own | extending)


def _is_touched(common: Path | None, touched: set[Path]) -> bool:
    """Whether the file that a config extends is one of those that changed."""
    return common is not None and common.exists() and common.resolve() in touched


def release_preview(configs: Sequence[LoadedConfig], what: str = "A merge") -> str:
    """What would be released of these configs, as Markdown for a comment.

    Args:
        configs: The configs, with their overrides.
        what: What would release them.
    """
    if not configs:
        return f"No release config is changed: {what.lower()} releases nothing.\n"
    rows = [
        [
            loaded.path.name,
            f"{loaded.config.name} {loaded.config.version}",
            _origin(loaded.config.source),
            loaded.config.conversion.dtype,
            f"{figure(loaded.config.latency.target_slowdown, 3)} within {percent(loaded.config.latency.tolerance)}",
            _destination(loaded.config),
        ]
        for loaded in configs
    ]
    table = markdown_table(["config", "release", "source", "dtype", "slowdown", "published to"], rows)
    more = "".join(f"\n{overridden_in_markdown(loaded.overridden)}" for loaded in configs if loaded.overridden)
    return f"{what} releases {len(rows)} model{'s' if len(rows) > 1 else ''}:\n\n{table}{more}"


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
    condition = ", after approval" if config.publish.approval else ""
    return f"{config.publish.repo_id} ({config.publish.target}){condition}"


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        messages = done.stderr.strip().splitlines()
        raise BadInput(
            f"git {' '.join(arguments)}: {messages[-1] if messages else 'no such commit'}",
            "name a commit of this repository and fetch its history (`fetch-depth: 0` in a workflow)",
        )
    return done.stdout
