"""The key of an answer, its seal, and what is worth keeping."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluence_async import Message
from fluence_async._sansio.caching import (
    CacheKey,
    Recording,
    answer_key,
    is_fresh,
    is_whole,
    seal,
    unseal,
)
from fluence_async._sansio.request import encode_request
from fluence_async._sansio.secret import ApiKey

URL = "https://api.fluence.ai/v1/chat/completions"
ASKED = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
SECRET = ApiKey("sk-0123456789")


def key(
    params: dict[str, Any] | None = None, *, stream: bool = False, **options: Any
) -> CacheKey | None:
    body = encode_request(params or ASKED, stream=stream).data
    given = {"url": URL, "credential": "sk-a", "headers": {}, **options}
    return answer_key(body, **given)


# ─── what does not matter ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "params",
    [
        dict(reversed(ASKED.items())),
        {**ASKED, "messages": "hi"},
        {**ASKED, "messages": [Message(role="user", content="hi")]},
        {**ASKED, "messages": ({"content": "hi", "role": "user"},)},
        {**ASKED, "messages": [{"role": "user", "content": "hi", "name": None}]},
        {**ASKED, "temperature": None, "max_tokens": None, "extra_body": None},
        {**ASKED, "n": 1},
        {**ASKED, "extra_body": {"n": 1, "stream": False}},
    ],
)
def test_what_cannot_change_the_answer_does_not_change_the_key(params: dict[str, Any]) -> None:
    assert key(params) == key()
    assert key(params, stream=True) == key()


def test_the_kind_of_a_number_does_not_matter() -> None:
    assert key({**ASKED, "temperature": 0, "top_p": 1}) == key(
        {**ASKED, "temperature": 0.0, "top_p": 1.0}
    )


# ─── what does ────────────────────────────────────────────────────────────────────────────

SCHEMA = {"type": "function", "function": {"name": "f", "parameters": {"const": None}}}
DIFFERENT: list[dict[str, Any]] = [
    {"model": "m2"},
    {"messages": "hi "},
    {"messages": [{"role": "system", "content": "hi"}]},
    {"messages": [{"role": "user", "content": "hi", "name": "ada"}]},
    {"messages": [{"role": "user", "content": "hi"}] * 2},
    {"messages": [{"role": "user", "content": ["hi"]}]},
    {"temperature": 0},
    {"max_tokens": 5},
    {"max_tokens": 6},
    {"n": 2},
    {"seed": 1},
    {"stop": "a"},
    {"stop": ["a"]},
    {"user": "u"},
    {"tools": [SCHEMA]},
    {"tools": [{**SCHEMA, "function": {"name": "f", "parameters": {}}}]},
    {"stream_options": {"include_usage": False}},
    {"extra_body": {"top_k": 1}},
    {"extra_body": {"top_k": None}},
    {"extra_body": {"top_k": "1"}},
    {"extra_body": {"top_k": True}},
]


def test_whatever_may_change_the_answer_changes_the_key() -> None:
    keys = [key(), *(key({**ASKED, **more}) for more in DIFFERENT)]
    assert len({k.name for k in keys if k}) == len(DIFFERENT) + 1


def test_whoever_asks_elsewhere_or_as_another_has_another_key() -> None:
    keys = [
        key(url=url, credential=credential, headers=headers)
        for url in (URL, URL.replace("v1", "v2"), URL.replace("api", "eu"))
        for credential in ("sk-a", "sk-b")
        for headers in ({}, {"X-Tenant": "a"}, {"X-Tenant": "b"}, {"Authorization": "sk-b"})
    ]
    assert len({k.name for k in keys if k}) == len({k.secret for k in keys if k}) == 24


def test_the_name_of_a_header_is_its_name_in_any_case() -> None:
    assert key(headers={"X-A": "1", "X-B": "2"}) == key(headers={"x-b": "2", "x-a": "1"})


def test_a_sampled_answer_has_a_key_only_if_one_was_asked_for() -> None:
    assert key({**ASKED, "temperature": 0.1}) is None
    assert key({**ASKED, "extra_body": {"temperature": 1}}) is None
    assert key({**ASKED, "temperature": 0.1}, sampled=True) is not None
    assert key({**ASKED, "temperature": 0}) is not None


def test_no_text_of_a_key_shows_its_secret() -> None:
    found = key()
    assert found is not None
    assert found.secret.hex() not in repr(found)
    assert repr(found.secret) not in repr(found)


# ─── the seal ─────────────────────────────────────────────────────────────────────────────

KEY, OTHER = key(), key(credential="sk-b")
assert KEY is not None
assert OTHER is not None
RECORDING = Recording(1e9, 60.0, True, "req-1", b"data: [DONE]\n\n")


def test_what_was_sealed_unseals() -> None:
    assert unseal(seal(RECORDING, KEY), KEY) == RECORDING


def test_another_key_does_not_unseal_it() -> None:
    assert unseal(seal(RECORDING, KEY), OTHER) is None


def test_no_flipped_bit_unseals() -> None:
    sealed = seal(RECORDING, KEY)
    for at in range(len(sealed)):
        for bit in range(8):
            flipped = bytearray(sealed)
            flipped[at] ^= 1 << bit
            assert unseal(bytes(flipped), KEY) is None


@given(st.binary(max_size=200))
def test_no_other_bytes_unseal(data: bytes) -> None:
    assert unseal(data, KEY) is None


@pytest.mark.parametrize(
    ("now", "ttl_s", "fresh"),
    [(1e9, 60, True), (1e9 + 59, 99, True), (1e9 + 60, 99, False), (1e9 + 5, 5, False),
     (1e9 + 4, 5, True), (1e9 - 1, 60, False)],
)  # fmt: skip
def test_an_answer_is_fresh_for_the_shorter_of_both_times(
    now: float, ttl_s: float, fresh: bool
) -> None:
    assert is_fresh(RECORDING, now=now, ttl_s=ttl_s) is fresh


# ─── what is whole ────────────────────────────────────────────────────────────────────────


def body(*finishes: str | None) -> bytes:
    message = {"role": "assistant", "content": "a"}
    return json.dumps(
        {
            "choices": [
                {"index": i, "message": message, "finish_reason": finish}
                for i, finish in enumerate(finishes)
            ]
        }
    ).encode()


def events(*finishes: str | None, done: bool = True) -> bytes:
    chunks = [
        {"choices": [{"index": i, "delta": {"content": "a"}, "finish_reason": finish}]}
        for i, finish in enumerate(finishes)
    ]
    text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
    return (text + "data: [DONE]\n\n" * done).encode()


@pytest.mark.parametrize(
    ("finishes", "choices", "whole"),
    [
        (["stop"], 1, True),
        (["tool_calls"], 1, True),
        (["function_call"], 1, True),
        (["stop", "tool_calls"], 2, True),
        (["length"], 1, False),
        (["content_filter"], 1, False),
        (["a newer one"], 1, False),
        ([None], 1, False),
        (["stop", "length"], 2, False),
        (["stop"], 2, False),
        ([], 1, False),
    ],
)
def test_only_whole_answers_are_kept(finishes: list[str | None], choices: int, whole: bool) -> None:
    assert is_whole(body(*finishes), streamed=False, choices=choices, key=SECRET) is whole
    assert is_whole(events(*finishes), streamed=True, choices=choices, key=SECRET) is whole


@pytest.mark.parametrize(
    "damaged",
    [b"", b"{", events("stop")[:-30], b'data: {"error": {"message": "no"}}\n\n' + events("stop")],
)
def test_what_is_no_answer_is_not_kept(damaged: bytes) -> None:
    for streamed in (False, True):
        assert not is_whole(damaged, streamed=streamed, choices=1, key=SECRET)


def test_an_end_marker_may_be_missing() -> None:
    assert is_whole(events("stop", done=False), streamed=True, choices=1, key=SECRET)
