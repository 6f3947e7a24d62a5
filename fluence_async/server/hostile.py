r"""More replies that are wrong on purpose: what a broken server or a hostile one sends.

```python
Truncate("Hello", 40)                       # the first 40 bytes of the body, and a proper end
Corrupt("Hello", seed=7)                    # some bits of the body are others
Shuffle("a", "b", Finish(), seed=7)         # out of order
Redirect("https://elsewhere.example/v1")    # a redirect, which would take the key along
Bomb("gzip")   Bomb("body")                 # 300 MB from 300 KB; a body that does not end
Bomb("line")   Bomb("headers")              # a line of a stream, or headers, that do not end
Bomb("tool_index")                          # a tool call in place 2,000,000,000
```
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from random import Random
from typing import Any, Literal, get_args

from .replies import STREAM_HEADERS, Reply, ReplyLike, Step, executes, play
from .wire import Wire
from .written import a_reply

__all__ = ["Bomb", "Corrupt", "Redirect", "Shuffle", "Truncate"]

_MIB = 2**20


class _Spoilt(Step):
    """What is in it, its body changed on the way."""

    def __init__(self, what: ReplyLike) -> None:
        self.what: ReplyLike = a_reply(what)

    @property
    def executes(self) -> bool:
        """Whether what is in it does."""
        return executes(self.what)

    def spoil(self) -> Any:
        """A function that is given each piece of the body in turn."""
        raise NotImplementedError

    async def play(self, wire: Wire) -> None:
        """Send it."""
        before, wire.spoil = wire.spoil, self.spoil()
        try:
            await play(self.what, wire)
        finally:
            wire.spoil = before


class Truncate(_Spoilt):
    """The first `after` bytes of the body of what is in it, and then a proper end: nothing but the
    text itself can tell that it is cut."""

    def __init__(self, what: ReplyLike, after: int) -> None:
        super().__init__(what)
        self.after = after

    def spoil(self) -> Any:
        """See `_Spoilt.spoil`."""
        left = self.after

        def cut(data: bytes) -> bytes:
            nonlocal left
            kept = data[:left]
            left -= len(kept)
            return kept

        return cut


class Corrupt(_Spoilt):
    """What is in it, with one bit changed in every `every`-th byte of its body or so; the same
    ones for the same `seed`."""

    def __init__(self, what: ReplyLike, *, every: int = 50, seed: int = 0) -> None:
        super().__init__(what)
        self.every = every
        self.seed = seed

    def spoil(self) -> Any:
        """See `_Spoilt.spoil`."""
        random = Random(self.seed)  # noqa: S311 - to be the same again

        def flip(data: bytes) -> bytes:
            spoilt = bytearray(data)
            for i in range(len(spoilt)):
                if random.randrange(self.every) == 0:
                    spoilt[i] ^= 1 << random.randrange(8)
            return bytes(spoilt)

        return flip


class Shuffle(Step):
    """In a `Stream`: its steps in another order, the same one for the same `seed`."""

    def __init__(self, *steps: ReplyLike, seed: int = 0) -> None:
        self.steps: list[ReplyLike] = [a_reply(step) for step in steps]
        self.seed = seed

    async def play(self, wire: Wire) -> None:
        """Play them."""
        steps = self.steps.copy()
        Random(self.seed).shuffle(steps)  # noqa: S311 - to be the same again
        await play(steps, wire)


class Redirect(Reply):
    """A redirect to another place."""

    def __init__(self, to: str, status: int = 307) -> None:
        super().__init__(status, headers={"location": to})


_Kind = Literal["gzip", "body", "line", "headers", "tool_index"]


class Bomb(Step):
    """What is made to use up the reader's memory or time.

    Args:
        kind: `gzip`, a small body that unpacks to `size`; `body`, the body of an error; `line`, a
            line of a stream; `headers`, a response's head; `tool_index`, a tool call whose place
            in the list of calls is 2,000,000,000.
        size: Bytes of it, after which the connection ends.
    """

    def __init__(self, kind: _Kind, size: int = 300 * _MIB) -> None:
        if kind not in get_args(_Kind):
            raise ValueError(f"Bomb({kind!r}): one of {', '.join(get_args(_Kind))}")
        self.kind = kind
        self.size = size

    async def play(self, wire: Wire) -> None:
        """Send it, as far as the reader takes it."""
        if self.kind == "headers":
            await wire.send(b"HTTP/1.1 200 OK\r\n")
            for piece in self._pieces(b"x-more: " + b"x" * 1000 + b"\r\n"):
                await wire.send(piece)
            wire.close()
        elif self.kind == "body":
            await wire.head(500, {"content-type": "text/plain"})
            for piece in self._pieces(b"x" * 65536):
                await wire.body(piece)
        elif self.kind == "gzip":
            await wire.head(200, {**_JSON, "content-encoding": "gzip"})
            packer = zlib.compressobj(9, wbits=31)
            for piece in self._pieces(b" " * 65536):
                if packed := packer.compress(piece):
                    await wire.body(packed)
            await wire.body(packer.flush())
        else:
            await wire.head(200, STREAM_HEADERS)
            await self._stream(wire)
        await wire.end()

    async def _stream(self, wire: Wire) -> None:
        if self.kind == "line":
            await wire.body(b"data: ")
            for piece in self._pieces(b"x" * 65536):
                await wire.body(piece)
        else:
            call = {"index": 2_000_000_000, "id": "call", "function": {"name": "f"}}
            await wire.body(wire.turn.chunk({"tool_calls": [call]}))

    def _pieces(self, piece: bytes) -> Iterator[bytes]:
        for at in range(0, self.size, len(piece)):
            yield piece[: self.size - at]


_JSON = {"content-type": "application/json"}
