"""Failure injection, for demos and tests. Only what wires a process together imports it."""
