"""Exports a saga as a state machine for AWS Step Functions: read `asl.py` first."""
