"""Service B: addresses."""
