"""The orchestrator: an HTTP API over the saga library, and its dashboard."""
