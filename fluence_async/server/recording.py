"""Exchanges with a real server on lines of a file, without its keys: written once, read for years.

Each line is one exchange as JSON: the request's body, and the answer's status, its headers that
mean anything to a client, and its body in the pieces in which it came, with the seconds before
each. `complete` is false where the answer broke off.

Law: no key is written. Of the request's headers nothing is kept; bodies and headers are scrubbed
of the keys in every form in which they might come back. A body that held one is kept in one piece,
because a key may lie across two.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from .._sansio.secret import ApiKey

__all__ = ["Exchange", "Piece", "read_exchanges", "told_headers", "write_exchange"]

_KEPT_HEADERS = frozenset({"content-type", "openai-processing-ms", "retry-after", "x-request-id"})
_KEPT_FAMILY = "x-ratelimit-"


class Piece(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """A piece of a body.

    Attributes:
        after: Seconds after the piece before, or after the request.
        text: Its bytes, if they are UTF-8.
        base64: Its bytes, if they are not.
    """

    after: float
    text: str = ""
    base64: bytes = b""

    @classmethod
    def of(cls, after: float, data: bytes) -> Piece:
        """A piece that holds `data`."""
        try:
            return cls(round(after, 6), text=data.decode())
        except UnicodeDecodeError:
            return cls(round(after, 6), base64=data)

    @property
    def data(self) -> bytes:
        """Its bytes."""
        return self.base64 or self.text.encode()


class Exchange(msgspec.Struct, forbid_unknown_fields=True):
    """One request and its answer."""

    request: Any
    status: int
    headers: dict[str, str]
    body: list[Piece]
    complete: bool = True

    def scrubbed(self, keys: Sequence[ApiKey]) -> Exchange:
        """The same without the keys, and without the headers that no client needs."""
        request = _scrub(msgspec.json.encode(self.request), keys)
        whole = b"".join(piece.data for piece in self.body)
        clean = _scrub(whole, keys)
        body = self.body if clean == whole else [Piece.of(self.body[0].after, clean)]
        headers = {
            name: _scrub(value.encode(), keys).decode()
            for name, value in told_headers(self.headers).items()
        }
        return Exchange(msgspec.json.decode(request), self.status, headers, body, self.complete)


def told_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of an answer that its client is to see, their names in lower case."""
    lower = {name.lower(): value for name, value in headers.items()}
    return {
        name: value
        for name, value in lower.items()
        if name in _KEPT_HEADERS or name.startswith(_KEPT_FAMILY)
    }


def _scrub(data: bytes, keys: Iterable[ApiKey]) -> bytes:
    """`data` without the keys. They are ASCII, so it may be read as if each byte were a letter."""
    text = data.decode("latin-1")
    for key in keys:
        text = key.scrub(text)
    return text.encode("latin-1")


def write_exchange(path: Path, exchange: Exchange, keys: Sequence[ApiKey]) -> None:
    """Append an exchange, in one write, to a file that only its owner may read."""
    line = msgspec.json.encode(exchange.scrubbed(keys)) + b"\n"
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line)
    finally:
        os.close(file)


def read_exchanges(path: Path) -> list[Exchange]:
    """All exchanges of a file, in order.

    Raises:
        ValueError: A line is none.
    """
    exchanges: list[Exchange] = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            exchanges.append(msgspec.json.decode(line, type=Exchange))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number} is no recorded exchange: {error}") from None
    return exchanges
