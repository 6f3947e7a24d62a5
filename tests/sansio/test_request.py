"""Parameters in, a checked body out: what the API would refuse costs nothing."""

from __future__ import annotations

import collections
import json
import types
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluence_async._sansio.codec import decode_completion
from fluence_async._sansio.request import RequestBody, encode_request
from fluence_async._sansio.secret import ApiKey
from fluence_async.types import (
    ContentPart,
    FunctionCall,
    FunctionDefinition,
    ImageURL,
    JSONSchema,
    Message,
    ResponseFormat,
    StreamOptions,
    Tool,
    ToolCall,
)

HELLO = [{"role": "user", "content": "Hello, how are you?"}]


def encode(*, stream: bool = False, **params: Any) -> RequestBody:
    return encode_request({"model": "m", "messages": "Hi"} | params, stream=stream)


def sent(**params: Any) -> dict[str, Any]:
    """The body that goes out, read by another JSON reader."""
    body: dict[str, Any] = json.loads(encode(**params).data)
    return body


# ─── what goes out ────────────────────────────────────────────────────────────────────────


def test_the_documentations_example_byte_for_byte() -> None:
    request = encode_request(
        {"model": "fluence-chat", "messages": HELLO, "temperature": 0.7}, stream=False
    )
    assert request == RequestBody(
        data=b'{"model":"fluence-chat",'
        b'"messages":[{"role":"user","content":"Hello, how are you?"}],"temperature":0.7}',
        model="fluence-chat",
        choices=1,
    )


def test_a_stream_is_asked_for_with_its_usage() -> None:
    request = encode_request({"model": "fluence-chat", "messages": HELLO}, stream=True)
    assert request.data == (
        b'{"model":"fluence-chat","messages":[{"role":"user","content":"Hello, how are you?"}],'
        b'"stream":true,"stream_options":{"include_usage":true}}'
    )


@pytest.mark.parametrize(
    "options", [{"include_usage": False}, StreamOptions(include_usage=False), {}]
)
def test_usage_is_not_asked_for_where_the_caller_says_otherwise(options: Any) -> None:
    body = sent(stream=True, stream_options=options)
    assert body["stream_options"] in ({"include_usage": False}, {})


def test_none_is_not_sent() -> None:
    nothing = dict.fromkeys(
        ("temperature", "max_tokens", "stop", "tools", "n", "extra_body", "seed")
    )
    assert sent(**nothing) == {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    assert sent(stream=True, stream_options=None)["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    "messages",
    [
        "Hi",
        [{"role": "user", "content": "Hi"}],
        ({"role": "user", "content": "Hi"},),
        [Message(role="user", content="Hi")],
        [types.MappingProxyType({"role": "user", "content": "Hi"})],
        [collections.UserDict({"role": "user", "content": "Hi"})],
        collections.deque([{"role": "user", "content": "Hi"}]),
        collections.UserList([Message(role="user", content="Hi")]),
    ],
    ids=lambda messages: type(messages).__name__,
)
def test_messages_may_be_a_text_mappings_or_structs_in_any_sequence(messages: Any) -> None:
    assert sent(messages=messages)["messages"] == [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant", "tool", "function"])
def test_every_known_role_may_speak(role: str) -> None:
    assert sent(messages=[{"role": role, "content": "x"}])["messages"][0]["role"] == role
    assert sent(messages=[Message(role=role, content="x")])["messages"][0]["role"] == role


def test_what_a_message_leaves_at_its_default_is_not_sent_and_what_a_call_needs_is() -> None:
    call = ToolCall(id="c1", function=FunctionCall(name="now"))
    parts = [ContentPart(type="image_url", image_url=ImageURL(url="data:,"))]
    assert sent(
        messages=[
            Message(role="assistant", tool_calls=[call]),
            Message(role="tool", tool_call_id="c1", content=""),
            Message(role="user", content=parts),
        ]
    )["messages"] == [
        {
            "role": "assistant",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "now", "arguments": ""}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": ""},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]},
    ]


def test_unknown_keys_of_a_message_mapping_go_out_as_they_are() -> None:
    message = {"role": "user", "content": "x", "cache_control": {"type": "ephemeral"}}
    assert sent(messages=[message])["messages"] == [message]


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices":[{"message":{"role":"assistant","content":"Fine."}}]}',
        b'{"choices":[{"message":{"content":"Fine.","tool_calls":[],"refusal":null}}]}',
        b'{"choices":[{"message":{"content":null,"tool_calls":[{"id":"c","function":{}}]}}]}',
        b'{"choices":[]}',
    ],
)
def test_an_answers_message_can_be_appended_and_sent_back(body: bytes) -> None:
    answer = decode_completion(body, key=ApiKey("sk-0123456789abcdef"))
    messages = [*HELLO, answer.message, Message(role="user", content="And now?")]
    back = sent(messages=messages)["messages"]
    assert [message["role"] for message in back] == ["user", "assistant", "user"]
    assert back[1].get("content") == answer.message.content
    assert back[1].get("tool_calls", "none") != []
    assert msgspec.convert(back[1], Message) == answer.message


