"""Performance only: an HTTP/1.1 client whose time-out bounds a whole attempt, and which costs a third of urllib3."""

from saga.http_client.transport import Transport


def new_transport() -> Transport:
    """A transport for a process of the stack; it connects to nothing before its first call."""
    from saga.http_client.fast import FastTransport

    return FastTransport()
