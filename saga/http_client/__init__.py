"""Performance only: an HTTP/1.1 client whose time-out bounds a whole attempt, and which costs a third of urllib3."""
