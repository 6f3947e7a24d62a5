"""What a model is told of a function, from its docstring."""

from __future__ import annotations

import pytest

from fluence_async._sansio.docstring import described

FULL = """Get the weather.

    It is the current one, in a city.

    Args:
        city: The city's name,
            such as Paris: any will do.
        unit (str): The unit.
        **more: Whatever else.

            In a second paragraph.

    Returns:
        city: not a parameter.
    """


@pytest.mark.parametrize(
    ("docstring", "about", "parameters"),
    [
        (None, "", {}),
        ("", "", {}),
        ("Get the weather.", "Get the weather.", {}),
        (
            FULL,
            "Get the weather.\n\nIt is the current one, in a city.",
            {
                "city": "The city's name, such as Paris: any will do.",
                "unit": "The unit.",
                "more": "Whatever else. In a second paragraph.",
            },
        ),
        ("Args:\n    a: A.", "", {"a": "A."}),
        ("One.\n\nParameters:\n  a:\n    Below.\n  b: B.", "One.", {"a": "Below.", "b": "B."}),
        ("One.\n\nReturns:\n    a: A.", "One.", {}),
        ("One.\n\nArgs: none to speak of.", "One.\n\nArgs: none to speak of.", {}),
        (
            "One.\n\nArgs:\n    a: A.\n    not an entry\n      nor this\n    b: B.",
            "One.",
            {"a": "A.", "b": "B."},
        ),
        ("One.\n\nArgs:\n\ta: A.\n\t\tmore", "One.", {"a": "A. more"}),
        ("One.\n\nArgs:\n", "One.", {}),
    ],
)
def test_a_docstring_says(docstring: str | None, about: str, parameters: dict[str, str]) -> None:
    assert described(docstring) == (about, parameters)
