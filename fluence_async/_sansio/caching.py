"""A request in, the key of its answer out; an answer in, whether and how it is kept.

Law: an answer is found by who asks the same thing of the same place with the same credential, and
by nobody else. The key is a hash, keyed with the credential, over the address, the caller's own
headers and the request in one canonical form; half of it names the entry, and the other half,
which is stored nowhere, seals it. What is damaged, forged, or another entry's does not unseal.

Only what cannot change the answer is left out of the canonical form: the order of names, nulls
that mean "not sent", `n=1`, and whether it comes as a stream. A server's other defaults are its
own secret, so a parameter that spells one out counts.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from ..errors import FluenceError
from .codec import ChunkDecoder, decode_completion
from .fold import Fold
from .secret import ApiKey

__all__ = ["CacheKey", "Recording", "answer_key", "is_fresh", "is_whole", "seal", "unseal"]

_FORMAT = b"fluence cache 1"
"""Changes with everything that is stored, so that no version reads another's."""
_SEAL_BYTES = 32
_WHOLE = frozenset({"stop", "tool_calls", "function_call"})
"""How a whole answer ends: `length` and `content_filter` cut it short, and what is not known
may have."""

_loads = msgspec.json.Decoder().decode
_dumps = msgspec.json.Encoder(order="sorted").encode


class CacheKey(msgspec.Struct, frozen=True):
    """Where an answer is: the entry's `name`, in hex, and the secret that seals it."""

    name: str
    secret: bytes

    def __repr__(self) -> str:
        return f"<CacheKey {self.name[:8]}>"


class Recording(msgspec.Struct, frozen=True, array_like=True):
    """An answer as it is kept: its body as it came.

    Attributes:
        stored_at: When, in seconds since the epoch.
        ttl_s: How long it may be used, in seconds.
        streamed: The body is a stream of events, not one JSON object.
        request_id: The server's name for the request that it answered.
        body: Its bytes.
    """

    stored_at: float
    ttl_s: float
    streamed: bool
    request_id: str | None
    body: bytes


# ─── the key ──────────────────────────────────────────────────────────────────────────────


def answer_key(
    body: bytes, *, url: str, credential: str, headers: Mapping[str, str], sampled: bool = False
) -> CacheKey | None:
    """The key of a request's answer; None where the answer is not to be kept.

    Args:
        body: The request as it is sent.
        url: The endpoint's address.
        credential: The API key.
        headers: The caller's own headers, which may say who asks.
        sampled: The caller asked for one sample to stand for all: `temperature` may be above 0.
    """
    request = _loads(body)
    temperature = request.get("temperature")
    if temperature and not sampled:
        return None
    keyed = blake2b(credential.encode(), digest_size=64, person=_FORMAT).digest()
    own = sorted((name.lower(), value) for name, value in headers.items())
    hashed = blake2b(_dumps([url, own, _canonical(request)]), key=keyed, digest_size=64).digest()
    return CacheKey(hashed[:32].hex(), hashed[32:])


def _canonical(request: dict[str, Any]) -> dict[str, Any]:
    """What is asked, without what cannot change the answer."""
    for name, value in request.items():
        if isinstance(value, float) and value.is_integer():
            request[name] = int(value)
    request.pop("stream", None)
    if request.get("stream_options") == {"include_usage": True}:
        del request["stream_options"]
    if request.get("n") == 1:
        del request["n"]
    messages = request.get("messages")
    if isinstance(messages, list):
        # Of a message itself a null says "not sent"; deeper, in a schema say, it may be meant.
        request["messages"] = [
            {name: value for name, value in message.items() if value is not None}
            if isinstance(message, dict)
            else message
            for message in messages
        ]
    return request


# ─── the entry ────────────────────────────────────────────────────────────────────────────


def is_fresh(recording: Recording, *, now: float, ttl_s: float) -> bool:
    """Whether an answer may still be used, `ttl_s` being the most that the caller accepts. One
    from the future was stored before a clock was set back: nobody knows its age."""
    return 0 <= now - recording.stored_at < min(recording.ttl_s, ttl_s)


def is_whole(body: bytes, *, streamed: bool, choices: int, key: ApiKey) -> bool:
    """Whether a body is an answer with nothing missing: neither cut off nor cut short."""
    fold = Fold(choices)
    if streamed:
        decoder = ChunkDecoder(key=key)
        fold.extend(decoder.feed(body))
        if not decoder.end() or decoder.error is not None or not fold.finished:
            return False
        answer = fold.completion()
    else:
        try:
            answer = decode_completion(body, key=key)
        except FluenceError:
            return False
    return len(answer.choices) >= choices and all(
        choice.finish_reason in _WHOLE for choice in answer.choices
    )


def seal(recording: Recording, key: CacheKey) -> bytes:
    """The bytes of an entry."""
    payload = msgspec.msgpack.encode(recording)
    return _digest(payload, key) + payload


def unseal(sealed: bytes, key: CacheKey) -> Recording | None:
    """What was sealed under `key`; None if these bytes are anything else."""
    payload = sealed[_SEAL_BYTES:]
    if not hmac.compare_digest(sealed[:_SEAL_BYTES], _digest(payload, key)):
        return None
    return _recording.decode(payload)


_recording = msgspec.msgpack.Decoder(Recording)


def _digest(payload: bytes, key: CacheKey) -> bytes:
    return blake2b(payload, key=key.secret, digest_size=_SEAL_BYTES).digest()