def test_structs_and_mappings_of_tools_and_formats_are_the_same() -> None:
    schema = {"type": "object"}
    body = sent(
        tools=[
            Tool(function=FunctionDefinition(name="f", parameters=schema)),
            {"type": "function", "function": {"name": "f", "parameters": schema}},
        ],
        response_format=ResponseFormat(type="json_schema", json_schema=JSONSchema(name="s")),
        logit_bias=types.MappingProxyType({"50256": -100}),
    )
    assert body["tools"][0] == body["tools"][1]
    assert body["response_format"] == {"type": "json_schema", "json_schema": {"name": "s"}}
    assert body["logit_bias"] == {"50256": -100}


def test_extra_body_is_laid_over_the_rest() -> None:
    extra = {"top_k": 5, "temperature": 3, "model": "other"}
    request = encode(temperature=1, extra_body=types.MappingProxyType(extra))
    assert json.loads(request.data) == {
        "model": "other",
        "messages": [{"role": "user", "content": "Hi"}],
        "temperature": 3,
        "top_k": 5,
    }
    assert request.model == "other"


@pytest.mark.parametrize(
    ("params", "choices"),
    [
        ({}, 1),
        ({"n": 3}, 3),
        ({"extra_body": {"n": 3}}, 3),
        ({"n": 2, "extra_body": {"n": 3}}, 3),
        ({"n": 2, "extra_body": {"n": None}}, 1),
        ({"extra_body": {"n": "3"}}, 1),
    ],
)
def test_the_choices_asked_for_are_known(params: dict[str, Any], choices: int) -> None:
    assert encode(**params).choices == choices


@pytest.mark.parametrize("model", [None, 5, ["a"]])
def test_even_an_odd_model_of_extra_body_has_a_name(model: Any) -> None:
    assert encode(extra_body={"model": model}).model == str(model)


def test_the_callers_values_are_not_changed() -> None:
    message, extra = {"role": "user", "content": "x"}, {"a": 1}
    params = {"model": "m", "messages": [message], "extra_body": extra}
    encode_request(params, stream=True)
    assert params == {"model": "m", "messages": [message], "extra_body": extra}
    assert (message, extra) == ({"role": "user", "content": "x"}, {"a": 1})


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0},
        {"temperature": 2},
        {"temperature": 2.0},
        {"top_p": 0},
        {"top_p": 1},
        {"max_tokens": 1},
        {"max_tokens": 10**9},
        {"max_completion_tokens": 1},
        {"n": 1},
        {"model": "Qwen/Qwen3-0.6B"},
        {"model": "модель 7b:latest"},
        {"messages": [{"role": "user", "content": "\x00\n\u2028 😀"}]},
        {"frequency_penalty": -7, "seed": -1, "stop": ["\n"], "verbosity": "x" * 1000},
    ],
    ids=repr,
)
def test_what_the_api_or_only_a_newer_server_could_judge_is_sent(params: dict[str, Any]) -> None:
    body = sent(**params)
    assert body == body | params


