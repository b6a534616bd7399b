"""The dashboard: its pages, and what they show of a saga. They render what the API knows, and decide nothing."""
