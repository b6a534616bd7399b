"""The isolation laboratory: two sagas at once on one row, in every order in which their calls can come.

The saga log, the driver, the state machine and the participants' kit are the real ones, on temporary SQLite databases
that are deleted after the run. Nothing outside this package imports it but the laboratory's page, and only when
somebody presses its button. Read purchase.py first: it is all that the switches change.
"""
