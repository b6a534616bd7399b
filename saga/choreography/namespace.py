"""The names that a stack has at the broker. With a prefix (NATS_PREFIX), several stacks can share one broker. Pure.

Only the connection to the broker knows the prefix. Everywhere else, in the outboxes, the log and the list of dead
letters, a subject is written without it, so that an outbox can be published under another prefix later.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Namespace:
    """Adds the prefix to names and takes it away again; without a prefix the names stay as they are."""

    prefix: str = ""

    def name(self, plain: str) -> str:
        """Return a stream's or a durable consumer's name at the broker: `team1_SAGA`."""
        return f"{self.prefix}_{plain}" if self.prefix else plain

    def plain_name(self, name: str) -> str:
        """Return the name without the prefix."""
        return name.removeprefix(f"{self.prefix}_") if self.prefix else name

    def subject(self, plain: str) -> str:
        """Return a subject as it is at the broker: `team1.saga.signup.started`."""
        return f"{self.prefix}.{plain}" if self.prefix else plain

    def plain(self, subject: str) -> str:
        """Return the subject without the prefix."""
        return subject.removeprefix(f"{self.prefix}.") if self.prefix else subject


def covers(pattern: str, subject: str) -> bool:
    """Return whether a pattern covers a subject: `*` stands for one token, `>` for one or more at the end."""
    wanted, parts = pattern.split("."), subject.split(".")
    for index, part in enumerate(wanted):
        if part == ">":
            return len(parts) > index
        if index >= len(parts) or part not in ("*", parts[index]):
            return False
    return len(wanted) == len(parts)
