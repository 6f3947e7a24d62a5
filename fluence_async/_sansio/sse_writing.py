"""Text in, the bytes of one server-sent event out: what `sse` reads back unchanged.

Law: nothing that is written can end its line or forge another field.
"""

from __future__ import annotations

__all__ = ["encode_comment", "encode_event"]


def encode_event(
    data: str,
    *,
    event: str | None = None,
    id: str | None = None,  # noqa: A002  # the field's name
    retry: int | None = None,
) -> bytes:
    """Write one event, so that a decoder reads back these values and no others.

    Args:
        data: Any text; CR and CRLF in it are read back as LF.
        event: Its type, in one line; "" is read back as "message".
        id: The last event id from here on, in one line without NUL; "" resets it.
        retry: The reconnection time in milliseconds.

    Raises:
        ValueError: A value cannot be written without changing or forging something.
        TypeError: One is not of its type.
    """
    lines = []
    for name, value in (("event", event), ("id", id)):
        if value is not None:
            if "\n" in value or "\r" in value or (name == "id" and "\0" in value):
                raise ValueError(f"{name}={value!r} must be one line, and an id without NUL")
            lines.append(f"{name}: {value}")
    if retry is not None:
        if retry < 0:
            raise ValueError(f"retry={retry} must not be negative; it is in milliseconds")
        lines.append(f"retry: {retry:d}")  # `d` refuses whatever is no whole number
    lines += [f"data: {line}" for line in _split(data)]
    return ("\n".join(lines) + "\n\n").encode()


def encode_comment(text: str) -> bytes:
    """Write a comment, which readers skip: what keeps an idle connection open."""
    return "".join(f": {line}\n" for line in _split(text)).encode() + b"\n"


def _split(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
