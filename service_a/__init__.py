"""Service A creates users."""
