"""Members of a JSON text, each once, as soon as it is closed, however the text is cut."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluence_async._sansio.partial_json import Member, MemberReader


def read(pieces: Iterable[str], opening: str = "{") -> list[Member]:
    reader = MemberReader(opening)
    return [member for piece in pieces for member in reader.feed(piece)]


def values(members: Sequence[Member]) -> list[tuple[Any, Any]]:
    return [(json.loads(name) if name else None, json.loads(value)) for name, value in members]


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("{}", []),
        ('{"a":1}', [('"a"', "1")]),
        ('  {\n "a" : 1 ,\t"b":[ ]}  ', [('"a"', "1"), ('"b"', "[ ]")]),
        ('{"a":-1.5e3,"b":true,"c":null}', [('"a"', "-1.5e3"), ('"b"', "true"), ('"c"', "null")]),
        ('{"a":"}],{\\"","b":2}', [('"a"', '"}],{\\""'), ('"b"', "2")]),
        (
            '{"a\\"b":{"c":"]}","d":[{"e":"\\\\"}]},"f":0}',
            [('"a\\"b"', '{"c":"]}","d":[{"e":"\\\\"}]}'), ('"f"', "0")],
        ),
        ('{"a":[[1],["]"],[]],"b":{}}', [('"a"', '[[1],["]"],[]]'), ('"b"', "{}")]),
        ('{"a":"\\ud83d\\ude00é😀"}', [('"a"', '"\\ud83d\\ude00é😀"')]),
        ('{"":""}', [('""', '""')]),
        ('{"a":1,"a":2}', [('"a"', "1"), ('"a"', "2")]),
        # nothing after the end, and nothing of what is no object
        ('{"a":1} {"b":2}', [('"a"', "1")]),
        ("[1,2]", []),
        ('"text"', []),
        ("```json\n{}", []),
        ("", []),
        # nothing that is not closed
        ('{"a":1', []),
        ('{"a":"x', []),
        ('{"a":[1', []),
        ('{"a"', []),
        # what is no JSON ends it; what was closed before stands
        ('{"a":1,b:2}', [('"a"', "1")]),
        ('{"a":1,"b":,"c":3}', [('"a"', "1")]),
    ],
)
def test_what_is_found_in_a_text_however_it_is_cut(text: str, members: list[Member]) -> None:
    assert read([text]) == members
    for size in (1, 2, 3, 5):
        assert read(text[i : i + size] for i in range(0, len(text), size)) == members
    for cut in range(len(text)):
        assert read([text[:cut], "", text[cut:]]) == members


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"value":[1,"a]",{"b":[2]},[ ]]}', ["1", '"a]"', '{"b":[2]}', "[ ]"]),
        (' { "value" : [ ] }', []),
        ('{"value":[1,2', ["1"]),
        ('{"other":[1]}', []),
        ("[1]", []),
    ],
)
def test_the_items_of_an_array_inside(text: str, found: list[str]) -> None:
    expected = [("", item) for item in found]
    assert read([text], '{"value":[') == expected
    assert read(text, '{"value":[') == expected


@pytest.mark.parametrize(
    ("pieces", "at"),
    [
        (['{"a":"x', '"', "}"], 1),
        (['{"a":[1', "]", "}"], 1),
        (['{"a":{"b":{}', "}", "}"], 1),
        (['{"a":1', "2", ","], 2),
        (['{"a":tru', "e", " "], 2),
        (['{"a":"x\\', '"', '"'], 2),
        (['{"a":["\\', '"]', '"', "]"], 3),
    ],
)
def test_a_member_is_found_in_the_piece_that_closes_it(pieces: list[str], at: int) -> None:
    reader = MemberReader()
    assert [bool(reader.feed(piece)) for piece in pieces].index(True) == at


def cut(text: str, cuts: Sequence[int]) -> list[str]:
    places = sorted({0, len(text), *(place % (len(text) + 1) for place in cuts)})
    return [text[start:end] for start, end in pairwise(places)]


@pytest.mark.parametrize("inside", ["]", "[", "]]", "}"])
def test_a_long_piece_may_end_in_a_string_that_holds_brackets(inside: str) -> None:
    value = {"a": [[0], [1], *["word"] * 20, f"{inside} and {inside}"], "b": 1}
    text = json.dumps(value)
    at = text.index(" and ")
    for second in range(at - 1, at + 5):
        assert values(read([text[:10], text[10:second], text[second:]])) == list(value.items())


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1000, 1000)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet='ab"\\{}[],: \n\té😀', max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text('a"\\]}', max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(
    value=st.dictionaries(st.text('ab"\\{ ', max_size=4), json_values, max_size=5),
    cuts=st.lists(st.integers(0, 300), max_size=12),
    indent=st.none() | st.just(1),
    escaped=st.booleans(),
)
def test_any_cutting_finds_every_member_once_and_in_order(
    value: dict[str, Any], cuts: list[int], indent: int | None, escaped: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=escaped)
    assert values(read(cut(text, cuts))) == list(value.items())
    text = json.dumps({"value": [*value.values()]}, indent=indent, ensure_ascii=escaped)
    found = values(read(cut(text, cuts), '{"value":['))
    assert [item for _, item in found] == [*value.values()]


@given(
    items=st.lists(json_values, min_size=1, max_size=30),
    cuts=st.lists(st.integers(0, 10_000), max_size=4),
)
def test_long_pieces_are_skimmed_to_the_same_end(items: list[Any], cuts: list[int]) -> None:
    value = {"items": [items * 3, {"deeper": items}], "after": {"items": items}, "end": 1}
    text = json.dumps(value, ensure_ascii=False)
    assert values(read(cut(text, cuts))) == list(value.items())


@given(st.lists(st.text('"\\{}[],:ab1 ', max_size=6), max_size=10))
def test_no_text_makes_it_fail_and_cutting_changes_nothing(pieces: list[str]) -> None:
    assert read(pieces) == read(["".join(pieces)]) == read("".join(pieces))


def seconds_for(text: str) -> float:
    pieces = [text[i : i + 4] for i in range(0, len(text), 4)]
    times = []
    for _ in range(3):
        began = time.process_time()
        read(pieces)
        times.append(time.process_time() - began)
    return min(times)


@pytest.mark.parametrize(
    "make",
    [
        lambda n: '{"a":"' + "word " * n + '"}',
        lambda n: '{"a":"' + "\\n\\\\" * n + '"}',
        lambda n: '{"' + "a" * 5 * n + '":1}',
        lambda n: '{"a":' + "1" * 5 * n + "}",
        lambda n: '{"a":[' + "[1]," * n + "1]}",
        lambda n: '{"a":["' + "[ ]] " * n + '"]}',
        lambda n: '{"a":' + "[" * 3 * n + "]" * 3 * n + "}",
        lambda n: '{"a":[' + ('[["]"],' + " " * 80) * (n // 10) + "]}",
        lambda n: '{"a":[' + ",".join(['{"b":"c","d":[1,2]}'] * (n // 4)) + "]}",
        lambda n: "{" + ",".join(f'"k{i}":{i}' for i in range(n // 2)) + "}",
        lambda n: " " * 5 * n + "{}",
        lambda n: "{" + " ," * 2 * n + "}",
        lambda n: '{"a"' + " :" * 2 * n + "1}",
        lambda n: '{"a":' + "\\" * 5 * n + "}",
    ],
)
def test_reading_takes_linear_time(make: Any) -> None:
    few, many = seconds_for(make(1_000)), seconds_for(make(10_000))
    assert many < 30 * few + 0.05
