"""The error tree: drawn as it is, picklable, and pinned to the API's statuses."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest

from fluence_async import errors
from fluence_async.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    BudgetExceededError,
    FluenceError,
    LimitWaitError,
    ParseError,
    QuotaExceededError,
    ResponseError,
    StreamError,
    StreamServerError,
    StreamTimeoutError,
    ToolError,
    TurnLimitError,
)
from fluence_async.meta import Attempt, Meta
from fluence_async.types import ChatCompletion, Choice, Message, Usage

CLASSES = [
    item
    for item in vars(errors).values()
    if inspect.isclass(item) and issubclass(item, FluenceError)
]

META = Meta(request_id="req-1", attempts=3, failures=[Attempt(error="E", message="m", wait_s=0.5)])
PARTIAL = ChatCompletion(
    id="c",
    choices=[Choice(message=Message(role="assistant", content="Hel"))],
    usage=Usage(total_tokens=7),
)
ARGUMENTS: dict[type[FluenceError], dict[str, Any]] = {
    APIConnectionError: {"permanent": True},
    APITimeoutError: {"clock": "first_byte"},
    APIStatusError: {
        "status_code": 418,
        "code": "teapot",
        "param": "model",
        "body": "{}",
        "retry_after": 1.5,
    },
    StreamError: {"partial": PARTIAL},
    StreamTimeoutError: {"clock": "idle", "partial": PARTIAL},
    StreamServerError: {
        "status_code": 500,
        "code": "server_error",
        "param": "n",
        "retry_after": 2.0,
        "partial": PARTIAL,
    },
    ResponseError: {"status_code": 302, "body": "<html>"},
    LimitWaitError: {"wait_s": 60.0, "retry_at": 1e9},
    BudgetExceededError: {
        "budget": "500 tokens/day",
        "limit": 500,
        "spent": 300,
        "reserved": 100,
        "amount": 150,
        "retry_at": 1e9,
    },
    ParseError: {"reason": "length", "completion": PARTIAL},
    TurnLimitError: {"messages": [Message(role="user", content="hi")]},
}


def make(kind: type[FluenceError], message: str = "what, and the way out") -> FluenceError:
    """An error of `kind` with everything set that it can hold."""
    arguments = next((ARGUMENTS[base] for base in kind.__mro__ if base in ARGUMENTS), {})
    return kind(message, **arguments, meta=META)


# ─── the tree ─────────────────────────────────────────────────────────────────────────────


def drawn_tree(drawing: str) -> list[tuple[str, str | None, str]]:
    """Each class of the drawing, its parent, and what stands beside it."""
    found: list[tuple[str, str | None, str]] = []
    above: list[str] = []
    for line in drawing.strip().splitlines():
        match = re.fullmatch(r"((?:│   |    )*)(├── |└── )?(\w+)\s*(.*)", line)
        assert match, line
        depth = len(match[1]) // 4 + bool(match[2])
        del above[depth:]
        found.append((match[3], above[-1] if above else None, match[4]))
        above.append(match[3])
    return found


assert errors.__doc__ is not None
DRAWN = drawn_tree(errors.__doc__.split("```")[1])


def test_the_drawing_is_the_tree() -> None:
    real = {
        (kind.__name__, None if kind is FluenceError else kind.__base__.__name__)
        for kind in CLASSES
        if kind.__base__ is not None
    }
    assert {(name, parent) for name, parent, _ in DRAWN} == real
    assert len(DRAWN) == len(real)


def test_the_statuses_and_codes_drawn_are_those_that_lead_to_the_class() -> None:
    checked = 0
    for name, _, beside in DRAWN:
        match = re.match(r"(\d{3})( and above)?(?:\s+(\w+))?", beside)
        if match is None:
            continue
        kind = getattr(errors, name)
        assert APIStatusError.for_status(int(match[1]), match[3]) is kind
        assert match[1] in kind.__doc__
        checked += 1
    assert checked == 9


def test_everything_is_exported() -> None:
    assert {kind.__name__ for kind in CLASSES} | {"Clock", "ParseReason"} == set(errors.__all__)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_has_one_parent_and_is_documented(kind: type[FluenceError]) -> None:
    assert len(kind.__bases__) == 1
    assert kind.__doc__
    assert kind.__module__ == "fluence_async.errors"


# ─── status → class ───────────────────────────────────────────────────────────────────────

PINNED = {
    400: errors.BadRequestError,
    401: errors.AuthenticationError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    409: errors.ConflictError,
    422: errors.UnprocessableEntityError,
    429: errors.RateLimitError,
}


@pytest.mark.parametrize("status", range(400, 600))
def test_each_status_has_its_class(status: int) -> None:
    expected = PINNED.get(status, errors.InternalServerError if status >= 500 else APIStatusError)
    assert APIStatusError.for_status(status, None) is expected
    assert APIStatusError.for_status(status, "whatever") is expected


def test_a_spent_quota_is_told_from_a_rate_limit_by_its_code() -> None:
    assert APIStatusError.for_status(429, "insufficient_quota") is QuotaExceededError
    assert APIStatusError.for_status(429, "rate_limit_exceeded") is errors.RateLimitError
    assert APIStatusError.for_status(400, "insufficient_quota") is errors.BadRequestError


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (429, "rate_limit_exceeded", errors.RateLimitError),
        (429, "insufficient_quota", QuotaExceededError),
        (401, None, errors.AuthenticationError),
        (503, None, errors.InternalServerError),
        (None, None, errors.InternalServerError),
    ],
)
def test_an_error_event_knows_its_class_as_a_response(
    status: int | None, code: str | None, kind: type[APIStatusError]
) -> None:
    assert StreamServerError("no", status_code=status, code=code).error_class is kind


# ─── plain data ───────────────────────────────────────────────────────────────────────────


def as_data(error: BaseException) -> dict[str, Any]:
    return {**vars(error), "args": error.args, "kind": type(error)}


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize(
    "duplicate",
    [
        *(
            lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol))
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        ),
        copy.copy,
        copy.deepcopy,
    ],
)
def test_every_error_comes_whole_out_of_a_pickle_and_a_copy(
    kind: type[FluenceError], duplicate: Callable[[FluenceError], FluenceError]
) -> None:
    error = make(kind)
    error.add_note("seen in a worker")
    other = duplicate(error)
    assert as_data(other) == as_data(error)
    assert str(other) == str(error)
    assert repr(other) == repr(error)
    assert other.__notes__ == ["seen in a worker"]
    if isinstance(other, StreamError):
        assert other.usage == Usage(total_tokens=7)


@pytest.mark.parametrize("kind", CLASSES)
def test_an_errors_text_is_its_message(kind: type[FluenceError]) -> None:
    error = make(kind, "temperature=3: must be from 0 to 2")
    assert str(error) == error.message == "temperature=3: must be from 0 to 2"
    assert repr(error) == f"{kind.__name__}('temperature=3: must be from 0 to 2')"


@pytest.mark.parametrize("kind", CLASSES)
def test_every_documented_attribute_is_there(kind: type[FluenceError]) -> None:
    error = make(kind)
    for base in kind.__mro__:
        documented = re.findall(r"^        (\w+): ", inspect.getdoc(base) or "", re.MULTILINE)
        documented += re.findall(r"^    (\w+): ", inspect.getdoc(base) or "", re.MULTILINE)
        if issubclass(base, FluenceError):
            assert [name for name in documented if not hasattr(error, name)] == []


@pytest.mark.parametrize("kind", CLASSES)
def test_what_is_not_known_is_none(kind: type[FluenceError]) -> None:
    needed: dict[str, Any] = {
        "clock": "idle",
        "status_code": 400,
        "wait_s": 1.0,
        "retry_at": 2.0,
        "reason": "invalid",
        "completion": PARTIAL,
    }
    parameters = inspect.signature(kind).parameters.values()
    error = kind(
        "no",
        **{
            p.name: needed[p.name]
            for p in parameters
            if p.kind is p.KEYWORD_ONLY and p.default is p.empty
        },
    )
    assert error.meta is None
    if isinstance(error, StreamError):
        assert (error.partial, error.usage) == (None, None)
    for name in ("code", "param", "retry_after"):
        assert getattr(error, name, None) is None
    assert getattr(error, "body", "") == ""
    assert getattr(error, "permanent", False) is False


def test_a_tool_error_keeps_its_cause_while_it_is_not_pickled() -> None:
    with pytest.raises(ToolError) as caught:
        raise ToolError("the tool 'now' raised") from KeyError("zone")
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_error_is_no_misuse() -> None:
    """Misuse raises ValueError, TypeError or RuntimeError, so the tree must not overlap them."""
    for kind in CLASSES:
        assert not issubclass(kind, (ValueError, TypeError, RuntimeError, OSError))
