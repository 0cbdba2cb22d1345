"""`taylor-release` as a test calls it in its own process: another one would import for seconds first."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from flows.commands.main import main


def called_here(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line with these arguments in this process, whose environment it leaves as it was."""
    out, err, status = StringIO(), StringIO(), 0
    with (
        patch.dict(os.environ),
        patch.object(sys, "argv", ["taylor-release", *map(str, arguments)]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ended:
            status = int(ended.code or 0)
    return subprocess.CompletedProcess(sys.argv, status, out.getvalue(), err.getvalue())