# ─── what is refused ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("params", "kind", "words"),
    [
        ({"model": None}, TypeError, ["model is missing", 'model="fluence-chat"']),
        ({"model": 5}, TypeError, ["model must be a str", "int"]),
        ({"model": ""}, ValueError, ["model=''", "name one"]),
        ({"model": " \t"}, ValueError, ["model=' \\t'", "empty"]),
        ({"model": "a\nb"}, ValueError, ["'a\\nb'", "control character"]),
        ({"model": "a\x00"}, ValueError, ["'a\\x00'", "control character"]),
        ({"model": "a\x1b[2J"}, ValueError, ["control character"]),
        ({"model": "a\x85b"}, ValueError, ["control character"]),
        ({"messages": None}, TypeError, ["messages is missing", "a str or a list"]),
        ({"messages": ""}, ValueError, ["messages is empty", "at least one"]),
        ({"messages": []}, ValueError, ["messages is empty"]),
        ({"messages": ()}, ValueError, ["messages is empty"]),
        ({"messages": 5}, TypeError, ["a str or a list of messages", "int"]),
        ({"messages": {"role": "user"}}, TypeError, ["a list of messages", "dict"]),
        ({"messages": Message(role="user")}, TypeError, ["a list of messages", "Message"]),
        ({"messages": iter(HELLO)}, TypeError, ["a list of messages", "iterator"]),
        ({"messages": ["Hi"]}, TypeError, ["messages[0]", "a Message or a mapping", "str"]),
        ({"messages": b"Hi"}, TypeError, ["messages"]),
        ({"messages": [*HELLO, None]}, TypeError, ["messages[1]", "NoneType"]),
        ({"messages": [{"role": "robot"}]}, ValueError, ["messages[0]", "'robot'", "assistant"]),
        ({"messages": [{"content": "x"}]}, ValueError, ["messages[0]", "None", "user"]),
        ({"messages": [Message(content="x")]}, ValueError, ["messages[0]", "''", "user"]),
        ({"messages": [{"role": ["user"]}]}, ValueError, ["['user']"]),
        ({"messages": [{"role": "User"}]}, ValueError, ["'User'", "user"]),
        ({"temperature": -0.1}, ValueError, ["temperature=-0.1", "0 to 2"]),
        ({"temperature": 2.1}, ValueError, ["temperature=2.1", "0 to 2"]),
        ({"temperature": float("nan")}, ValueError, ["temperature=nan", "0 to 2"]),
        ({"temperature": float("inf")}, ValueError, ["temperature=inf", "0 to 2"]),
        ({"temperature": "0.7"}, TypeError, ["temperature='0.7'", "number from 0 to 2"]),
        ({"temperature": True}, TypeError, ["temperature=True", "number"]),
        ({"top_p": 1.5}, ValueError, ["top_p=1.5", "0 to 1"]),
        ({"top_p": float("nan")}, ValueError, ["top_p=nan"]),
        ({"max_tokens": 0}, ValueError, ["max_tokens=0", "1 or more", "leave it out"]),
        ({"max_tokens": -1}, ValueError, ["max_tokens=-1", "1 or more"]),
        ({"max_tokens": 1.5}, TypeError, ["max_tokens=1.5", "whole number"]),
        ({"max_tokens": "5"}, TypeError, ["max_tokens='5'", "whole number"]),
        ({"max_tokens": True}, TypeError, ["max_tokens=True", "whole number"]),
        ({"max_completion_tokens": 0}, ValueError, ["max_completion_tokens=0"]),
        ({"n": 0}, ValueError, ["n=0", "1 or more"]),
        ({"n": 2.0}, TypeError, ["n=2.0", "whole number"]),
        ({"max_token": 5}, TypeError, ["unknown parameter 'max_token'", "extra_body"]),
        ({"max_token": None}, TypeError, ["unknown parameter 'max_token'"]),
        ({"b": 1, "a": 1}, TypeError, ["'a', 'b'"]),
        ({"extra_body": "top_k"}, TypeError, ["extra_body", "mapping", "str"]),
        ({"extra_body": [("top_k", 5)]}, TypeError, ["extra_body", "mapping", "list"]),
        ({"user": object()}, TypeError, ["sent as JSON", "object"]),
        ({"metadata": {"a": object()}}, TypeError, ["sent as JSON", "object"]),
        ({"metadata": {("a",): 1}}, TypeError, ["sent as JSON"]),
        ({"messages": [{"role": "user", "content": "a\ud83d"}]}, ValueError, ["surrogate", "1"]),
        ({"messages": "\ude00"}, ValueError, ["surrogate"]),
    ],
    ids=lambda value: ", ".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_a_bad_parameter_is_refused_with_value_limit_and_way_out(
    params: dict[str, Any], kind: type[Exception], words: list[str]
) -> None:
    with pytest.raises(kind) as caught:
        encode(**params)
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(TypeError, match="sent as JSON"):
        encode(stop=loop)


def test_a_missing_parameter_is_a_type_error_as_of_any_function() -> None:
    with pytest.raises(TypeError, match="model is missing"):
        encode_request({"messages": "Hi"}, stream=False)
    with pytest.raises(TypeError, match="messages is missing"):
        encode_request({"model": "m"}, stream=False)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(
    extra=st.dictionaries(st.text(max_size=8), json_values, max_size=4), text=st.text(min_size=1)
)
def test_whatever_is_sent_is_json_that_reads_back_the_same(
    extra: dict[str, Any], text: str
) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    expected = {"model": "m", "messages": [{"role": "user", "content": text}]} | extra
    assert sent(messages=text, extra_body=extra) == expected
