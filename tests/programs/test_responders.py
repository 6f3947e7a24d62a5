"""The rules compute an answer from the request, and are honest about that."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluence_async.server import tokens
from fluence_async.server.chat import parse
from fluence_async.server.responders import arithmetic
from fluence_async.server.responders.rules import Rules
from fluence_async.server.turn import Turn
from fluence_async.testing import (
    Answer,
)


def answer(*said: str, **parameters: Any) -> Answer:
    """What the rules answer to a conversation, its turns by the user and by us in turn."""
    roles = ["user", "assistant"] * len(said)
    messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]
    body = {"model": "fluence-local", "messages": messages, **parameters}
    turn = Turn(parse(json.dumps(body).encode()), {})
    return asyncio.run(Rules().respond(turn))


def say(*said: str, **parameters: Any) -> str:
    return "".join(answer(*said, **parameters).texts)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("Hello, how are you?", "I'm doing well, thank you for asking! How can I help you today?"),
        ("Hi!", "Hello! How can I help you today?"),
        ("Thanks a lot", "You're welcome!"),
        ('Say "good morning"', "good morning"),
        ("Repeat after me: one two", "one two"),
        ("List three colours", "1. red\n2. orange\n3. yellow"),
        ("What are the seasons?", "1. spring\n2. summer\n3. autumn\n4. winter"),
        ("Count from 3 to five", "3\n4\n5"),
        ("What is 15% of 80?", "15 / 100 * 80 = 12"),
        ("2+2", "2 + 2 = 4"),
        ("what's (2+3)*4^2 - 1/3?", "(2 + 3) * 4^2 - 1 / 3 ≈ 79.66666667"),
        ("What is 17 divided by 4", "17 / 4 = 4.25"),
        ("1,000 plus 1", "1000 + 1 = 1001"),
        ("what is 10/0?", "10 / 0 is undefined: it divides by zero."),
        ("what is 9^9^9?", "9^9^9 is too large for me."),
        ("What is the square root of 16?", "sqrt 16 = 4"),
    ],
)
def test_a_rule_answers_what_it_is_for(asked: str, expected: str) -> None:
    assert say(asked) == expected


@pytest.mark.parametrize(
    "asked", ["Are you a language model?", "Who are you?", "Is this ChatGPT?", "Colourless green?"]
)
def test_it_says_that_it_is_no_language_model(asked: str) -> None:
    assert "no language model" in say(asked)


@pytest.mark.parametrize(
    "asked", ["What happened on 2024-05-06?", "Call 555-1234", "Who won in 2018-19?", "a-b/c"]
)
def test_not_every_number_is_a_sum(asked: str) -> None:
    assert arithmetic.find(asked) is None


def test_the_same_prompt_gets_the_same_answer_whatever_the_temperature() -> None:
    stories = {say("Tell me a story about a fox", temperature=t) for t in (None, 0, 0.7, 2)}
    assert len(stories) == 1
    assert len(stories.pop()) > 300
    assert say("Tell me a story about a fox") != say("Tell me a story about an owl")


def test_it_remembers_a_name() -> None:
    assert say("My name is Ada.", "Nice to meet you!", "What is my name?") == "Your name is Ada."
    assert say("What is my name?") == "You have not told me your name yet."


def test_a_summary_is_made_of_the_texts_own_sentences() -> None:
    text = (
        "The river rose in the night. Nobody in the village had seen the river so high. "
        "A dog barked. By morning the river had reached the village church."
    )
    one = say(f"Summarize in one sentence: {text}")
    assert one == "By morning the river had reached the village church."
    later = say(text, "I see.", "Please summarise that in 2 sentences")
    sentences = re.findall(r"[^.]+\.", later)
    assert len(sentences) == 2
    assert all(sentence.strip() in text for sentence in sentences)
    assert "after a colon" in say("Summarize, please")


@given(st.text())
def test_tokens_lose_nothing(text: str) -> None:
    assert "".join(tokens.split(text)) == text


def test_max_tokens_and_stop_cut_the_answer() -> None:
    cut = answer("Hello, how are you?", max_tokens=3)
    assert ("".join(cut.texts), cut.finish_reason) == ("I'm doing well", "length")
    whole = answer("Hello, how are you?", max_tokens=16)
    assert whole.finish_reason == "stop"
    assert answer("Hello, how are you?", max_completion_tokens=2).finish_reason == "length"
    stopped = answer("Hello, how are you?", stop=["well", "thank"], max_tokens=100)
    assert ("".join(stopped.texts), stopped.finish_reason) == ("I'm doing ", "stop")


def tool(name: str, description: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


WEATHER = tool("get_weather", "The weather in a city", city={"type": "string"})
ADD = tool("add", "Add two numbers", a={"type": "number"}, b={"type": "number"})


def called(asked: str, **parameters: Any) -> list[tuple[str, Any]]:
    calls = answer(asked, tools=[WEATHER, ADD], **parameters).calls
    return [(call.name, json.loads(call.arguments)) for call in calls]


def test_the_tool_that_fits_is_called_with_what_is_in_the_text() -> None:
    assert called("What's the weather in Oslo?") == [("get_weather", {"city": "Oslo"})]
    assert called("weather in oslo please") == [("get_weather", {"city": "oslo"})]
    assert called("Add 3 and 4.5") == [("add", {"a": 3, "b": 4.5})]
    assert called("Weather in Oslo and Rome?") == [
        ("get_weather", {"city": "Oslo"}),
        ("get_weather", {"city": "Rome"}),
    ]
    assert called("Weather in Oslo and Rome?", parallel_tool_calls=False) == [
        ("get_weather", {"city": "Oslo"})
    ]


def test_no_tool_is_called_without_need_and_one_is_when_it_must_be() -> None:
    assert called("Hello, how are you?") == []
    assert called("What's the weather in Oslo?", tool_choice="none") == []
    assert [name for name, _ in called("Hello!", tool_choice="required")] != []
    named = {"type": "function", "function": {"name": "add"}}
    assert called("weather in Oslo: 1 and 2", tool_choice=named) == [("add", {"a": 1, "b": 2})]


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        ("sunny, 18 °C", "get weather (city: Oslo): sunny, 18 °C."),
        ('{"sky": "clear", "t": 18.5}', "get weather (city: Oslo): sky: clear, t: 18.5."),
        ("[1, 2]", "get weather (city: Oslo): 1, 2."),
    ],
)
def test_a_tool_result_is_used(result: str, shown: str) -> None:
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
    }
    messages = [
        {"role": "user", "content": "What's the weather in Oslo?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": result},
    ]
    said = say(messages=messages, tools=[WEATHER])
    assert said == f"Here is what I found. {shown}"


@given(st.text(max_size=200))
def test_there_is_an_answer_to_any_text(text: str) -> None:
    assert say(messages=[{"role": "user", "content": text}]) is not None


def test_a_long_text_is_answered_quickly() -> None:
    for text in ("a " * 200_000, "1+" * 200_000, "(" * 400_000, "A B. " * 100_000, "x" * 400_000):
        before = time.monotonic()
        say(f"Summarize or compute: {text}")
        say(text, tools=[WEATHER], tool_choice="required")
        assert time.monotonic() - before < 20
