"""A response with a content encoding in; the same response with its plain bytes out.

Law: decoded output is pulled in pieces of at most 256 KiB, so that 300 MB hidden in 300 KB cost
what their reader asks for and no more. Rejected: each library's own decoding, which is another
one for each, or none.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping

from anyio.lowlevel import checkpoint

from ._base import BodyBroken, Response
from ._failures import authority

__all__ = ["decoded"]

_PIECE = 256 * 1024
_NAME = re.compile("[a-z]{1,8}")  # anything else may hold what we sent
_GZIP, _ZLIB, _RAW = zlib.MAX_WBITS | 16, zlib.MAX_WBITS, -zlib.MAX_WBITS


def decoded(response: Response, url: str) -> Response:
    """`response` itself if its body is plain, else one that decodes gzip and deflate.

    An encoding that nobody asked for is told as `BodyBroken(undecodable=True)` when the body is
    read, because the status and the headers are good all the same.
    """
    encoding = response.headers.get("content-encoding")
    if encoding is None or encoding.strip().lower() in ("", "identity"):
        return response
    return _Decoded(response, encoding.strip().lower(), authority(url))


class _Decoded:
    """A response whose body is decoded on its way through."""

    def __init__(self, response: Response, encoding: str, where: str) -> None:
        self.status: int = response.status
        self.headers: Mapping[str, str] = response.headers
        self.abort = response.abort
        self.aclose = response.aclose
        self._response = response
        self._encoding = encoding
        self._where = where
        self._inflate = _Inflate(encoding)

    async def receive(self, deadline: float) -> bytes:
        inflate = self._inflate
        if self._encoding not in ("gzip", "x-gzip", "deflate"):
            name = self._encoding if _NAME.fullmatch(self._encoding) else "unknown"
            raise self._undecodable(f"content-encoding {name!r}, which was not asked for")
        await checkpoint()  # much may come out without a wait: others have their turn in between
        try:
            while not (piece := inflate.take()):
                data = await self._response.receive(deadline)
                if not data:
                    inflate.end()
                    return b""
                inflate.feed(data)
        except zlib.error as error:
            raise self._undecodable(f"invalid {self._encoding}: {error}") from error
        return piece

    def _undecodable(self, reason: str) -> BodyBroken:
        return BodyBroken(f"the body from {self._where} is {reason}", undecodable=True)


class _Inflate:
    """Compressed bytes fed in, plain bytes taken out."""

    def __init__(self, encoding: str) -> None:
        self._deflate = encoding == "deflate"
        self._waiting = b""
        self._more = False
        self._stream: zlib._Decompress | None = None

    def feed(self, data: bytes) -> None:
        """More of the body, once `take` has nothing left."""
        self._waiting = data

    def take(self) -> bytes:
        """The next plain bytes, at most a piece; b"" when more must be fed."""
        while self._waiting or self._more:
            if self._stream is None or self._stream.eof:  # gzip may be several members in a row
                self._stream = zlib.decompressobj(self._window())
            piece = self._stream.decompress(self._waiting, _PIECE)
            self._waiting = self._stream.unconsumed_tail or self._stream.unused_data
            self._more = len(piece) == _PIECE and not self._stream.eof
            if piece:
                return piece
        return b""

    def end(self) -> None:
        """The body is over: the compressed stream must be, too."""
        if self._stream is not None and not self._stream.eof:
            raise zlib.error("it ends too early")

    def _window(self) -> int:
        if not self._deflate:
            return _GZIP
        # `deflate` means the zlib format, and half the world sends the bare one.
        return _ZLIB if self._waiting[0] & 0x0F == zlib.DEFLATED else _RAW
