"""Runs commands, each in a fork of one process that has imported what every command imports, and says what was loaded.

Started by its path. Reads `{"heavy": [module, ...], "commands": [[argument, ...], ...]}` from standard input; prints
one JSON list, for each command `{"loaded": [those of heavy], "told": standard error}`.
"""

import json
import os
import sys
import tempfile
import traceback

from flows.commands.main import main


def loaded(arguments: list[str], heavy: list[str]) -> dict[str, object]:
    """What is loaded when the command ends, however it ends."""
    with tempfile.TemporaryFile("w+") as told, tempfile.TemporaryFile("w+") as found:
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            os.dup2(told.fileno(), sys.stderr.fileno())
            sys.argv = ["taylor-release", *arguments]
            try:
                main()
            except SystemExit:
                pass
            except BaseException:  # noqa: BLE001
                traceback.print_exc()
            sys.stderr.flush()
            json.dump([name for name in heavy if name in sys.modules], found)
            found.flush()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        for file in (told, found):
            file.seek(0)
        return {"loaded": json.load(found), "told": told.read()}


if __name__ == "__main__":
    request = json.load(sys.stdin)
    print(json.dumps([loaded(arguments, request["heavy"]) for arguments in request["commands"]]))
