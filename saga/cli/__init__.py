"""The command `saga` does what an operator needs at night, over the orchestrator's HTTP API."""
