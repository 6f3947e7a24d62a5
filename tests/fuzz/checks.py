"""One input in, a complaint or None out: what must hold of the decoders, whatever comes.

An input is a stream in pieces. A check is deterministic, so that a finding can be kept and played
again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from fluence_async import FluenceError
from fluence_async._sansio.codec import ChunkDecoder, decode_completion
from fluence_async._sansio.fold import Fold
from fluence_async._sansio.secret import ApiKey
from fluence_async._sansio.sse import SSEDecoder, lone_payload
from tests.sansio import naive_sse

__all__ = ["CHECKS", "Check", "codec", "sse", "whole"]

Check = Callable[[Sequence[bytes]], str | None]
KEY = ApiKey("sk-0123456789abcdef")


def sse(pieces: Sequence[bytes]) -> str | None:
    """The decoder reads what the naive reading of the whole reads, however it is cut."""
    return compare_sse(pieces, naive_sse.read(b"".join(pieces)))


def compare_sse(pieces: Sequence[bytes], expected: naive_sse.Reading) -> str | None:
    decoder = SSEDecoder()
    events = [
        (event.event, event.data, event.id, event.retry)
        for piece in pieces
        for event in decoder.feed(piece)
    ]
    found = naive_sse.Reading(events, decoder.last_event_id, decoder.reconnection_time)
    if found != expected:
        return f"read {found}, meant {expected}"
    quick = SSEDecoder()
    payloads: list[str] = []
    for piece in pieces:
        lone = lone_payload(piece) if quick.between_events else None
        if lone is not None:
            payloads.append(lone.decode("utf-8", "replace"))
            continue
        run = quick.feed_lines(piece)
        if run is None:
            payloads += [event.data for event in quick.feed(piece)]
        elif run[1]:
            payloads += run[0].decode().split("\n")
    if payloads != [event[1] for event in expected.events]:
        return f"the quick ways read {payloads}, meant {expected}"
    return None


class Outcome(msgspec.Struct):
    """What a stream of chunks came to."""

    chunks: list[Any]
    done: bool
    error: str
    answer: Any


def decode(pieces: Sequence[bytes], *, keep_raw: bool = False) -> Outcome:
    decoder, fold, chunks = ChunkDecoder(key=KEY, keep_raw=keep_raw), Fold(), []
    for piece in pieces:
        batch = decoder.feed(piece)
        fold.extend(batch)
        chunks += batch
    decoder.end()
    error = f"{type(decoder.error).__name__}: {decoder.error}" if decoder.error else ""
    answer = msgspec.to_builtins(fold.completion())
    return Outcome([msgspec.to_builtins(chunk) for chunk in chunks], decoder.done, error, answer)


def codec(pieces: Sequence[bytes]) -> str | None:
    """Any cutting gives the same chunks, end and answer; what the strict reading takes the lenient
    one takes for the same; and nothing is raised."""
    stream = b"".join(pieces)
    at_once, in_pieces = decode([stream]), decode(pieces)
    if at_once != in_pieces:
        return f"at once {at_once}, in pieces {in_pieces}"
    leniently = decode(pieces, keep_raw=True)
    if not at_once.error and not leniently.error and at_once != leniently:
        return f"strictly {at_once}, leniently {leniently}"
    for chunk in at_once.chunks:
        msgspec.json.encode(chunk)  # it can be printed, and sent on
    return None


def whole(pieces: Sequence[bytes]) -> str | None:
    """A whole answer is read strictly and leniently as the same, or is an error of the tree."""
    body = b"".join(pieces)
    found = []
    for keep_raw in (False, True):
        try:
            found.append(msgspec.to_builtins(decode_completion(body, key=KEY, keep_raw=keep_raw)))
        except FluenceError:
            return None
    return None if found[0] == found[1] else f"strictly {found[0]}, leniently {found[1]}"


CHECKS: dict[str, Check] = {"sse": sse, "codec": codec, "whole": whole}
"""Every check, by name."""


def complaint(check: Check, pieces: Sequence[bytes]) -> str | None:
    """What a check says, or what it raised."""
    try:
        return check(pieces)
    except Exception as error:
        return f"raised {error!r}"
