"""What a process needs: its settings, which alone read the environment; serving an app; being started again."""
