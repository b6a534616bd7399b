"""A process: its settings, which are the only reader of the environment, and how it serves and is restarted."""
