"""The files of a source that go along as they are, looked through for what the leak gate would refuse at the end."""

from __future__ import annotations

from pathlib import Path

from taylor_ops.config.release import ReleaseConfig, public_texts
from taylor_ops.errors import BadInput
from taylor_ops.leaks.texts import Machine, leak_in
from taylor_ops.source.card_files import card_files
from taylor_ops.source.roles import copied_files


def require_discreet_source(config: ReleaseConfig, folder: Path, machine: Machine) -> None:
    """Raise `BadInput` if a file that goes along from the source `folder` names this machine, a home or a secret.

    Those that `card.files` adds have to be there.

    Args:
        config: The config of the release.
        folder: Folder of the original.
        machine: What the files must not say about this machine.
    """
    public, added = public_texts(config), card_files(config, folder)
    for name, path in ({name: folder / name for name in copied_files(folder)} | added).items():
        found = leak_in(name, path.read_bytes(), machine, public, name not in added)
        if found:
            raise BadInput(
                f"{path} gives away {found}, and would be published",
                "remove it from the file of the source, then run again",
            )
