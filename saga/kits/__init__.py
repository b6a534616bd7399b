"""The participant kit for one web framework each."""
