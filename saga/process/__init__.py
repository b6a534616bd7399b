"""This folder has what a process needs: settings, which alone read the environment; a server; restarting."""
