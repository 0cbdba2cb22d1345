"""The command line `taylor-release`. `python -m flows.commands` is the same.

answers         The JSON that commands print with `--json`: one schema each, which `taylor-release schema COMMAND`
                prints.
bundles         Commands on a finished bundle: verify, audit, calibrate, yank.
doctor          The command `doctor`: what a release needs, and whether it is here.
evidence        Commands about marked copies: mark one for a further recipient, trace whose copy weights come from.
history         Commands about releases that are finished: list, show, diff, index, clean.
main            The command line `taylor-release`: which commands it has, and how it ends.
options         Arguments that several commands share, and what every command does before and after its work.
release_tables  Terminal tables of the releases in the artifacts folder: the list, one in detail, two side by side.
releasing       Commands from a model to a release: init, check, schema, plan, run, changed.
server          Commands that use a Prefect server: deploy, submit, approve, reject.
tables          Terminal tables: the estimate of a release, and what was released, how it was proven and what it cost.
"""
