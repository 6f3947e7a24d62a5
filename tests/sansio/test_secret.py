"""The key goes into a header, and into no text."""

from __future__ import annotations

import base64
import copy
import json
import pickle
import pprint
import traceback
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fluence_async._sansio.secret import ApiKey, RedactedHeader

SENTINEL = "sk-SENTINEL-0123456789abcdef"
KEY = ApiKey(SENTINEL)

keys = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=4, max_size=60)
texts = st.text(max_size=60)


# ─── what is shown ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        ascii,
        format,
        pprint.pformat,
        "{}".format,
        "{!r}".format,
        "%s".__mod__,
        lambda key: repr([key]),
        lambda key: repr({"key": key}),
        lambda key: str({"key": (key,)}),
    ],
)
def test_no_way_to_print_a_key_shows_it(show: Callable[[Any], str]) -> None:
    assert show(KEY).find("SENTINEL") == -1
    assert "***" in show(KEY)


@pytest.mark.parametrize(
    "show",
    [
        repr,
        ascii,
        pprint.pformat,
        "{!r}".format,
        "%r".__mod__,
        lambda header: repr({"authorization": header}),
        lambda header: "{}".format({"authorization": header}),
        lambda header: "%s" % {"authorization": header},  # noqa: UP031  # as logging does
        lambda header: str(ValueError({"authorization": header})),
        lambda header: str((("authorization", header),)),
    ],
)
def test_no_repr_that_holds_the_header_shows_it(show: Callable[[Any], str]) -> None:
    assert "SENTINEL" not in show(KEY.authorization)
    assert "SENTINEL" not in show(KEY.reveal())


def test_a_key_says_what_it_is() -> None:
    assert repr(KEY) == str(KEY) == "ApiKey('***')"


def test_the_header_goes_out_as_it_is() -> None:
    assert KEY.authorization == f"Bearer {SENTINEL}"
    assert KEY.authorization.encode() == f"Bearer {SENTINEL}".encode()
    assert isinstance(KEY.authorization, RedactedHeader)
    assert KEY.reveal() == SENTINEL


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("secret", [KEY, KEY.authorization, KEY.reveal()])
def test_neither_key_nor_header_can_be_pickled(secret: object, protocol: int) -> None:
    with pytest.raises(TypeError, match="cannot be pickled") as caught:
        pickle.dumps({"a": [secret]}, protocol)
    assert "SENTINEL" not in str(caught.value)


@pytest.mark.parametrize("secret", [KEY, KEY.authorization])
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_neither_key_nor_header_can_be_copied(
    secret: object, duplicate: Callable[[object], object]
) -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        duplicate(secret)


def test_a_key_has_no_dict_that_a_debugger_would_print() -> None:
    assert not hasattr(KEY, "__dict__")
    assert not hasattr(KEY.authorization, "__dict__")


