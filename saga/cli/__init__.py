"""The command `saga`: what an operator needs at night, over the orchestrator's HTTP API."""
