"""`python -m flows.commands` is `taylor-release`."""

from flows.commands.main import main

main()
