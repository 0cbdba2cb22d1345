"""The command line `taylor-release`. `python -m flows.commands` is the same.

bundles         Commands on a finished bundle: verify, audit, calibrate, yank.
evidence        Commands about marked copies: mark one for a further recipient, trace whose copy weights stem from.
history         Commands about releases that are finished: list, show, diff, clean.
main            The command line `taylor-release`: which commands it has, and how it ends.
options         Arguments that several commands share, and what every command does before and after its work.
release_tables  Tables of the terminal about releases that are there: the list of them, two beside each other, what was
                removed.
releasing       Commands from a config to a release: check, schema, plan, run, changed.
server          Commands that ask something of a Prefect server: deploy, submit, approve, reject.
tables          The tables of the terminal: what a release is expected to take, what was released, how proven, at what
                cost.
"""
