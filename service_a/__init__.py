"""Service A: users."""
