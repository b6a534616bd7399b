"""Service C takes payments."""
