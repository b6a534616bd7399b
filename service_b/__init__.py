"""Service B stores addresses."""
