"""Answers that are small to send and large to hold: bombs, each as a script that costs its server
nothing, and what it must lead to.

Law: whoever reads one holds a bounded part of it, and its event loop stays free.
"""

from __future__ import annotations

import zlib
from typing import Any

from ..errors import BadChunkError, BadRequestError, ResponseError
from ..server.faults import Event, Repeat, Stream
from .fault import Fault

__all__ = ["BOMBS"]

_MB = 2**20
_PIECE = 50_000
_BAD = BadChunkError
_OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"


def _gzip(start: bytes, megabytes: int) -> list[Any]:
    """A response of `start` and so many megabytes of `a`, at a thousandth of their size."""
    press = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    first = press.compress(start) + press.flush(zlib.Z_FULL_FLUSH)
    block = press.compress(b"a" * _MB) + press.flush(zlib.Z_FULL_FLUSH)
    return [_OK + b"content-encoding: gzip\r\n\r\n" + first, block * megabytes]


def _event(start: str, middle: str, end: str, size: int = 8 * _MB) -> list[Any]:
    """An event of so many bytes of `middle`, made as it is sent."""
    piece = middle * (_PIECE // len(middle))
    pieces = Repeat(piece.encode(), size // len(piece))
    return [b"data: " + start.encode(), pieces, end.encode() + b"\n\n"]


_TOOL = '{"choices":[{"delta":{"tool_calls":[{"index":%d,"id":"x","function":{"arguments":"'
_TOOL_END = '"}}]}}]}'

BOMBS: tuple[Fault, ...] = (
    Fault(name="a gzip bomb", script=(_gzip(b"data: ", 300),), raises=_BAD),
    Fault(
        name="an error body of 200 MB",
        script=(
            [
                b"HTTP/1.1 400 Bad\r\ncontent-length: 209715200\r\n\r\n",
                Repeat(b"a" * _MB, 200),
            ],
        ),
        raises=BadRequestError,
    ),
    Fault(
        name="an endless answer",
        script=(
            [
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n",
                Repeat(b"a" * _MB),
            ],
        ),
        raises=ResponseError,
        stream=False,
    ),
    Fault(
        name="an endless line",
        script=(Stream("Hel", b"data: ", Repeat(b"a" * _MB)),),
        raises=_BAD,
        text="Hel",
    ),
    Fault(
        name="an event of endless lines",
        script=(Stream("Hel", Repeat((b"data: " + b"a" * 100 + b"\n") * 10_000)),),
        raises=_BAD,
        text="Hel",
    ),
    Fault(
        name="a header of 2 MB",
        script=(_OK + b"x-long: " + b"a" * 2_000_000 + b"\r\n\r\n",),
        raises=ResponseError,
    ),
    Fault(
        name="20,000 headers",
        script=(_OK + b"".join(b"x-%d: a\r\n" % n for n in range(20_000)) + b"\r\n",),
        raises=ResponseError,
    ),
    Fault(
        name="headers without end",
        script=([_OK, Repeat(b"x-endless: a\r\n" * 1000)],),
        raises=ResponseError,
    ),
    Fault(
        name="an event of 10 MB",
        script=(Stream(_event('{"choices":[{"delta":{"content":"', "a", '"}}]}', 10**7)),),
        text="a" * 10**7,
    ),
    Fault(
        name="nested 8,000,000 deep",
        script=(Stream("Hel", _event("", "[", "")),),
        raises=_BAD,
        text="Hel",
    ),
    Fault(
        name="8 MB of tiny choices",
        script=(Stream("Hel", _event('{"choices":[{}', ",{}", "]}")),),
        raises=_BAD,
        text="Hel",
    ),
    Fault(
        name="8 MB of tiny lists",
        script=(Stream("Hel", _event('{"choices":[{"logprobs":{"a":[0', ",[]", "]}}]}")),),
        raises=_BAD,
        text="Hel",
    ),
    Fault(
        name="8 MB of tiny objects that are no chunk",
        script=(Stream("Hel", _event('{"x":[0', ",{}", '],"choices":5}')),),
        raises=_BAD,
        text="Hel",
    ),
    Fault(
        name="tool calls of index 0 and 2,000,000,000",
        script=(
            Stream(
                "Hello", *(Event(_TOOL % index + "{}" + _TOOL_END) for index in (0, 2_000_000_000))
            ),
        ),
        text="Hello",
    ),
    Fault(
        name="8 MB of tool arguments",
        script=(Stream("Hello", _event(_TOOL % 0, "a", _TOOL_END)),),
        text="Hello",
    ),
)
"""Every bomb."""
