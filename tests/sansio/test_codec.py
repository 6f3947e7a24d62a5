"""Bytes in, the API's nouns out: what servers say, what they really send, what is no answer."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fluence_async import errors
from fluence_async._sansio.codec import (
    ChunkDecoder,
    decode_completion,
    is_event_stream,
    is_json,
)
from fluence_async._sansio.error_bodies import decode_status
from fluence_async._sansio.fold import Fold
from fluence_async._sansio.retry import is_retryable
from fluence_async._sansio.secret import ApiKey
from fluence_async._sansio.sse_writing import encode_event
from fluence_async._sansio.surrogates import SurrogateJoiner
from fluence_async.errors import (
    APIStatusError,
    BadChunkError,
    BadRequestError,
    FluenceError,
    ResponseError,
    StreamInterruptedError,
    StreamServerError,
)
from fluence_async.types import (
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChunkChoice,
    FunctionCall,
    Message,
    ToolCall,
    Usage,
)
from tests.test_types import DOCUMENTED

SECRET = "sk-SENTINEL-0123456789abcdef"
KEY = ApiKey(SECRET)


def dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


def text_chunk(content: str, **rest: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": {"content": content}, **rest}]}


def stream_of(*payloads: Any) -> bytes:
    """Each payload (bytes, or what becomes JSON) as an event."""
    parts = [payload if isinstance(payload, bytes) else dumps(payload) for payload in payloads]
    return b"".join(b"data: " + part + b"\n\n" for part in parts)


def fed(*pieces: bytes, **options: Any) -> tuple[ChunkDecoder, list[ChatCompletionChunk]]:
    decoder = ChunkDecoder(key=KEY, **options)
    return decoder, [chunk for piece in pieces for chunk in decoder.feed(piece)]


def chunks_of(*payloads: Any) -> list[ChatCompletionChunk]:
    """The chunks of a stream that must be read without an error."""
    decoder, chunks = fed(stream_of(*payloads))
    assert decoder.error is None
    return chunks


def texts_of(*payloads: Any) -> list[str]:
    return [chunk.text for chunk in chunks_of(*payloads)]


def error_of(*payloads: Any) -> FluenceError:
    """The error after one good chunk, which must come out unharmed."""
    decoder, chunks = fed(stream_of(text_chunk("Hel"), *payloads, text_chunk("never")))
    assert [chunk.text for chunk in chunks] == ["Hel"]
    assert decoder.error is not None
    assert decoder.feed(stream_of(text_chunk("never"))) == []
    assert not decoder.done
    return decoder.error


def live(*payloads: Any) -> list[bytes]:
    """One event for each read."""
    return [stream_of(payload) for payload in payloads]


# ─── content types ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content_type", "stream", "json_"),
    [
        ("text/event-stream", True, False),
        ("text/event-stream; charset=utf-8", True, False),
        ("Text/Event-Stream;charset=UTF-8", True, False),
        (" text/event-stream ", True, False),
        ("", True, False),
        ("application/json", False, True),
        ("application/json; charset=utf-8", False, True),
        ("APPLICATION/JSON", False, True),
        ("application/problem+json", False, True),
        ("text/html; charset=utf-8", False, False),
        ("text/plain", False, False),
        ("application/x-ndjson", False, False),
        ("application/jsonp", False, False),
        ("text/event-streaming", False, False),
    ],
)
def test_what_a_content_type_says(content_type: str, stream: bool, json_: bool) -> None:
    assert is_event_stream(content_type) is stream
    assert is_json(content_type) is json_


# ─── whole bodies ─────────────────────────────────────────────────────────────────────────


def completion_of(body: Any, *, keep_raw: bool = False) -> ChatCompletion:
    if not isinstance(body, bytes):
        body = dumps(body)
    return decode_completion(body, key=KEY, keep_raw=keep_raw)


def answer_with(message: Any, **rest: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "message": message, **rest}]}


def test_the_documentations_example() -> None:
    answer = completion_of(DOCUMENTED)
    assert answer == msgspec.json.decode(DOCUMENTED, type=ChatCompletion)
    assert answer.text.startswith("I'm doing well")
    assert answer.raw is None


VLLM = {
    "id": "chatcmpl-9",
    "object": "chat.completion",
    "created": 1735689600,
    "model": "Qwen/Qwen3-0.6B",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "4",
                "refusal": None,
                "annotations": None,
                "audio": None,
                "function_call": None,
                "tool_calls": [],
                "reasoning_content": "2+2",
            },
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": None,
            "token_ids": None,
        }
    ],
    "service_tier": None,
    "system_fingerprint": None,
    "usage": {
        "prompt_tokens": 9,
        "total_tokens": 11,
        "completion_tokens": 2,
        "prompt_tokens_details": None,
    },
    "prompt_logprobs": None,
    "kv_transfer_params": None,
}
LLAMA_CPP = {
    "choices": [
        {"finish_reason": "stop", "index": 0, "message": {"role": "assistant", "content": "4"}}
    ],
    "created": 1735689600,
    "model": "gpt-3.5-turbo",
    "system_fingerprint": "b4400-0827b2c1",
    "object": "chat.completion",
    "usage": {"completion_tokens": 2, "prompt_tokens": 9, "total_tokens": 11},
    "id": "chatcmpl-9",
    "timings": {"prompt_n": 9, "prompt_ms": 12.3, "predicted_per_second": 1e3},
}
OLLAMA = {
    "id": "chatcmpl-9",
    "object": "chat.completion",
    "created": 1735689600,
    "model": "llama3.2",
    "system_fingerprint": "fp_ollama",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "4"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
}


@pytest.mark.parametrize("body", [VLLM, LLAMA_CPP, OLLAMA], ids=["vLLM", "llama.cpp", "Ollama"])
@pytest.mark.parametrize("keep_raw", [False, True])
def test_the_servers_people_run_are_understood(body: dict[str, Any], keep_raw: bool) -> None:
    answer = completion_of(body, keep_raw=keep_raw)
    assert (answer.text, answer.finish_reason, answer.tool_calls) == ("4", "stop", [])
    assert answer.usage == Usage(prompt_tokens=9, completion_tokens=2, total_tokens=11)
    assert answer.raw == (body if keep_raw else None)


@pytest.mark.parametrize(
    ("body", "same_as"),
    [
        (answer_with({"role": "assistant", "content": "a"}, index="0"), None),
        (answer_with({"role": "assistant", "content": "a"}, index=0.0), None),
        (answer_with({"role": None, "content": "a"}), None),
        (answer_with({"content": "a"}), None),
        (answer_with({"role": "", "content": "a", "tool_calls": []}), None),
        (answer_with({"content": "a", "tool_calls": None, "annotations": None}), None),
        (answer_with({"content": "a"}, index=None), None),
        (answer_with({"content": "a"}, x_new={"deep": [None, {}]}), None),
        ({**answer_with({"content": "a"}), "id": "c", "created": None, "model": None}, None),
        ({**answer_with({"content": "a"}), "created": "0", "usage": None}, None),
        ({**answer_with({"content": "a"}), "created": 0.5, "error": None}, None),
        ({**answer_with({"content": "a"}), "error": {}}, None),
        ({**answer_with({"content": "a"}), "error": ""}, None),
        (b"\xef\xbb\xbf" + dumps(answer_with({"content": "a"})), None),
        (b" \n" + dumps(answer_with({"content": "a"})) + b"\n\n", None),
    ],
)
def test_quirks_are_mended(body: Any, same_as: None) -> None:
    plain = ChatCompletion(id="c", choices=[Choice(message=Message(role="assistant", content="a"))])
    assert completion_of(body) == plain
    assert completion_of(body, keep_raw=True) == plain


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ({}, Usage()),
        ({"prompt_tokens": None, "total_tokens": "3"}, Usage(total_tokens=3)),
        ({"total_tokens": 3.0, "cost": 0.1}, Usage(total_tokens=3)),
    ],
)
def test_usage_with_nulls_or_numbers_in_strings(usage: Any, expected: Usage | None) -> None:
    assert completion_of(answer_with({"content": "a"}) | {"usage": usage}).usage == expected


@pytest.mark.parametrize("content", ["null", "true", "1", "", "NaN", '{"error": "no"}', '"error"'])
def test_a_text_that_looks_like_something_else_stays_text(content: str) -> None:
    for rest in ({}, {"index": "0"}):
        assert completion_of(answer_with({"content": content}, **rest)).text == content
        assert texts_of({"choices": [{"delta": {"content": content}, **rest}]}) == [content]


def test_a_null_within_a_free_form_is_an_answer() -> None:
    free: dict[str, Any] = {"a": None, "b": [None, 1]}
    message = {
        "content": [{"type": "file", "file": free, "text": None}],
        "annotations": [free],
        "audio": free,
    }
    for index in (0, "0"):  # the second is read by the lenient way
        answer = completion_of(answer_with(message, index=index, logprobs=free))
        assert answer.choices[0].logprobs == answer.message.audio == free
        assert answer.message.annotations == [free]
        assert isinstance(answer.message.content, list)
        assert answer.message.content[0].file == free


def test_an_answer_without_choices_is_one_but_a_body_without_any_is_not() -> None:
    assert completion_of({"id": "c", "choices": []}) == ChatCompletion(id="c")
    for body in ({}, {"id": "c"}, {"status": "ok"}, {"choices": None}, {"choices": {}}):
        with pytest.raises(ResponseError, match="choices"):
            completion_of(body)


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (b"", "Expecting value"),
        (b"<html><title>Log in</title>", "Expecting value"),
        (b"null", "not NoneType"),
        (b"[]", "not list"),
        (b"123", "not int"),
        (b'"text"', "not str"),
        (b'{"choices": [{"message": {"content": 5}}]}', r"\$\.choices\[0\]\.message\.content"),
        (b'{"choices": [{"message": {"content": "a"}', "delimiter"),
        (b'{"choices": ["a"]}', "choices"),
        (b'{"choices": [], "created": NaN}', "NaN"),
        (b'{"choices": [], "created": "yesterday"}', "created"),
        (b'{"choices": [], "created": 1' + b"0" * 5000 + b"}", "digits"),
        (b'{"choices": ' + b"[" * 30_000, "nested too deep"),
        (b'{"a": ' * 30_000, "nested too deep"),
        (b"\xff\xfe{}", "Expecting value"),
    ],
    ids=lambda value: ascii(value[:30]) if isinstance(value, bytes) else "",
)
@pytest.mark.parametrize("keep_raw", [False, True])
def test_what_is_no_completion_is_a_response_error_that_shows_its_start(
    body: bytes, cause: str, keep_raw: bool
) -> None:
    with pytest.raises(ResponseError, match=cause) as caught:
        completion_of(body, keep_raw=keep_raw)
    error = caught.value
    assert len(error.body) <= 2048
    assert error.body[:20] == body.decode("utf-8", "replace")[:20]
    assert len(str(error)) < 800
    assert "base_url" in str(error)
    assert error.__suppress_context__
    assert not is_retryable(error)


def test_numbers_beyond_a_float_are_dropped_and_unknown_fields_with_them_too() -> None:
    body = b'{"choices":[{"message":{"content":"a"},"logprobs":{"x":1e400,"y":1.5}}],"z":-1e999}'
    for keep_raw in (False, True):
        answer = completion_of(body, keep_raw=keep_raw)
        assert answer.text == "a"
        assert answer.choices[0].logprobs == {"x": None, "y": 1.5}


def test_lone_surrogates_in_a_whole_answer_are_replaced_wherever_they_are() -> None:
    half, pair = "\ud83d", "\ud83d\ude00"
    body = answer_with(
        {
            "content": f"a{half}b{pair}",
            "tool_calls": [{"id": half, "function": {"name": half, "arguments": pair}}],
            "annotations": [{half: half}],
        },
        logprobs={"content": [{"token": half}]},
        finish_reason=half,
    )
    answer = completion_of(body)
    msgspec.json.encode(answer)
    assert answer.text == "a\ufffdb😀"
    assert answer.tool_calls == [
        ToolCall(id="\ufffd", function=FunctionCall(name="\ufffd", arguments="😀"))
    ]
    assert answer.choices[0].logprobs == {"content": [{"token": "\ufffd"}]}
    assert answer.message.annotations == [{"\ufffd": "\ufffd"}]


def test_invalid_utf8_is_replaced() -> None:
    body = dumps(answer_with({"content": "a!b"})).replace(b"!", b"\xff\xed\xa0\xbd")
    assert completion_of(body).text == "a\ufffd\ufffd\ufffd\ufffdb"


def test_raw_holds_what_was_sent_also_what_is_not_known() -> None:
    body = answer_with({"content": "a"}, x_new=[None]) | {"usage": None}
    assert completion_of(body, keep_raw=True).raw == body
    assert completion_of(body).raw is None
    assert completion_of(answer_with({"content": "a"}, index="0")).raw is None


# ─── errors ───────────────────────────────────────────────────────────────────────────────


def status_error(status: int, body: Any, **rest: Any) -> APIStatusError:
    return decode_status(status, body if isinstance(body, bytes) else dumps(body), key=KEY, **rest)


@pytest.mark.parametrize(
    ("status", "body", "code", "param", "message"),
    [
        (
            400,
            {"error": {"code": "invalid_request", "message": "Bad model", "param": "model"}},
            "invalid_request",
            "model",
            "400 invalid_request: Bad model",
        ),
        (
            401,
            {"error": {"message": "No", "type": "authentication_error", "code": None}},
            "authentication_error",
            None,
            "401 authentication_error: No",
        ),
        (429, {"error": "slow down"}, None, None, "429: slow down"),
        (500, {"error": True}, None, None, "500: true"),
        (500, {"error": ["a", 1]}, None, None, '500: ["a", 1]'),
        (404, {"object": "error", "message": "no model", "code": 404}, None, None, "404: no model"),
        (
            404,
            {"object": "error", "message": "no model", "type": "NotFoundError", "code": 404},
            "NotFoundError",
            None,
            "404 NotFoundError: no model",
        ),
        (404, {"detail": "Not Found"}, None, None, "404: Not Found"),
        (
            422,
            {"detail": [{"loc": ["body", "n"], "msg": "too small"}]},
            None,
            None,
            '422: [{"loc": ["body", "n"], "msg": "too small"}]',
        ),
        (
            429,
            {"error": {"code": 429, "message": "Quota", "status": "RESOURCE_EXHAUSTED"}},
            None,
            None,
            "429: Quota",
        ),
        (
            400,
            {"error": {"message": {"deep": 1}, "code": {"x": 1}, "param": 5}},
            None,
            None,
            '400: {"deep": 1}',
        ),
        (400, {"error": {}}, None, None, '400: {"error": {}}'),
        (400, {"error": {"message": None}}, None, None, '400: {"error": {"message": null}}'),
        (400, {}, None, None, "400: {}"),
        (502, b"<html>Bad gateway</html>", None, None, "502: <html>Bad gateway</html>"),
        (503, b"", None, None, "503: no further word"),
        (500, b"[1]", None, None, "500: [1]"),
        (500, b"null", None, None, "500: null"),
        (500, b"\xff\xfe", None, None, "500: \ufffd\ufffd"),
        (500, b"\xef\xbb\xbf" + b'{"error":"no"}', None, None, "500: no"),
        (500, b'{"error": NaN}', None, None, '500: {"error": NaN}'),
        (500, dumps({"error": "a\ud83d"}), None, None, "500: a\ufffd"),
    ],
)
def test_an_error_response_is_read_whatever_its_form(
    status: int, body: Any, code: str | None, param: str | None, message: str
) -> None:
    error = status_error(status, body)
    assert type(error) is APIStatusError.for_status(status, code)
    assert (error.status_code, error.code, error.param) == (status, code, param)
    assert str(error) == message


def test_the_status_of_the_response_counts_not_that_of_its_body() -> None:
    error = status_error(400, {"error": {"code": 500, "status": 503, "message": "no"}})
    assert type(error) is errors.BadRequestError
    assert error.status_code == 400


def test_retry_after_is_kept() -> None:
    assert status_error(429, {}, retry_after=2.5).retry_after == 2.5
    assert status_error(429, {}).retry_after is None


def test_a_deep_body_of_an_error_is_only_text() -> None:
    error = status_error(500, b'{"error":' * 100_000)
    assert str(error).startswith('500: {"error":{"error":')


def test_no_error_holds_more_than_the_start_of_a_body() -> None:
    for body in (b"x" * 70_000, dumps({"error": {"message": "y" * 70_000, "code": "z" * 70_000}})):
        error = status_error(500, body)
        assert len(error.body) == 2048
        assert len(str(error)) < 2048 + 300
        assert len(error.code or "") <= 200


@pytest.mark.parametrize(
    "body",
    [
        f"Incorrect API key provided: {SECRET}.".encode(),
        dumps({"error": {"message": f"Incorrect API key provided: {SECRET}"}}),
        dumps({"error": f"Bearer {SECRET}"}),
        dumps({"error": {"message": "no", "code": SECRET, "param": f"key={SECRET}"}}),
        dumps({"error": {"message": "no", "type": SECRET}}),
        dumps({"error": {"message": {"key": [SECRET]}}}),
        dumps({"detail": [{"input": SECRET}]}),
        dumps({"headers": {"authorization": f"Bearer {SECRET}"}}),
        b"<pre>Authorization: Bearer " + SECRET.encode() + b"</pre>",
        b" " * 2040 + SECRET.encode(),
        b" " * 190 + SECRET.encode(),
        dumps({"error": "x" * 2040 + SECRET}),
    ],
    ids=lambda body: ascii(body.strip()[:40]),
)
def test_a_401_that_echoes_the_key_does_not_show_it(body: bytes) -> None:
    error = status_error(401, body)
    assert type(error) is errors.AuthenticationError
    for text in (
        str(error),
        repr(error),
        error.body,
        str(error.code),
        str(error.param),
        str(vars(error)),
    ):
        assert "SENT" not in text


DOCUMENTED_CODES = [
    ("invalid_request", 400, errors.BadRequestError, False),
    ("authentication_error", 401, errors.AuthenticationError, False),
    ("rate_limit_exceeded", 429, errors.RateLimitError, True),
    ("server_error", 500, errors.InternalServerError, True),
]
CODES = [
    *DOCUMENTED_CODES,
    ("invalid_request_error", 400, errors.BadRequestError, False),
    ("permission_error", 403, errors.PermissionDeniedError, False),
    ("not_found_error", 404, errors.NotFoundError, False),
    ("rate_limit_error", 429, errors.RateLimitError, True),
    ("insufficient_quota", 429, errors.QuotaExceededError, False),
    ("overloaded_error", 529, errors.InternalServerError, True),
    ("something_new", 500, errors.InternalServerError, True),
    (None, 500, errors.InternalServerError, True),
]


@pytest.mark.parametrize(("code", "status", "kind", "retried"), CODES)
def test_an_error_object_with_status_200_is_the_error_that_its_code_means(
    code: str | None, status: int, kind: type[APIStatusError], retried: bool
) -> None:
    body = {"error": {"code": code, "message": "No.", "param": "n"}}
    with pytest.raises(kind) as caught:
        completion_of(body)
    error = caught.value
    assert type(error) is kind
    assert (error.status_code, error.code, error.param) == (status, code, "n")
    assert is_retryable(error) is retried
    assert json.loads(error.body) == body

    decoder = ChunkDecoder(key=KEY)
    assert decoder.whole(dumps(body)) == []
    assert type(decoder.error) is kind


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"code": 429}, 429),
        ({"code": "context_length_exceeded", "type": "invalid_request_error"}, 400),
        ({"code": "something_new", "type": "overloaded_error"}, 529),
        ({"type": "rate_limit_exceeded"}, 429),
        ({"status": 503}, 503),
        ({"status_code": 503}, 503),
        ({"http_status_code": 422}, 422),
        ({"code": "invalid_request", "status": 403}, 403),
        ({"status": "RESOURCE_EXHAUSTED", "code": 429}, 429),
        ({"code": 200, "type": "rate_limit_exceeded"}, 429),
        ({"code": 600}, 500),
        ({"code": True}, 500),
        ({"code": "503"}, 500),
    ],
)
def test_the_status_that_an_error_object_stands_for(error: dict[str, Any], status: int) -> None:
    body = {"error": error | {"message": "No."}}
    with pytest.raises(APIStatusError) as caught:
        completion_of(body)
    assert caught.value.status_code == status
    event = error_of(body)
    assert isinstance(event, StreamServerError)
    assert event.status_code == status


# ─── streams: what is read ────────────────────────────────────────────────────────────────


def test_a_stream_of_chunks() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    decoder, chunks = fed(
        stream_of(
            {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
            text_chunk("Hel"),
            text_chunk("lo"),
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": usage},
            b"[DONE]",
        )
    )
    assert "".join(chunk.text for chunk in chunks) == "Hello"
    assert chunks[-1].usage == Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)
    assert (decoder.done, decoder.error, decoder.end()) == (True, None, True)


AZURE_FIRST = {
    "choices": [],
    "created": 0,
    "id": "",
    "model": "",
    "object": "",
    "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}],
}
OLLAMA_CHUNK = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1735689600,
    "model": "llama3.2",
    "system_fingerprint": "fp_ollama",
    "choices": [
        {"index": 0, "delta": {"role": "assistant", "content": "x"}, "finish_reason": None}
    ],
}
LLAMA_CPP_CHUNK = {
    "choices": [{"finish_reason": None, "index": 0, "delta": {"content": "x"}}],
    "created": 1735689600,
    "id": "chatcmpl-1",
    "model": "m",
    "system_fingerprint": "b4400",
    "object": "chat.completion.chunk",
    "timings": {"predicted_ms": 1.5},
}
VLLM_CHUNK = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1735689600,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "delta": {"content": "x", "reasoning_content": None, "tool_calls": None},
            "logprobs": None,
            "finish_reason": None,
            "stop_reason": None,
            "token_ids": None,
        }
    ],
    "usage": None,
    "prompt_token_ids": None,
}


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (AZURE_FIRST, ""),
        (OLLAMA_CHUNK, "x"),
        (LLAMA_CPP_CHUNK, "x"),
        (VLLM_CHUNK, "x"),
        ({}, ""),
        ({"choices": []}, ""),
        ({"choices": None}, ""),
        ({"id": "c"}, ""),
        ({"choices": [None]}, ""),
        ({"choices": [{}]}, ""),
        ({"choices": [{"index": 0, "delta": None}]}, ""),
        ({"choices": [{"index": 0, "delta": {}}]}, ""),
        ({"choices": [{"index": 0, "delta": {"content": None}}]}, ""),
        ({"choices": [{"index": None, "delta": {"content": "x"}}]}, "x"),
        ({"choices": [{"index": "0", "delta": {"content": "x"}}]}, "x"),
        ({"choices": [{"index": 0.0, "delta": {"content": "x"}}]}, "x"),
        ({"choices": [{"delta": {"content": "x"}}]}, "x"),
        ({"choices": [{"delta": {"content": "x", "tool_calls": [None]}}]}, "x"),
        ({"choices": [{"delta": {"content": "x"}}], "usage": None, "created": None}, "x"),
        ({"choices": [{"delta": {"content": "x"}}], "error": None}, "x"),
        ({"choices": [{"delta": {"content": "x"}}], "error": False}, "x"),
        ({"choices": [{"delta": {"content": "x"}}], "usage": {"total_tokens": None}}, "x"),
        ({"choices": [{"delta": {"content": "x"}}], "created": "1735689600"}, "x"),
        ({"choices": [{"delta": {"content": "x"}}], "created": 1735689600.25}, "x"),
        ({"choices": [{"delta": {"content": "x"}}], "message": "so far so good"}, "x"),
        ({"choices": [{"delta": {"content": [{"type": "text", "text": "x"}]}}]}, "x"),
        (
            {
                "choices": [
                    {"delta": {"content": [{"type": "thinking"}, {"type": "text", "text": "x"}]}}
                ]
            },
            "x",
        ),
        ({"choices": [{"delta": {"content": "x"}}], "x_new": {"a": [None, 1e5, {}]}}, "x"),
        ({"choices": [{"delta": {"content": "x"}, "finish_reason": "some_new_reason"}]}, "x"),
        ({"choices": [{"delta": {"content": "x"}, "finish_reason": "error"}]}, "x"),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("keep_raw", [False, True])
def test_what_servers_really_send_is_a_chunk(payload: Any, text: str, keep_raw: bool) -> None:
    decoder, chunks = fed(stream_of(payload), keep_raw=keep_raw)
    assert decoder.error is None
    assert [chunk.text for chunk in chunks] == [text]
    assert chunks[0].raw == (payload if keep_raw else None)


def test_unknown_finish_reasons_and_free_forms_are_kept_as_they_are() -> None:
    logprobs = {"content": [{"token": "x", "bytes": None, "top": [None, 1]}], "refusal": None}
    for index in (0, "0"):  # the second is read by the lenient way
        choice = {"index": index, "delta": {}, "finish_reason": "novel", "logprobs": logprobs}
        (chunk,) = chunks_of({"choices": [choice]})
        assert chunk.choices[0].finish_reason == "novel"
        assert chunk.choices[0].logprobs == logprobs


@pytest.mark.parametrize(
    ("index", "expected"), [(0, 0), ("1", 1), (None, None), (2_000_000_000, 2_000_000_000)]
)
def test_tool_call_indexes(index: Any, expected: int | None) -> None:
    delta = {
        "tool_calls": [{"index": index, "id": "a", "function": {"name": "f", "arguments": "{}"}}]
    }
    (chunk,) = chunks_of({"choices": [{"delta": delta}]})
    fold = Fold()
    fold.extend([chunk])
    assert chunk.choices[0].delta is not None
    assert chunk.choices[0].delta.tool_calls is not None
    assert chunk.choices[0].delta.tool_calls[0].index == expected
    assert fold.completion().tool_calls == [
        ToolCall(id="a", function=FunctionCall(name="f", arguments="{}"))
    ]


@pytest.mark.parametrize(
    "noise",
    [
        b"data:\n\n",
        b"data: \n\n",
        b"data\n\n",
        b"data:  \n\n",
        b"event: ping\n\n",
        b"event: error\n\n",
        b": ping\n\n",
        b"id: 7\n: ping\n\n",
        b"id: 7\n\n: ping\n\n",
        b"retry: 100\n\n",
        b"\n\n\n",
        b"nonsense\n\n",
    ],
)
def test_what_says_nothing_is_skipped(noise: bytes) -> None:
    decoder, chunks = fed(
        stream_of(text_chunk("a"))
        + noise
        + stream_of(text_chunk("b"))
        + noise
        + stream_of(b"[DONE]")
    )
    assert [chunk.text for chunk in chunks] == ["a", "b"]
    assert decoder.done


def test_an_event_may_be_named_and_cut_into_data_lines() -> None:
    decoder, chunks = fed(
        b'event: chunk\ndata: {"choices":\ndata: [{"delta":{"content":"x"}}]}\n\n'
    )
    assert ([chunk.text for chunk in chunks], decoder.error) == (["x"], None)


def test_nothing_follows_the_end_marker() -> None:
    for end in (b"[DONE]", b" [DONE] ", b"[DONE]\ndata:"):
        decoder, chunks = fed(
            stream_of(text_chunk("a"), end, text_chunk("b"), b"[DONE]", b"garbage"),
            stream_of(text_chunk("c")),
        )
        assert [chunk.text for chunk in chunks] == ["a"]
        assert (decoder.done, decoder.error) == (True, None)


@pytest.mark.parametrize(
    ("data", "between", "done"),
    [
        (b"", True, False),
        (b'data: {"choices":[]}\n\n', True, False),
        (b'data: {"choices":[]}\n\n: ping\n', True, False),
        (b"data: [DONE]\n\n", True, True),
        (b"data: [DONE]\n", True, True),
        (b"data: [DONE]", True, True),
        (b"data: [DONE", False, False),
        (b"data: [DON", False, False),
        (b'data: {"choices":[]}\n', False, False),
        (b'data: {"choi', False, False),
        (b"da", False, False),
        (b"id: 7\n", False, False),
    ],
)
def test_an_end_in_the_middle_of_an_event_can_be_told(
    data: bytes, *, between: bool, done: bool
) -> None:
    decoder = ChunkDecoder(key=KEY)
    decoder.feed(data)
    assert decoder.end() is between
    assert decoder.done is done


def test_it_says_how_far_it_is() -> None:
    decoder = ChunkDecoder(key=KEY)
    assert repr(decoder) == "<ChunkDecoder reading>"
    decoder.feed(stream_of(b"[DONE]"))
    assert repr(decoder) == "<ChunkDecoder done>"
    decoder, _ = fed(stream_of(b"garbage"))
    assert repr(decoder) == "<ChunkDecoder failed>"


# ─── streams: what is no chunk ────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("payload", "cause"),
    [
        (b"garbage", "Expecting value"),
        (b"{", "Expecting property name"),
        (b'{"choices":[]}}', "Extra data"),
        (b'{"choices":[]}{"choices":[]}', "Extra data"),
        (b"123", "not int"),
        (b"null", "not NoneType"),
        (b"[]", "not list"),
        (b'"text"', "not str"),
        (b"true", "not bool"),
        (b"[DONE] trailing", "Expecting value"),
        (b"[DONE][DONE]", "Expecting value"),
        (b"[done]", "Expecting value"),
        (b"[" * 30_000, "nested too deep"),
        (b'{"a":' * 30_000, "nested too deep"),
        (b'{"created": NaN}', "NaN"),
        (b'{"logprobs": -Infinity}', "-Infinity"),
        (b'{"created": 1' + b"0" * 5000 + b"}", "digits"),
        (b'{"id": 5}', r"\$\.id"),
        (b'{"choices": {}}', r"\$\.choices"),
        (b'{"choices": "x"}', r"\$\.choices"),
        (b'{"choices": [{"delta": "x"}]}', r"\$\.choices\[0\]\.delta"),
        (b'{"choices": [{"delta": {"content": 5}}]}', r"\.delta\.content"),
        (b'{"choices": [{"delta": {"content": ["x"]}}]}', r"\.delta\.content"),
        (b'{"choices": [{"delta": {"content": [{"type": "text"}]}}]}', r"\.delta\.content"),
        (b'{"choices": [{"delta": {"content": {}}}]}', r"\.delta\.content"),
        (b'{"choices": [{"delta": {"tool_calls": [{"index": "x"}]}}]}', r"\.index"),
        (b'{"choices": [{"index": true}]}', r"\.index"),
        (b'{"usage": []}', r"\$\.usage"),
    ],
    ids=lambda value: ascii(value[:40]) if isinstance(value, bytes) else "",
)
@pytest.mark.parametrize("keep_raw", [False, True])
def test_what_is_no_chunk_ends_the_stream(payload: bytes, cause: str, keep_raw: bool) -> None:
    error = error_of(payload)
    assert type(error) is BadChunkError
    assert error.__suppress_context__
    assert ascii(payload.decode()[:20])[1:-1] in ascii(str(error))
    decoder, chunks = fed(stream_of(payload), keep_raw=keep_raw)
    assert chunks == []
    with pytest.raises(BadChunkError, match=cause):
        raise decoder.error or AssertionError


def test_a_snippet_is_short_and_without_the_key() -> None:
    long = error_of(b"z" * 100_000)
    assert str(long).count("z") == 200
    for payload in (
        SECRET.encode(),
        b"x" * 190 + SECRET.encode(),
        dumps({"choices": SECRET}),
        dumps({"choices": [{"delta": {"content": [SECRET]}}]}),
    ):
        assert "SENT" not in str(error_of(payload))


def test_a_number_beyond_a_float_is_dropped() -> None:
    payload = b'{"choices":[{"delta":{"content":"x"},"logprobs":{"a":1e400,"b":[1.5]}}],"z":1e400}'
    (chunk,) = chunks_of(payload)
    assert chunk.choices[0].logprobs == {"a": None, "b": [1.5]}
    assert all(math.isfinite(b) for b in chunk.choices[0].logprobs["b"])
    decoder, _ = fed(stream_of(b'{"created": 1e400}'))
    assert decoder.error is None


def test_an_event_beyond_the_bound_ends_the_stream_after_what_came_before_it() -> None:
    decoder, chunks = fed(
        stream_of(text_chunk("a")) + b"data: " + b"x" * 2000, b"x", max_event=1000
    )
    assert [chunk.text for chunk in chunks] == ["a"]
    assert isinstance(decoder.error, BadChunkError)
    assert "1000" in str(decoder.error)
    decoder, chunks = fed(*[b"x" * 100] * 20, max_event=1000)
    assert isinstance(decoder.error, BadChunkError)


# ─── streams: errors of the server ────────────────────────────────────────────────────────


@pytest.mark.parametrize("keep_raw", [False, True])
def test_an_error_without_an_error_key_is_an_error(keep_raw: bool) -> None:
    bare = {"object": "error", "message": "too long", "type": "BadRequestError", "code": 400}
    decoder, chunks = fed(stream_of(text_chunk("a"), bare, b"[DONE]"), keep_raw=keep_raw)
    assert [chunk.text for chunk in chunks] == ["a"]
    assert isinstance(decoder.error, StreamServerError)
    assert decoder.error.status_code == 400
    assert "too long" in str(decoder.error)
    with pytest.raises(BadRequestError, match="too long"):
        completion_of(bare, keep_raw=keep_raw)


@pytest.mark.parametrize(("code", "status", "kind", "retried"), CODES)
def test_an_error_object_in_mid_stream_keeps_code_and_class(
    code: str | None, status: int, kind: type[APIStatusError], retried: bool
) -> None:
    body = {"error": {"code": code, "message": "No.", "param": "n"}}
    for payload in (body, body | {"id": "c", "choices": [{"delta": {"content": "x"}}]}):
        error = error_of(payload)
        assert isinstance(error, StreamServerError)
        assert (error.status_code, error.code, error.param) == (status, code, "n")
        assert error.error_class is kind
        assert str(error).endswith("No.")
        assert (code or "") in str(error)
        assert is_retryable(error) is retried


def test_an_error_as_first_event_has_nothing_before_it() -> None:
    decoder, chunks = fed(stream_of({"error": {"code": "rate_limit_exceeded", "message": "slow"}}))
    assert chunks == []
    assert isinstance(decoder.error, StreamServerError)
    assert decoder.error.partial is None


OPENROUTER = {
    "id": "gen-1",
    "object": "chat.completion.chunk",
    "created": 1735689600,
    "model": "m",
    "provider": "p",
    "error": {"code": 502, "message": "Provider disconnected"},
    "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
}


@pytest.mark.parametrize("keep_raw", [False, True])
def test_a_chunk_with_both_an_error_and_choices_is_an_error(keep_raw: bool) -> None:
    decoder, chunks = fed(stream_of(text_chunk("Hel"), OPENROUTER), keep_raw=keep_raw)
    assert [chunk.text for chunk in chunks] == ["Hel"]
    assert isinstance(decoder.error, StreamServerError)
    assert decoder.error.status_code == 502
    assert "Provider disconnected" in str(decoder.error)


@pytest.mark.parametrize(
    ("payload", "message", "status"),
    [
        ({"error": "out of memory"}, "out of memory", 500),
        ({"error": ["a"]}, '["a"]', 500),
        ({"error": True}, "true", 500),
        ({"error": {"type": "overloaded_error"}}, "no further word", 529),
        ({"error": {"message": "a\ud83d"}}, "a\ufffd", 500),
        ({"error": {"message": f"key {SECRET}", "code": SECRET}}, "key ***", 500),
        ({"error": {"message": "m" * 5000}}, "m" * 2048, 500),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
def test_errors_of_any_form_in_mid_stream(payload: Any, message: str, status: int) -> None:
    error = error_of(payload)
    assert isinstance(error, StreamServerError)
    assert str(error).endswith(f": {message}")
    assert error.status_code == status
    assert "SENT" not in str(vars(error))
    str(error).encode()


@pytest.mark.parametrize(
    ("data", "message", "status"),
    [
        ("the model crashed", "the model crashed", 500),
        ('{"error": {"message": "slow", "code": "rate_limit_exceeded"}}', "slow", 429),
        ('{"message": "slow", "code": 429}', "slow", 429),
        ('{"detail": "gone"}', "gone", 500),
        ("two\nlines", "two\nlines", 500),
        ("[1]", "[1]", 500),
        ("[DONE]", "[DONE]", 500),
        ("", "no further word", 500),
        ("{}", "no further word", 500),
        (f"bad key {SECRET}", "bad key ***", 500),
        ('{"a":' * 50_000, None, 500),
    ],
    ids=lambda value: ascii(value[:30]) if isinstance(value, str) else "",
)
def test_an_event_named_error_is_one_whatever_it_holds(
    data: str, message: str | None, status: int
) -> None:
    decoder, chunks = fed(stream_of(text_chunk("Hel")) + encode_event(data, event="error"))
    assert [chunk.text for chunk in chunks] == ["Hel"]
    error = decoder.error
    assert isinstance(error, StreamServerError)
    assert error.status_code == status
    assert message is None or str(error).endswith(f": {message}")
    assert len(str(error)) < 2200


# ─── a JSON body in place of a stream ─────────────────────────────────────────────────────


WHOLE = {
    "id": "c",
    "created": 5,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "a",
                "refusal": "r",
                "reasoning_content": "t",
                "reasoning": "u",
                "tool_calls": [
                    {"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                    {"id": "y", "type": "custom", "function": {"name": "g", "arguments": ""}},
                ],
            },
            "finish_reason": "stop",
            "logprobs": {"content": [1]},
        },
        {"index": 1, "message": {"role": "assistant", "content": "b"}, "finish_reason": "length"},
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    "system_fingerprint": "fp",
    "service_tier": "flex",
}


@pytest.mark.parametrize("body", [WHOLE, VLLM, LLAMA_CPP, OLLAMA, {"choices": []}])
def test_a_completion_in_place_of_a_stream_is_one_chunk_that_folds_to_it(body: Any) -> None:
    decoder = ChunkDecoder(key=KEY)
    chunks = decoder.whole(dumps(body))
    fold = Fold()
    fold.extend(chunks)
    assert len(chunks) == 1
    assert (decoder.done, decoder.error) == (True, None)
    assert fold.completion() == completion_of(body)


def test_parts_of_a_content_become_its_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "thinking"}, {"type": "text", "text": "b"}]
    (chunk,) = ChunkDecoder(key=KEY).whole(dumps(answer_with({"content": parts})))
    assert chunk.text == "ab"


def test_such_a_chunk_keeps_what_was_sent() -> None:
    (chunk,) = ChunkDecoder(key=KEY, keep_raw=True).whole(dumps(WHOLE))
    assert chunk.raw == WHOLE
    (chunk,) = ChunkDecoder(key=KEY).whole(dumps(WHOLE))
    assert chunk.raw is None


@pytest.mark.parametrize("body", [b"", b" \r\n"])
def test_an_empty_body_is_an_interrupted_stream_that_may_be_tried_again(body: bytes) -> None:
    decoder = ChunkDecoder(key=KEY)
    assert decoder.whole(body) == []
    assert isinstance(decoder.error, StreamInterruptedError)
    assert is_retryable(decoder.error)


def test_a_login_page_in_place_of_a_stream_is_a_response_error() -> None:
    decoder = ChunkDecoder(key=KEY)
    assert decoder.whole(b"<html>Log in") == []
    assert isinstance(decoder.error, ResponseError)
    assert not decoder.done


# ─── characters ───────────────────────────────────────────────────────────────────────────


def test_half_an_emoji_waits_for_the_other_half_and_later_chunks_are_not_harmed() -> None:
    decoder = ChunkDecoder(key=KEY)
    sent = [text_chunk("a\ud83d"), text_chunk("\ude00b"), text_chunk("c")]
    assert [c.text for piece in sent for c in decoder.feed(stream_of(piece))] == ["a", "😀b", "c"]
    assert texts_of(*sent, b"[DONE]") == ["a", "😀b", "c"]
    assert texts_of(text_chunk("\ude00"), text_chunk("c")) == ["\ufffd", "c"]
    assert texts_of(text_chunk("a\ud83d"), text_chunk("c")) == ["a", "\ufffdc"]
    assert texts_of(text_chunk("a\ud83d"), text_chunk("", finish_reason="stop")) == ["a", "\ufffd"]


def test_no_half_character_leaves_wherever_it_stood() -> None:
    half = "\ud83d"
    payload = {
        "id": half,
        "model": half,
        "choices": [
            {
                "delta": {"role": half, "tool_calls": [{"id": half, "function": {"name": half}}]},
                "finish_reason": half,
                "logprobs": {"content": [{"token": half, half: 1}]},
            }
        ],
    }
    (chunk,) = chunks_of(payload)
    msgspec.json.encode(chunk)
    assert chunk.id == "\ufffd"
    assert chunk.choices[0].logprobs == {"content": [{"token": "\ufffd", "\ufffd": 1}]}


def test_raw_and_joined_characters_go_together() -> None:
    decoder, chunks = fed(stream_of(text_chunk("\ud83d"), text_chunk("\ude00")), keep_raw=True)
    assert [chunk.text for chunk in chunks] == ["", "😀"]
    assert chunks[0].raw == text_chunk("\ud83d")
    assert decoder.error is None


def test_invalid_utf8_in_a_stream_is_replaced_and_the_stream_goes_on() -> None:
    broken = dumps(text_chunk("a!b")).replace(b"!", b"\xff")
    assert texts_of(text_chunk("x"), broken, text_chunk("y")) == ["x", "a\ufffdb", "y"]


def test_a_byte_order_mark_does_not_cost_the_first_event() -> None:
    _, chunks = fed(b"\xef\xbb\xbf" + stream_of(text_chunk("a"), text_chunk("b")))
    assert [chunk.text for chunk in chunks] == ["a", "b"]


# ─── any cutting, and two ways that never differ ──────────────────────────────────────────


class Distrust(SurrogateJoiner):
    """A joiner that always seems to wait, so that nothing is read the fast way."""

    @property
    def pending(self) -> bool:
        return True


Outcome = tuple[list[ChatCompletionChunk], bool, type | None, str]


def outcome(pieces: Sequence[bytes], *, careful: bool = False, keep_raw: bool = False) -> Outcome:
    decoder = ChunkDecoder(key=KEY, keep_raw=keep_raw)
    if careful:
        decoder._surrogates = Distrust()
    chunks = [chunk for piece in pieces for chunk in decoder.feed(piece)]
    plain = [msgspec.convert(msgspec.to_builtins(chunk), ChatCompletionChunk) for chunk in chunks]
    error = decoder.error
    return plain, decoder.done, type(error) if error else None, str(error)


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    ends = sorted(place % (len(data) + 1) for place in places)
    return [data[start:end] for start, end in pairwise([0, *ends, len(data)])]


contents = st.text(st.characters(exclude_categories=[]), max_size=6)
# ─── one event for each read: the quick way of a live stream ──────────────────────────────


def test_a_live_stream_is_read_event_by_event() -> None:
    decoder = ChunkDecoder(key=KEY)
    for text in ("Hel", "lo", "é😀", "!"):
        (piece,) = live(text_chunk(text))
        assert [chunk.text for chunk in decoder.feed(piece)] == [text]
    assert decoder.feed(b"data: [DONE]\n\n") == []
    assert decoder.done


def test_an_event_that_began_in_an_earlier_read_is_not_taken_for_a_whole_one() -> None:
    first, second = live(text_chunk("Hel"), text_chunk("lo"))
    decoder, chunks = fed(first, b"event: error\n", second)
    assert [chunk.text for chunk in chunks] == ["Hel"]
    assert isinstance(decoder.error, StreamServerError)
    decoder, chunks = fed(first, b": ping", second)  # a comment that goes on
    assert [len(chunks), decoder.error] == [1, None]


def test_only_the_first_bytes_of_a_stream_may_be_a_byte_order_mark() -> None:
    piece, other = live(text_chunk("a"), text_chunk("b"))
    _, chunks = fed(b"", piece, piece, b"\xef\xbb\xbf" + other, piece)
    assert [chunk.text for chunk in chunks] == ["a", "a", "a"]


def test_a_live_stream_keeps_raw_joins_surrogates_and_keeps_to_the_cap() -> None:
    payloads = [text_chunk(text) for text in ("a", "b\ud83d", "\ude00c", "d")]
    _, chunks = fed(*live(*payloads), keep_raw=True)
    assert [chunk.raw for chunk in chunks] == payloads
    _, chunks = fed(*live(*payloads))
    assert [chunk.text for chunk in chunks] == ["a", "b", "😀c", "d"]
    _, chunks = fed(*live(text_chunk("a"), text_chunk("b\ud83d"), text_chunk("c")))
    assert [chunk.text for chunk in chunks] == ["a", "b", "\ufffdc"]
    decoder, chunks = fed(*live(text_chunk("a"), text_chunk("b" * 200)), max_event=200)
    assert [chunk.text for chunk in chunks] == ["a"]
    assert isinstance(decoder.error, BadChunkError)


def test_a_live_event_that_is_no_chunk_is_an_error() -> None:
    for payload in (b"{]}", b'{"choices":[{"delta":{"content":"\xff"}}]}', b'{"a":1,\r"b":2}'):
        first, odd = live(text_chunk("a"), payload)
        decoder, chunks = fed(first, odd)
        other, same = fed(first + odd)
        assert [chunk.text for chunk in chunks] == [chunk.text for chunk in same]
        assert str(decoder.error) == str(other.error)


halves = st.sampled_from(["\ud83d", "\ude00", "a\ud83d", "\ude00b", "😀", ""])
plain_deltas = st.fixed_dictionaries({"content": contents | halves})
rich_deltas = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["assistant", None, ""]),
        "content": contents | st.none(),
        "refusal": contents,
        "reasoning_content": halves,
        "reasoning": halves,
        "tool_calls": st.none()
        | st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "index": st.sampled_from([0, 1, "0", None]),
                    "id": st.sampled_from(["a", None, "null"]),
                    "function": st.fixed_dictionaries(
                        {}, optional={"name": contents, "arguments": contents | halves}
                    ),
                },
            ),
            max_size=2,
        ),
    },
)
choices = st.fixed_dictionaries(
    {"delta": plain_deltas | rich_deltas | st.none()},
    optional={
        "index": st.sampled_from([0, 1, "0", 0.0, None]),
        "finish_reason": st.sampled_from([None, "stop", "", "null", "error"]),
        "logprobs": st.sampled_from([None, {}, {"content": [{"token": "a", "bytes": None}]}]),
    },
)
wire_chunks = st.fixed_dictionaries(
    {"choices": st.lists(choices, max_size=2)},
    optional={
        "id": st.sampled_from(["c", "", None]),
        "created": st.sampled_from([0, 5, "5", None, 5.0]),
        "usage": st.sampled_from([None, {}, {"total_tokens": 3}, {"total_tokens": None}]),
        "error": st.sampled_from([None, None, None, "", False]),
        "system_fingerprint": st.sampled_from(["fp", None, "null"]),
        "x_new": st.sampled_from([None, 1, [None], {"error": "not one"}]),
    },
)
good_payloads = st.builds(
    lambda value, ascii_only, tight: json.dumps(
        value, ensure_ascii=ascii_only, separators=(",", ":") if tight else None
    ).encode("utf-8", "replace" if not ascii_only else "strict"),
    wire_chunks,
    st.booleans(),
    st.booleans(),
)
events = (
    good_payloads.map(lambda payload: b"data: " + payload + b"\n\n")
    | good_payloads.map(lambda payload: b"data:" + payload + b"\r\n\r\n")
    | good_payloads.map(lambda payload: b"id: 1\nevent: chunk\ndata: " + payload + b"\n\n")
    | st.sampled_from([b": ping\n\n", b"data: \n\n", b"\n", b"event: ping\ndata: {}\n\n"])
)


@given(
    parts=st.lists(events, max_size=6),
    done=st.booleans(),
    places=st.lists(st.integers(0, 2000), max_size=8),
)
def test_any_cutting_of_a_stream_gives_the_same_chunks(
    parts: list[bytes], done: bool, places: list[int]
) -> None:
    data = b"".join(parts) + (b"data: [DONE]\n\n" if done else b"")
    whole = outcome([data])
    assert whole[1:] == (done, None, "None")
    assert outcome(cut(data, places)) == whole
    assert outcome([data], careful=True) == whole
    assert outcome(cut(data, places), keep_raw=True) == whole


@given(parts=st.lists(events, min_size=1, max_size=3))
def test_a_stream_that_comes_byte_by_byte_gives_the_same_chunks(parts: list[bytes]) -> None:
    data = b"".join(parts)
    assert outcome([data[at : at + 1] for at in range(len(data))]) == outcome([data])


mangled = st.builds(
    lambda payload, at, piece, cut_away: (
        payload[: at % (len(payload) + 1)] + piece + payload[at % (len(payload) + 1) + cut_away :]
    ),
    good_payloads,
    st.integers(0, 500),
    st.sampled_from(
        [b"", b"{", b"}", b"{}", b",", b'"', b" ", b"[", b"]", b"\\", b"null", b"\xff", b"-"]
    ),
    st.integers(0, 3),
)
adversarial = st.sampled_from(
    [
        b"{}{}",
        b"{} {}",
        b'{"id":"a"}{"id":"b"}',
        b'{"id":',
        b'"a"}',
        b'{"id"',
        b':"a"}',
        b'{"choices":[{}',
        b"{}]}",
        b'{"choices":[{}],"x_new":{}',
        b',"id":"c"}',
        b'{"x_new":"',
        b'"}',
        b"{}",
        b"{",
        b"}",
        b" {}",
        b"{} ",
        b"{}\t",
        b"{},",
        b"[{}]",
        b"[DONE]",
        b'{"error":{"message":"no"}}',
        b'{"\\u0065rror":{"message":"no"}}',
        b'{"id":"\\ud83d"}',
        b'{"choices":[{"delta":{"content":"\\ud83d"}}]}',
        b'{"choices":[{"delta":{"content":"\\ude00"}}]}',
        b'{"created":01}',
        b'{"x_new":01}',
        b'{"x_new":1.}',
        b'{"x_new":.5}',
        b'{"x_new":-}',
        b'{"x_new":1e400}',
        b'{"x_new":NaN}',
        b'{"x_new":tru}',
        b'{"x_new":"\\x"}',
        b'{"x_new":"\\u12"}',
        b'{"x_new":"\x01"}',
        b'{"id":"a","id":"b"}',
        b'{"error":null,"error":"no"}',
        b'{"error":"no","error":null}',
        b'{"choices":null,"choices":[]}',
    ]
)


@given(
    payloads=st.lists(mangled | adversarial | good_payloads, max_size=6),
    places=st.lists(st.integers(0, 500), max_size=5),
)
@example(payloads=[b'{"id":"a"}{"id":"b"}', b'{"id"', b':"c"}'], places=[])
@example(payloads=[b'{"choices":[{}', b"{}]}{}"], places=[])
@example(payloads=[b"{}{}", b'{"x_new":{}', b"}"], places=[])
@example(payloads=[b'{}{"id":', b"{}}"], places=[])
def test_the_fast_way_never_differs_from_the_careful_one(
    payloads: list[bytes], places: list[int]
) -> None:
    """Also where what cannot be read alone would make sense in one batch: two objects in an
    event, halves of one object in two."""
    data = stream_of(*payloads)
    expected = outcome([data], careful=True)
    assert outcome([data]) == expected
    assert outcome(cut(data, places)) == expected


@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode))
def test_no_bytes_raise_anything_but_what_is_promised(data: bytes) -> None:
    for piece in (data, b"data: " + data + b"\n\n", b"event: error\ndata: " + data + b"\n\n"):
        decoder, _ = fed(piece)
        assert isinstance(decoder.error, FluenceError | None)
    assert isinstance(status_error(500, data), errors.InternalServerError)
    with suppress(ResponseError, APIStatusError):
        completion_of(data)


def test_a_batch_that_comes_at_once_is_read_once_and_in_order() -> None:
    sent = [text_chunk(f"{n} ") for n in range(1000)]
    _, chunks = fed(stream_of(*sent))
    assert [chunk.text for chunk in chunks] == [f"{n} " for n in range(1000)]
    assert all(type(chunk) is ChatCompletionChunk for chunk in chunks)
    assert chunks[0] == ChatCompletionChunk(
        id="c", choices=[ChunkChoice(delta=chunks[0].choices[0].delta)]
    )
