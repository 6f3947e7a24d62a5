"""The nouns: they read what the API documents, and their shortcuts never raise."""

from __future__ import annotations

import copy
import pickle
import re
import typing
from typing import Any

import msgspec
import pytest

from fluence_async import types
from fluence_async.meta import Meta
from fluence_async.types import (
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChunkChoice,
    ContentPart,
    Delta,
    FunctionCall,
    FunctionDefinition,
    ImageURL,
    InputAudio,
    JSONSchema,
    Message,
    ResponseFormat,
    StreamOptions,
    Tool,
    ToolCall,
    ToolCallDelta,
    Usage,
)

DOCUMENTED = b"""{
"id": "chatcmpl-123",
"object": "chat.completion",
"created": 1677652288,
"model": "fluence-chat",
"choices": [
{
"index": 0,
"message": {
"role": "assistant",
"content": "I'm doing well, thank you for asking! How can I help you today?"
},
"finish_reason": "stop"
}
],
"usage": {
"prompt_tokens": 9,
"completion_tokens": 12,
"total_tokens": 21
}
}"""


def test_the_documentations_example_decodes() -> None:
    answer = msgspec.json.decode(DOCUMENTED, type=ChatCompletion)
    assert answer == ChatCompletion(
        id="chatcmpl-123",
        created=1677652288,
        model="fluence-chat",
        choices=[Choice(message=answer.message, finish_reason="stop")],
        usage=Usage(prompt_tokens=9, completion_tokens=12, total_tokens=21),
    )
    assert answer.object == "chat.completion"
    assert answer.text == "I'm doing well, thank you for asking! How can I help you today?"
    assert answer.message == Message(role="assistant", content=answer.text)
    assert answer.finish_reason == "stop"
    assert answer.tool_calls == []


# ─── shortcuts ────────────────────────────────────────────────────────────────────────────

PARTS = [
    ContentPart(type="text", text="two "),
    ContentPart(type="image_url", image_url=ImageURL(url="data:,")),
    ContentPart(type="text", text="parts"),
]
CALL = ToolCall(id="c", function=FunctionCall(name="f", arguments="{}"))


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (Message(), ""),
        (Message(content=None), ""),
        (Message(content=""), ""),
        (Message(content="one"), "one"),
        (Message(content=[]), ""),
        (Message(content=PARTS), "two parts"),
    ],
)
def test_a_messages_text_is_its_text_parts(message: Message, text: str) -> None:
    assert message.text == text
    assert ChatCompletion(choices=[Choice(message=message)]).text == text


@pytest.mark.parametrize(
    ("completion", "finish_reason", "tool_calls"),
    [
        (ChatCompletion(), None, []),
        (ChatCompletion(choices=[Choice()]), None, []),
        (ChatCompletion(choices=[Choice(finish_reason="eos")]), "eos", []),
        (ChatCompletion(choices=[Choice(message=Message(tool_calls=[CALL]))]), None, [CALL]),
        (
            ChatCompletion(choices=[Choice(finish_reason="a"), Choice(index=1, finish_reason="b")]),
            "a",
            [],
        ),
    ],
)
def test_a_completions_shortcuts_read_the_first_choice_and_never_raise(
    completion: ChatCompletion, finish_reason: str | None, tool_calls: list[ToolCall]
) -> None:
    assert completion.text == ""
    assert completion.finish_reason == finish_reason
    assert completion.tool_calls == tool_calls
    assert completion.raw is None
    assert completion.message.text == ""


def test_the_message_of_an_answer_without_choices_is_an_empty_one_of_the_assistant() -> None:
    assert ChatCompletion().message == Message(role="assistant")
    assert Choice().message == Message(role="assistant")


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        ([], ""),
        ([ChunkChoice()], ""),
        ([ChunkChoice(delta=Delta())], ""),
        ([ChunkChoice(delta=Delta(content=""))], ""),
        ([ChunkChoice(delta=Delta(content="a"))], "a"),
        ([ChunkChoice(index=1, delta=Delta(content="b"))], ""),
        (
            [ChunkChoice(index=1, delta=Delta(content="b")), ChunkChoice(delta=Delta(content="a"))],
            "a",
        ),
        ([ChunkChoice(), ChunkChoice(delta=Delta(content="a"))], "a"),
    ],
)
def test_a_chunks_text_is_what_the_first_choice_gains(
    choices: list[ChunkChoice], text: str
) -> None:
    chunk = ChatCompletionChunk(choices=choices)
    assert chunk.text == text
    assert chunk.raw is None


def test_every_completion_has_its_own_meta() -> None:
    one, other = ChatCompletion(), ChatCompletion()
    one.meta.attempts = 3
    assert one.meta is one.meta
    assert one.meta == Meta(attempts=3)
    one.__dict__["meta"] = Meta(attempts=4)  # as a session does
    assert one.meta == Meta(attempts=4)
    assert other.meta == Meta()


def test_no_two_nouns_share_a_list() -> None:
    one, other = ChatCompletion(), ChatCompletion()
    one.choices.append(Choice())
    assert other.choices == []
    assert ChatCompletionChunk().choices is not ChatCompletionChunk().choices
    assert Choice().message is not Choice().message
    assert ToolCall().function is not ToolCall().function


