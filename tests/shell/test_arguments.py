"""What cannot work is refused when it is handed in, by an error that says what to write."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fluence_async import (
    Budget,
    FluenceSession,
    Limiter,
    Price,
    RateLimit,
    RetryPolicy,
    Timeout,
    tool,
)
from fluence_async.cache import MemoryCache, SqliteCache
from fluence_async.hooks import Fact
from fluence_async.ledger import Ledger
from fluence_async.limits import SharedLimits
from fluence_async.usage import open_ledger
from tests.shell.scripted import ScriptedTransport
from tests.shell.test_exchange import GOOD
from tests.virtual import anyio_backend as anyio_backend

KEY = "sk-sentinel-0123456789"
HI: dict[str, Any] = {"model": "m", "messages": "hi"}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FLUENCE_API_KEY", "FLUENCE_BASE_URL", "FLUENCE_LIMITER", "FLUENCE_LOG"):
        monkeypatch.delenv(name, raising=False)


def session(played: ScriptedTransport | None = None, **options: Any) -> FluenceSession:
    played = played or ScriptedTransport(GOOD)
    return FluenceSession(
        **{"api_key": KEY, "limiter": None, "transport": lambda: played, **options}
    )


async def later(fact: Fact) -> None:
    """A hook that would have to be awaited."""


async def never(prefix: str, fact: Fact) -> None:
    """The same, of a partial."""


class Later:
    async def __call__(self, fact: Fact) -> None:
        """The same, of an object."""


class Recipe(msgspec.Struct):
    title: str


@tool
def get_weather(city: str) -> str:
    return city


# ─── settings ─────────────────────────────────────────────────────────────────────────────

SETTINGS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"limits": ["100/minute", "10 token/minute"]}, ValueError, "'token' .did you mean tokens"),
    ({"limits": ["100/minute", "10 reqs/minute"]}, ValueError, "'reqs'.*'100/minute' counts req"),
    ({"limits": ["100/minute", "10 request/minute"]}, ValueError, "did you mean requests"),
    ({"limits": ["1/s", RateLimit("5 images/day")]}, ValueError, "'5 images/day'.*8 concurrent"),
    ({"limits": None}, TypeError, "limits=None.*limits=.'100/minute'.*limiter=None"),
    ({"limits": 50}, TypeError, "limits=50: must be a list"),
    ({"limits": [50]}, TypeError, "limits: 50 must be a text like '100/minute'"),
    ({"limits": [RateLimit]}, TypeError, "limits: <class .* or a RateLimit"),
    *(
        ({"limiter": limiter}, TypeError, "limiter=.*must be 'memory'.*Limiter..'100/minute'.")
        for limiter in (True, False, 5, Limiter, b"memory")
    ),
    ({"default_headers": {"Evil: 1": "x"}}, ValueError, "default_headers: .*'Evil: 1'.*letters"),
    ({"default_headers": {"X Y": "x"}}, ValueError, "'X Y'"),
    ({"default_headers": {"": "x"}}, ValueError, "header name ''"),
    ({"default_headers": {"Übel": "x"}}, ValueError, "'Übel'"),
    ({"default_headers": {"X": 5}}, TypeError, "'X'.*must be a str.*int"),
    ({"default_headers": {5: "x"}}, TypeError, "header 5"),
    ({"default_headers": [("a", "b")]}, TypeError, "default_headers must be a mapping.*list"),
    *(
        ({"default_headers": {"X": value}}, ValueError, "value of the header 'X'.*line breaks")
        for value in ("a\rb", "a\nb", "a\0b", "é")
    ),
    ({"default_headers": {"aUTHORIZATION": "x"}}, ValueError, "displace the key.*api_key="),
    ({"retry": 3}, TypeError, "retry=3: must be a RetryPolicy.*max_retries=3"),
    ({"retry": RetryPolicy}, TypeError, "retry=<class"),
    ({"retry": 0}, TypeError, "retry=0"),
    ({"max_connections": 0}, ValueError, "max_connections=0: must be 1 or more"),
    ({"max_connections": -1}, ValueError, "max_connections=-1"),
    ({"max_connections": "x"}, TypeError, "max_connections='x': must be a whole number"),
    ({"max_connections": True}, TypeError, "max_connections=True"),
    ({"base_url": 5}, TypeError, "base_url must be a str, as 'https://.*int"),
    ({"base_url": b"https://a.ai/v1"}, TypeError, "base_url must be a str.*bytes"),
    ({"base_url": ""}, ValueError, "base_url='' is empty.*FLUENCE_BASE_URL"),
    ({"base_url": "https://a.ai/v1/chat/completions"}, ValueError, "leave '/chat/completions' out"),
    ({"base_url": "https://a.ai/v1/chat/completions/"}, ValueError, "leave '/chat/completions'"),
    ({"prices": Price(prompt=1, completion=2)}, TypeError, "prices=Price.*prices=.'fluence-chat'"),
    ({"budget": 5}, TypeError, "budget=5: must be a text like '2M tokens/day'"),
    ({"budget": [5]}, ValueError, "a budget of 5, of what.*unit='tokens'"),
    ({"hooks": print}, TypeError, "hooks=<.*print.*must be a list"),
    ({"hooks": [1]}, TypeError, r"hooks\[0\]=1 cannot be called"),
    ({"hooks": "x"}, TypeError, "hooks='x': must be a list"),
    ({"hooks": None}, TypeError, "hooks=None"),
    ({"hooks": [print, Later]}, TypeError, r"hooks\[1\].*is a class.*hooks=\[Later\(\)\]"),
    *(
        ({"hooks": [print, hook]}, TypeError, r"hooks\[1\].*coroutine.*never awaited.*put_nowait")
        for hook in (later, Later(), Later().__call__, functools.partial(never, "p"))
    ),
    ({"ledger": 5}, TypeError, "ledger=5: must be a file's path"),
    ({"ledger": ""}, ValueError, "ledger='' is empty"),
    ({"allow_insecure": "x"}, TypeError, "allow_insecure='x': must be True or False"),
    ({"transport": 5}, TypeError, "transport=5"),
]


@pytest.mark.parametrize(
    ("options", "kind", "message"), SETTINGS, ids=[str(each[0])[:40] for each in SETTINGS]
)
def test_a_setting_is_refused_when_the_session_is_made(
    options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        session(**{"limiter": "memory", **options})
    assert type(caught.value) is kind
    assert KEY not in str(caught.value)


NAN = float("nan")
NUMBERS: list[tuple[Callable[[Any], object], str, str, tuple[Any, ...]]] = [
    (lambda n: RetryPolicy(base_s=n), "base_s", "0 or more seconds", (-1, math.inf, NAN)),
    (lambda n: RetryPolicy(budget_s=n), "budget_s", "0 or more seconds", (-1, math.inf, NAN)),
    (lambda n: RetryPolicy(max_retries=n), "max_retries", "0 .never. or more", (-1,)),
    (lambda n: Timeout(idle=n), "idle", "above 0 seconds; None", (0, -1, NAN)),
    (lambda n: tool(timeout=n)(len), "timeout", "above 0 seconds; None", (0, -1, NAN)),
    (lambda n: Limiter(reserve=n), "reserve", "0 or more, below 1", (-1, 1, NAN)),
    (lambda n: Limiter(unseen_s=n), "unseen_s", "0 or more, finite", (-1, math.inf, NAN)),
    (lambda n: Limiter().pause(n), "seconds", "0 or more, finite", (-1, math.inf, NAN)),
    (lambda n: MemoryCache(ttl_s=n), "ttl_s", "above 0 seconds, and finite", (0, math.inf, NAN)),
    (lambda n: MemoryCache(max_bytes=n), "max_bytes", "1 or more", (0, -1)),
]


@pytest.mark.parametrize(
    ("make", "name", "must", "number"),
    [(make, name, must, number) for make, name, must, numbers in NUMBERS for number in numbers],
)
def test_a_number_out_of_range_is_refused(
    make: Callable[[Any], object], name: str, must: str, number: Any
) -> None:
    with pytest.raises(ValueError, match=f"{name}={number}.*must be.*{must}"):
        make(number)


@pytest.mark.parametrize("wrong", ["5", b"5", True, [5], object])
@pytest.mark.parametrize(("make", "name"), [each[:2] for each in NUMBERS])
def test_what_is_no_number_is_refused(make: Callable[[Any], object], name: str, wrong: Any) -> None:
    with pytest.raises(TypeError, match=re.escape(f"{name}={wrong!r}") + ".*must be"):
        make(wrong)


@pytest.mark.parametrize("limiter", [None, "memory", "file"])
def test_a_limit_of_what_no_call_costs_is_refused_whoever_keeps_to_it(limiter: Any) -> None:
    with pytest.raises(ValueError, match="did you mean tokens"):
        session(limiter=limiter, limits=["100/minute", "10 token/minute"])


def test_who_looks_at_limits_is_told_the_same() -> None:
    with pytest.raises(ValueError, match="did you mean tokens"):
        SharedLimits(api_key=KEY, limits=["100/minute", "10 token/minute"], limiter="file")
    with pytest.raises(ValueError, match="base_url='' is empty"):
        SharedLimits(api_key=KEY, base_url="", limiter="file")


def test_a_limiter_of_ones_own_counts_what_it_likes() -> None:
    limiter = Limiter(["100/minute", "10 images/minute"])
    limiter.acquire_nowait(costs={"images": 3}).release()
    assert session(limiter=limiter).limiter is limiter


def test_what_works_is_let_through(tmp_path: Path) -> None:
    session(
        limiter="memory",
        limits=("100/minute", RateLimit("5000 tokens/minute"), "8 concurrent", "3/s for large"),
        default_headers={"X-Tenant": "acme", "!#$%&'*+-.^_`|~": "", "x": 'a b"c,d'},
        retry=RetryPolicy(max_retries=1),
        max_connections=1,
        budget=[Budget(5, "tokens"), Budget("9 tokens")],
        hooks=(print, [].append, functools.partial(print, 1)),
        ledger=tmp_path / "ledger",
        allow_insecure=True,
        base_url="http://example.com/v1/",
    )


@pytest.mark.parametrize("make", [SqliteCache, Ledger, open_ledger])
@pytest.mark.parametrize(("path", "kind"), [(5, TypeError), ("", ValueError), (b"x", TypeError)])
def test_what_is_no_path_is_refused(make: Any, path: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=f"(path|ledger)={path!r}"):
        make(path)


def test_an_empty_address_in_the_environment_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUENCE_BASE_URL", "")
    assert session().base_url == "https://api.fluence.ai/v1"


# ─── calls ────────────────────────────────────────────────────────────────────────────────

CALLS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"tools": [get_weather]}, TypeError, r"tools cannot.*tools=\[get_weather.definition\].*run_t"),
    ({"tools": get_weather}, TypeError, r"tools=\[get_weather.definition\]"),
    ({"tools": [print]}, TypeError, "tools cannot.*@tool"),
    ({"response_format": Recipe}, TypeError, r"response_format.*parse\(response_type=Recipe\)"),
    ({"metadata": {"a": object()}}, TypeError, "metadata cannot be sent as JSON"),
    ({"modle": "m"}, TypeError, "'modle' .did you mean model=.*extra_body"),
    ({"tempreature": 1}, TypeError, "did you mean temperature="),
    ({"timout": 1}, TypeError, "did you mean timeout="),
    ({"response_type": Recipe}, TypeError, r"parse\(response_type="),
    ({"guided_grammar": "x"}, TypeError, "unknown parameter 'guided_grammar'; .*extra_body"),
    ({"n": 0}, ValueError, "n=0: must be 1 or more; leave it out for one answer"),
    ({"max_tokens": 0}, ValueError, "leave it out for no limit"),
    ({"tags": ["a"]}, TypeError, r"tags=\['a'\]: must be a mapping"),
    ({"extra_headers": {"a:b": "x"}}, ValueError, "extra_headers.*'a:b'"),
    ({"extra_headers": {"authorization": "x"}}, ValueError, "extra_headers.*api_key="),
    ({"extra_headers": {"X": 5}}, TypeError, "extra_headers.*'X'"),
    ({"extra_headers": [("a", "b")]}, TypeError, "extra_headers must be a mapping"),
]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("params", "kind", "message"), CALLS, ids=[str(each[0])[:40] for each in CALLS]
)
async def test_a_call_is_refused_before_anything_is_sent(
    params: dict[str, Any], kind: type[Exception], message: str
) -> None:
    transport = ScriptedTransport(GOOD)
    async with session(transport) as fluence:
        for stream in (False, True):
            with pytest.raises(kind, match=message):
                await fluence.chat.completions.create(**{**HI, **params}, stream=stream)
    assert transport.requests == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timout": 5}, "'timout' .did you mean timeout=.*max_retries"),
        ({"tags": ["a"]}, "must be a mapping"),
        ({"extra_headers": "x"}, "extra_headers must be a mapping"),
    ],
)
def test_options_are_refused_when_they_are_set(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        session().with_options(**options)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"stream": True}, "unknown parameter 'stream': only create.*'async with'"),
        ({"tempreature": 1}, "did you mean temperature="),
        ({"timout": 1}, "did you mean timeout="),
    ],
)
def test_parse_and_run_tools_refuse_at_once_what_is_not_known(
    params: dict[str, Any], message: str
) -> None:
    completions: Any = session().chat.completions
    with pytest.raises(TypeError, match=message):
        completions.parse(**HI, **params, response_type=Recipe)
    with pytest.raises(TypeError, match=message):
        completions.run_tools(**HI, **params, tools=[get_weather])


@pytest.mark.parametrize("tools", [get_weather, 5, print])
def test_run_tools_takes_a_list(tools: Any) -> None:
    with pytest.raises(TypeError, match=r"must be a list of tools, as tools=\["):
        session().chat.completions.run_tools(**HI, tools=tools)


@pytest.mark.anyio
async def test_a_call_that_no_limit_of_tokens_ever_has_room_for_is_told_in_tokens() -> None:
    transport = ScriptedTransport(GOOD)
    async with session(transport, limiter=Limiter(["9/minute", "50 tokens/minute"])) as fluence:
        with pytest.raises(
            ValueError, match=r"may cost 1029 tokens.*5 of its messages.*1024"
        ) as no:
            await fluence.chat.completions.create(**HI)
    for words in ("'50 tokens/minute'", "more than 50", "lower max_tokens"):
        assert words in str(no.value)
    assert "costs" not in str(no.value)
    assert "lane" not in str(no.value)
    assert transport.requests == []
