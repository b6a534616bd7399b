"""Other orchestrators on the same participants, measured in turns with ours: `python -m bench.peers`."""
