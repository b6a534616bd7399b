"""Service C: payments."""