# ─── what a key may be ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "empty: pass the key itself, or set FLUENCE_API_KEY"),
        (SENTINEL + "\n", r"a space or line break at position 28 \(U\+000A\).*strip"),
        (" " + SENTINEL, r"a space or line break at position 0 \(U\+0020\)"),
        (SENTINEL + "\r\nx-evil: 1", r"position 28 \(U\+000D\)"),
        (SENTINEL + "\0", r"a character at position 28 \(U\+0000\)"),
        (SENTINEL + "\x7f", r"U\+007F"),
        (SENTINEL + "é", r"U\+00E9"),
        (SENTINEL + "\ud83d", r"U\+D83D"),
    ],
)
def test_a_key_that_no_header_may_hold_is_refused_unseen(value: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        ApiKey(value)
    assert "SENTINEL" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("value", [None, b"sk-SENTINEL", 5])
def test_a_key_that_is_no_text_is_refused_unseen(value: Any) -> None:
    with pytest.raises(TypeError, match="api_key must be a str") as caught:
        ApiKey(value)
    assert "SENTINEL" not in str(caught.value)


# ─── scrubbing ────────────────────────────────────────────────────────────────────────────


def as_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def as_url_safe_base64(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


AWKWARD = 'sk/"+\\&<>~=%$-0123456789abcdef?'


@pytest.mark.parametrize("value", [SENTINEL, AWKWARD])
@pytest.mark.parametrize(
    "write",
    [
        str,
        lambda key: quote(key, safe=""),
        lambda key: quote(key, safe="").replace("%2F", "%2f").replace("%2B", "%2b"),
        quote,
        json.dumps,
        lambda key: json.dumps(key).replace("/", "\\/"),
        lambda key: json.dumps(key).replace("&", "\\u0026").replace("+", "\\u002B"),
        lambda key: json.dumps(key).replace("<", "\\u003c").replace(">", "\\u003e"),
        lambda key: f"Bearer {key}",
        lambda key: key[:8],
        lambda key: key[:8] + "****************",
        lambda key: key[:12] + "...",
        lambda key: key[:12] + "xxxxxxxxxxxxxxxx",
        lambda key: key[:9] + "XXXX",
        lambda key: key[:16] + "…" + key[-4:],
        lambda key: key[:24] + "other",
        lambda key: key + "-and-more",
        as_base64,
        lambda key: as_base64(key).rstrip("="),
        lambda key: quote(as_base64(key), safe=""),
        lambda key: json.dumps(as_base64(key)).replace("/", "\\/"),
        as_url_safe_base64,
        lambda key: as_base64(f"Bearer {key}"),
        lambda key: as_url_safe_base64(f"Bearer {key}"),
        lambda key: as_base64(f"user:{key}"),
        lambda key: as_base64(f"us:{key}@host"),
        lambda key: as_base64(json.dumps({"authorization": key})) if key == SENTINEL else key,
    ],
)
def test_the_key_is_scrubbed_in_every_form_it_takes_on_the_way(
    value: str, write: Callable[[str], str]
) -> None:
    scrubbed = ApiKey(value).scrub(f"wrong key {write(value)}, says the server")
    assert "***" in scrubbed
    assert scrubbed.startswith("wrong key ")
    assert scrubbed.endswith(", says the server")
    assert "456789abcdef" not in scrubbed
    assert len(scrubbed) < 70 + len("eyJhdXRob3JpemF0aW9uIjog")


@given(value=keys, before=st.binary(max_size=8), after=st.binary(max_size=8))
def test_no_piece_of_base64_that_holds_the_key_survives_at_any_alignment(
    value: str, before: bytes, after: bytes
) -> None:
    """But for one character on each side, which shares its bits with what stands beside."""
    encoded = base64.b64encode(before + value.encode() + after).decode()
    left, mask, right = ApiKey(value).scrub(encoded).partition("***")
    assert mask
    assert len(left) <= len(before) * 8 // 6 + 1
    assert right == ""


@given(value=keys, before=texts, after=texts)
def test_a_scrubbed_text_never_holds_the_key(value: str, before: str, after: str) -> None:
    assume(value not in before + after and value not in "***")
    key = ApiKey(value)
    scrubbed = key.scrub(before + value + after)
    assert value not in scrubbed
    assert key.scrub(scrubbed) == scrubbed


@given(texts)
def test_a_text_without_the_key_stays_as_it_is(text: str) -> None:
    assert KEY.scrub(text) == text


def test_what_only_looks_like_the_key_stays() -> None:
    for text in ("sk-SENT", "sk-sentinel-0123456789abcdef", "SENTINEL-0123456789abcdef"):
        assert KEY.scrub(text) == text


@pytest.mark.parametrize(
    ("word", "scrubbed"),
    [
        ("fluence-chat", "fluence-chat"),
        ("fluence-testing", "fluence-testing"),
        ("fluence-test-model", "fluence-test-model"),
        ("fluence-xl", "fluence-xl"),
        ("fluence", "fluence"),
        ("fluence-", "***"),
        ("fluence-test", "***"),
        ("fluence-test-k...", "***"),
        ("fluence-xxxxxxxx", "***"),
        ("fluence-test-XXX", "***"),
    ],
)
@pytest.mark.parametrize("value", ["fluence-test-key", "fluence-test-key-0123456789abcdef"])
def test_a_beginning_that_a_key_shares_with_other_words_does_not_cost_those(
    value: str, word: str, scrubbed: str
) -> None:
    assert ApiKey(value).scrub(f"model '{word}'") == f"model '{scrubbed}'"


def test_the_first_eight_characters_of_a_short_key_say_too_little_to_be_scrubbed() -> None:
    key = ApiKey("fluence-key-000")
    assert key.scrub("fluence- and fluence-key-00") == "fluence- and fluence-key-00"
    assert key.scrub("wrong key fluence-key-000") == "wrong key ***"


def test_a_key_of_three_characters_is_no_secret() -> None:
    assert ApiKey("abc").scrub("abc abc") == "abc abc"
    assert ApiKey("abcd").scrub("abcd abc") == "*** abc"


@pytest.mark.parametrize("value", [SENTINEL, AWKWARD, SENTINEL[:16]])
@pytest.mark.parametrize("rest", ["", "…", "...", "****", "xxx", '"', " and so on"])
def test_eight_first_characters_or_more_are_scrubbed_however_many(value: str, rest: str) -> None:
    key = ApiKey(value)
    for length in range(8, len(value) + 1):
        assert key.scrub(f"key {value[:length]}{rest}") == f"key ***{rest.strip('.*x')}"


def test_all_occurrences_are_scrubbed() -> None:
    assert KEY.scrub(f"{SENTINEL} and {SENTINEL}\n{SENTINEL}") == "*** and ***\n***"
