"""Dice in, inputs out: streams that look like real ones, and are not quite."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

__all__ = ["bodies", "chunk_streams", "cut", "event_streams"]

WORDS = [
    *(b"data", b"event", b"id", b"retry", b"data:", b"data: ", b"event: ", b"id: ", b"retry: "),
    *(b":", b" ", b"\n", b"\n\n", b"\r", b"\r\n", b"\r\n\r\n", b"\0", b"\xef\xbb\xbf", b"\xef"),
    *(b"\xbb", b"\xff", b"\xc3", b"\xa9", b"\xe2\x82", b"\xac", b"\xf0\x9f\x98\x80", b"\xed\xa0"),
    *(b"{", b"}", b'data: {"a":1}\n\n', b"data: [DONE]\n\n", b": ping\n\n", b"1000", b"7", b"x"),
    *(b"\xe2\x80\xa8", b"\x0b", b"\x1c", b"\xc2\x85", b"event: e\ndata: {}\n\n", b"data: {}\n\n"),
    *(b'data: {"a":1}\n\n' * 2, b"data: a\n\n", b"id: 7\n\n", b"retry: 10\n", b"\n", b"data: {"),
]


def event_streams(dice: random.Random) -> bytes:
    """An event stream of any kind."""
    return b"".join(dice.choices(WORDS, k=dice.randint(1, 14)))


def cut(dice: random.Random, stream: bytes, most: int = 6) -> list[bytes]:
    """A stream in pieces, some of which may be empty."""
    size = len(stream)
    ends = sorted(int(dice.random() * (size + 1)) for _ in range(dice.randint(0, most)))
    return [stream[a:b] for a, b in zip([0, *ends], [*ends, size], strict=True)]


# ─── chunks ───────────────────────────────────────────────────────────────────────────────

VALUES: list[Any] = [
    *(None, 0, 1, -1, 2_000_000_000, 1.5, 1e300, True, False, "", "0", "x", "é😀", "\ud83d"),
    *(
        "\ude00",
        [],
        {},
        [None],
        [{}],
        {"a": None},
        "stop",
        "error",
        [{"type": "text", "text": "y"}],
    ),
]
TOOL = {"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CHUNKS: list[dict[str, Any]] = [
    {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
    for choices in (
        [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}],
        [{"index": 0, "delta": {"content": "Hello"}, "logprobs": None, "finish_reason": None}],
        [{"index": 0, "delta": {"content": "\N{GRINNING FACE}"}}],
        [{"index": 0, "delta": {"content": "\ud83d"}}],
        [{"index": 0, "delta": {"content": "\ude00"}}],
        [{"index": 1, "delta": {"reasoning_content": "hm", "refusal": None}}],
        [{"index": 0, "delta": {"tool_calls": [TOOL]}}],
        [{"index": 0, "delta": {"tool_calls": [{"function": {"arguments": '"a"'}}]}}],
        [{"index": 0, "delta": {}, "logprobs": {"content": [{"token": "a", "bytes": None}]}}],
        [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        [],
    )
]
CHUNKS.append({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}})
CHUNKS.append({"error": {"message": "down", "code": "server_error"}})
CHUNKS.append({"object": "error", "message": "down", "code": 400})
ANSWER: dict[str, Any] = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "x_new": [None, 1],
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello", "tool_calls": [TOOL]},
            "finish_reason": "stop",
            "logprobs": {"content": [{"token": "a", "top_logprobs": None}]},
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}


def mutated(dice: random.Random, value: Any, chance: float = 0.06) -> Any:
    """The same JSON, with a few of its values put out of place."""
    if dice.random() < chance:
        return dice.choice(VALUES)
    if isinstance(value, dict):
        return {
            name: mutated(dice, item, chance)
            for name, item in value.items()
            if dice.random() > chance / 3
        }
    if isinstance(value, list):
        return [mutated(dice, item, chance) for item in value]
    return value


def written(dice: random.Random, value: Any) -> bytes:
    """JSON text of it, ASCII or not, now and then with a byte changed."""
    text = json.dumps(value, ensure_ascii=dice.random() < 0.7, separators=(",", ":"))
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    if dice.random() < 0.05:
        data[dice.randrange(len(data))] = dice.randrange(256)
    return bytes(data)


def chunk_streams(dice: random.Random) -> bytes:
    """A stream of chunks, most of them good."""
    events: list[bytes] = []
    for chunk in dice.choices(CHUNKS[:-2] * 4 + CHUNKS, k=dice.randint(1, 6)):
        data = written(dice, chunk if dice.random() < 0.5 else mutated(dice, chunk))
        events.append(b"data: " + data + b"\n\n")
        if dice.random() < 0.05:
            events.append(dice.choice(WORDS))
    if dice.random() < 0.6:
        events.append(dice.choice([b"data: [DONE]\n\n", b"data: [DONE]", b"data:[DONE]\r\n\r\n"]))
    return b"".join(events)


def bodies(dice: random.Random) -> Sequence[bytes]:
    """A whole answer."""
    return [written(dice, mutated(dice, ANSWER))]
