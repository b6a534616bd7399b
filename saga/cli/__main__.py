"""`python -m saga.cli`, the same as the command `saga`."""

from saga.cli.main import main

main()
