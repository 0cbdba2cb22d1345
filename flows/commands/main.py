"""The command line `taylor-release`: which commands it has, and how it ends.

The exit status is 0 if the command succeeds, 1 if a gate rejects or the work fails, and 2 for bad input. Errors go to
standard error, as one line of cause and one of remedy. A traceback is shown only with --debug.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from flows.commands.bundles import audit, calibrate, verify, yank
from flows.commands.doctor import doctor
from flows.commands.evidence import mark, trace
from flows.commands.history import clean, diff, index, list_releases, show
from flows.commands.options import PROGRAM, Command, CommandGroup, paragraphs, quiet_tools
from flows.commands.releasing import changed, check, init, plan, run, schema
from flows.commands.server import approve, deploy, reject, submit
from taylor_ops.errors import ReleaseError
from taylor_ops.masking import mask_logs, masked, printable

# The status that typer makes of Ctrl-C.
_INTERRUPTED = 130

app = typer.Typer(
    name=PROGRAM,
    cls=CommandGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Release protected language models: convert, calibrate, prove, attack, publish.",
)

GROUPS: dict[str, dict[str, Callable[..., None]]] = {
    "Make": {"init": init, "check": check, "plan": plan, "run": run, "schema": schema},
    "Inspect": {
        "list": list_releases,
        "show": show,
        "diff": diff,
        "index": index,
        "verify": verify,
        "audit": audit,
        "calibrate": calibrate,
        "clean": clean,
    },
    "Operate": {
        "doctor": doctor,
        "deploy": deploy,
        "submit": submit,
        "approve": approve,
        "reject": reject,
        "changed": changed,
        "yank": yank,
    },
    "Copies": {"mark": mark, "trace": trace},
}
"""The commands in the order of work, by the group under which the help shows them."""

COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}

for _group, _commands in GROUPS.items():
    for _name, _command in _commands.items():
        app.command(_name, cls=Command, rich_help_panel=_group, help=paragraphs(_command))(_command)


def _say_version(asked: bool) -> None:
    if asked:
        # Loaded only for this: the start of every command would wait for it.
        from importlib.metadata import version

        typer.echo(f"{PROGRAM} {version(PROGRAM)}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """Options of every command."""
    os.environ["TAYLOR_RELEASE_TRACEBACKS"] = "show" if debug else "hide"


def main() -> None:
    """Entry point: run a command and turn every expected error into two lines and an exit status."""
    quiet_tools()
    mask_logs()
    try:
        with _signals_as_ctrl_c():
            # Without standalone mode click returns the status of `typer.Exit` instead of exiting with it.
            status = app(prog_name=PROGRAM, standalone_mode=False) or 0
        if status == _INTERRUPTED:
            raise KeyboardInterrupt
        sys.exit(status)
    except ReleaseError as error:
        _print_error(error.cause, error.remedy)
        sys.exit(error.exit_status)
    except typer.TyperException as error:
        if not str(error):
            sys.exit(2)
        _print_error(str(error), f"{PROGRAM} --help lists the commands, {PROGRAM} COMMAND --help their options")
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        typer.echo("stopped: every stage that was finished is kept, and so are the parts of the one at work", err=True)
        typer.echo(f"to go on: {shlex.join([PROGRAM, *sys.argv[1:]])}", err=True)
        sys.exit(1)
    except Exception as error:  # noqa: BLE001
        _print_error(
            f"unexpected {type(error).__name__}: {error}",
            "run again with --debug before the command; finished stages are reused",
        )
        sys.exit(1)


@contextmanager
def _signals_as_ctrl_c() -> Iterator[None]:
    """Have SIGTERM, and SIGHUP of a closed terminal, end a command as Ctrl-C does, so that it cleans up."""

    def stop(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    usual = {ending: signal.signal(ending, stop) for ending in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for ending, handler in usual.items():
            signal.signal(ending, handler)


def _print_error(cause: str, remedy: str) -> None:
    if os.environ.get("TAYLOR_RELEASE_TRACEBACKS") == "show":
        # Loaded only for this: the start of every command would wait for it.
        import logging

        logging.exception("stopped")
    typer.echo(printable(masked(f"error: {cause}\nremedy: {remedy}")), err=True)
