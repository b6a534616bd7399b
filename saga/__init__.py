"""The saga library: a pure state machine, a durable log, an engine that drives it, and a kit for participants."""
