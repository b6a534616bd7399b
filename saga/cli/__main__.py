"""`python -m saga.cli` is the same as the command `saga`."""

from saga.cli.main import main

main()
