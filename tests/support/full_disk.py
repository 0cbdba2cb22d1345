"""Converts a model onto a disk that has no room for it, and says as JSON how that ended.

Started by its path. Reads `{"original": folder, "ranges": file, "plan": file, "conversion": {...}, "disk": folder,
"left": bytes | null}` from standard input. left: to how many free bytes another program fills the disk once the first
part is written; what it wrote is removed after the failure, and the conversion goes on.
"""

import json
import shutil
import sys
from pathlib import Path

from taylor_ops.config.conversion import Conversion
from taylor_ops.conversion import convert, parts
from taylor_ops.conversion.terms import Subject
from taylor_ops.errors import WorkFailed
from taylor_ops.model.original import Original
from taylor_ops.series.plan import Plan
from taylor_ops.storage.files import sha256_of_tree


def main() -> None:
    """Convert, one layer a part, beside what an earlier conversion left and what was published of it."""
    request = json.load(sys.stdin)
    disk, left = Path(request["disk"]), request["left"]
    parts._PART_VALUES = 0
    for name in ("converted", "published"):
        (disk / name).mkdir()
        (disk / name / "model.safetensors").write_bytes(b"of an earlier run")
    before = sha256_of_tree(disk)

    def fill(done: int, _total: int) -> None:
        if left is not None and done == 1:
            (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - left))

    def attempt() -> dict[str, str]:
        try:
            convert.convert(
                Subject(
                    Original(Path(request["original"])), Path(request["ranges"]), Conversion(**request["conversion"])
                ),
                Plan.read(Path(request["plan"])),
                disk / "converted",
                fill,
                disk / "kept",
            )
        except WorkFailed as error:
            return {"cause": error.cause, "remedy": error.remedy}
        return {}

    failed = attempt()
    told = failed | {"before": before, "after": sha256_of_tree(disk)}
    if left is not None:
        (disk / "filler").unlink()
        left = None
        told |= {"then": attempt(), "converted": sha256_of_tree(disk / "converted")}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
