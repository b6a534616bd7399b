"""This folder injects failures, for demos and tests.

`flags.py` says what the flags `fail=` and `delay=` mean, `injection.py` acts them out in a participant, and
`crashes.py` in an orchestrator. Both do it through hooks that are called before and after an attempt; what calls the
hooks knows no fault. Only what wires a process together imports this package, and a service only where FAULTS=on.
"""
