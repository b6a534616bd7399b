"""`AnswerParser` parses one HTTP/1.1 answer as it arrives, and says whether the connection can be used again.

The parser itself is llhttp, that of Node.js, in the package `httptools`.
"""

from __future__ import annotations

import httptools

from saga.http_client.transport import ANSWER_BYTES_AT_MOST

HEAD_BYTES_AT_MOST = 1 << 16


class AnswerParser:
    """One answer as it comes in. Raises ConnectionError where it is cut off, and ValueError where it is not HTTP."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}  # names in lower case
        self.body = bytearray()
        self.complete = False
        self._alone = True  # nothing came that nobody asked for: it must not be taken for the next answer
        self._kept_alive = False
        self._headed = False
        self._head_size = self._unparsed = 0
        self._parser = httptools.HttpResponseParser(self)

    @property
    def reusable(self) -> bool:
        """Whether the connection may be used for another request."""
        return self._alone and self._kept_alive and not self.too_large

    @property
    def too_large(self) -> bool:
        """Whether the body is over the limit."""
        return len(self.body) > ANSWER_BYTES_AT_MOST

    def feed(self, received: bytes) -> None:
        """Parse what was received; nothing was where the other side has closed."""
        if not received:
            if not self._headed or {"content-length", "transfer-encoding"} & self.headers.keys():
                raise ConnectionResetError("the answer was cut off")
            self.complete, self._alone = True, False  # a body that lasts as long as its connection
            return
        try:
            self._parser.feed_data(received)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.complete:
                raise ValueError(f"the answer is not HTTP/1.1: {error}") from None
            self._alone = False
        self._unparsed += 0 if self._headed else len(received)
        if max(self._head_size, self._unparsed) > HEAD_BYTES_AT_MOST:
            raise ValueError("the answer's head is too long")

    # What the parser calls

    def on_message_begin(self) -> None:
        """Note that a message begins. Where one is complete already, nobody has asked for another."""
        self._alone = self._alone and not self.complete

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header of the head; trailers are passed over."""
        if self._headed:
            return
        self._head_size += len(name) + len(value) + 4
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text  # RFC 9110, section 5.3

    def on_headers_complete(self) -> None:
        """Take the status."""
        if not self.complete:
            self.status = self._parser.get_status_code()
            self._headed = True

    def on_body(self, part: bytes) -> None:
        """Add a part of the body."""
        if not self.complete:
            self.body += part

    def on_message_complete(self) -> None:
        """Note that the answer is complete, unless it is an interim one: many of those may come before it."""
        if self.complete:
            return
        if self.status < 200:
            self.headers.clear()
            self._headed = False
            return
        self.complete, self._kept_alive = True, bool(self._parser.should_keep_alive())