@pytest.mark.parametrize(
    "duplicate", [lambda answer: pickle.loads(pickle.dumps(answer)), copy.deepcopy]
)
def test_an_answer_keeps_its_meta_and_raw_in_pickles(duplicate: Any) -> None:
    answer = msgspec.json.decode(DOCUMENTED, type=ChatCompletion)
    answer.meta.request_id = "req-1"
    answer.__dict__["raw"] = {"id": "chatcmpl-123", "x_new": 1}
    other = duplicate(answer)
    assert other == answer
    assert type(other) is ChatCompletion
    assert other.meta == Meta(request_id="req-1")
    assert other.meta is not answer.meta
    assert other.raw == {"id": "chatcmpl-123", "x_new": 1}


def test_a_chunk_pickles() -> None:
    chunk = ChatCompletionChunk(id="c", choices=[ChunkChoice(delta=Delta(content="a"))])
    assert pickle.loads(pickle.dumps(chunk)) == chunk


# ─── what is sent ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("noun", "encoded"),
    [
        (Message(), b"{}"),
        (Message(role="user", content="Hi"), b'{"role":"user","content":"Hi"}'),
        (Message(role="user", content=""), b'{"role":"user","content":""}'),
        (
            Message(tool_calls=[ToolCall(id="c")]),
            b'{"tool_calls":[{"id":"c","type":"function","function":{"name":"","arguments":""}}]}',
        ),
        (
            Message(role="user", content=[ContentPart(type="text", text="Hi")]),
            b'{"role":"user","content":[{"type":"text","text":"Hi"}]}',
        ),
        (
            ContentPart(type="input_audio", input_audio=InputAudio(data="AA==", format="wav")),
            b'{"type":"input_audio","input_audio":{"data":"AA==","format":"wav"}}',
        ),
        (
            Tool(function=FunctionDefinition(name="f", strict=False)),
            b'{"function":{"name":"f","strict":false},"type":"function"}',
        ),
        (ResponseFormat(type="json_object"), b'{"type":"json_object"}'),
        (JSONSchema(name="s", schema={}), b'{"name":"s","schema":{}}'),
        (StreamOptions(include_usage=True), b'{"include_usage":true}'),
        (Usage(), b"{}"),
        (ChatCompletion(), b"{}"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_defaults_are_left_out_except_where_the_api_needs_them(noun: Any, encoded: bytes) -> None:
    assert msgspec.json.encode(noun) == encoded
    assert msgspec.json.decode(encoded, type=type(noun)) == noun


def test_neither_meta_nor_raw_is_ever_sent() -> None:
    answer = ChatCompletion(id="a")
    answer.meta.request_id = "req"
    answer.__dict__["raw"] = {"id": "a"}
    assert msgspec.json.encode(answer) == b'{"id":"a"}'


# ─── as a whole ───────────────────────────────────────────────────────────────────────────

STRUCTS = [
    noun
    for name in types.__all__
    if isinstance(noun := getattr(types, name), type) and issubclass(noun, msgspec.Struct)
]


@pytest.mark.parametrize("noun", STRUCTS)
def test_unknown_fields_never_break_decoding(noun: type[msgspec.Struct]) -> None:
    required = {
        name: "x" if name != "function" else {"name": "f"}
        for name in noun.__struct_fields__
        if name in ("url", "data", "format", "type", "name", "function")
    }
    if noun is ToolCallDelta:
        required.pop("function")
    encoded = msgspec.json.encode(required | {"x_new": {"a": [1, None, {}]}, "x_other": None})
    decoded = msgspec.json.decode(encoded, type=noun)
    assert isinstance(decoded, noun)


@pytest.mark.parametrize("noun", STRUCTS)
def test_a_repr_names_the_class_and_its_fields(noun: type[msgspec.Struct]) -> None:
    values: dict[str, Any] = {
        "url": "u",
        "data": "d",
        "format": "wav",
        "type": "text",
        "name": "n",
        "function": FunctionDefinition(name="f"),
    }
    needed = {
        field.name: values[field.name] for field in msgspec.structs.fields(noun) if field.required
    }
    text = repr(noun(**needed))
    assert re.match(rf"{noun.__name__}\(.*=", text)
    for name in noun.__struct_fields__:
        assert f"{name}=" in text


def test_the_roles_are_those_of_the_wire() -> None:
    assert typing.get_args(types.Role) == (
        "system",
        "developer",
        "user",
        "assistant",
        "tool",
        "function",
    )


@pytest.mark.parametrize("noun", STRUCTS)
def test_fields_are_given_by_name_only(noun: type[msgspec.Struct]) -> None:
    with pytest.raises(TypeError, match="positional"):
        noun("x")


def test_what_is_not_said_is_the_first_choice_at_no_time() -> None:
    assert (Choice().index, ChunkChoice().index) == (0, 0)
    assert (ChatCompletion().created, ChatCompletionChunk().created) == (0, 0)
    assert Usage() == Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0)
