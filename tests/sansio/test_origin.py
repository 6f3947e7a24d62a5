"""A base URL in, its origin out: where the key may go, and where it may not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluence_async._sansio.origin import API_BASE_URL, Origin


@pytest.mark.parametrize(
    ("url", "base_url", "name"),
    [
        (API_BASE_URL, API_BASE_URL, "https://api.fluence.ai:443"),
        ("https://api.fluence.ai/v1/", API_BASE_URL, "https://api.fluence.ai:443"),
        ("https://api.fluence.ai/v1//", API_BASE_URL, "https://api.fluence.ai:443"),
        (" https://api.fluence.ai/v1\n", API_BASE_URL, "https://api.fluence.ai:443"),
        ("https://h", "https://h", "https://h:443"),
        ("https://h/", "https://h", "https://h:443"),
        ("https://h/X/", "https://h/X", "https://h:443"),
        ("https://h:443/v1", "https://h:443/v1", "https://h:443"),
        ("https://h:8443/v1", "https://h:8443/v1", "https://h:8443"),
        ("https://h/team@x/v1", "https://h/team@x/v1", "https://h:443"),
        ("https://my_host.internal/v1", "https://my_host.internal/v1", None),
        ("https://münchen.example/v1", "https://münchen.example/v1", None),
        ("https://[2001:db8::1]/v1", "https://[2001:db8::1]/v1", "https://[2001:db8::1]:443"),
        ("http://localhost/v1", "http://localhost/v1", "http://localhost:80"),
        ("http://localhost:11434/v1", "http://localhost:11434/v1", "http://localhost:11434"),
        ("http://LOCALHOST:1/v1", "http://LOCALHOST:1/v1", "http://localhost:1"),
        ("http://vllm.localhost/v1", "http://vllm.localhost/v1", "http://vllm.localhost:80"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1", "http://127.0.0.1:8000"),
        ("http://127.8.9.1/v1", "http://127.8.9.1/v1", "http://127.8.9.1:80"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1", "http://[::1]:8000"),
    ],
)
def test_a_good_url_has_an_address_and_a_name(url: str, base_url: str, name: str | None) -> None:
    origin = Origin.of(url)
    assert origin.base_url == base_url
    assert origin.completions_url == base_url + "/chat/completions"
    assert name is None or origin.name == name


def test_scheme_and_host_in_capitals_name_the_same_origin() -> None:
    origin = Origin.of("HTTPS://API.Fluence.AI/v1")
    assert origin.name == Origin.of(API_BASE_URL).name
    assert origin.base_url.lower() == API_BASE_URL


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        "h",
        "api.fluence.ai/v1",
        "//api.fluence.ai/v1",
        "ftp://api.fluence.ai/v1",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https:",
        "https://",
        "https:///v1",
        "https://:443/v1",
        "https://exa mple.com/v1",
        "https://example.com/v 1",
        "https://example.com/\tv1",
        "https://example.com/\nv1",
        "https://exa\nmple.com/v1",
        "https://example.com/v1\x00",
        "https://example.com\\.evil.com/v1",
        "https://example.com%2eevil.com/v1",
        "https://a,b/v1",
        "https://example.com:0/v1",
        "https://example.com:65536/v1",
        "https://example.com:x/v1",
        "https://[::1/v1",
        "https://[zz::1]/v1",
        "https://example.com/\ud83d",
    ],
)
def test_a_bad_url_is_refused_and_the_message_names_it(url: str) -> None:
    with pytest.raises(ValueError, match="base_url") as caught:
        Origin.of(url, allow_insecure=True)
    assert repr(url) in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@h/v1",
        "https://hunter2@h/v1",
        "https://:hunter2@h/v1",
        "https://user:hunter2@h:99999/v1",
        "https://user:hunter2@[::1/v1",
        "https://user:hunter2@",
        "https:user:hunter2@h/v1",
        "https:\\\\user:hunter2@h/v1",
        "user:hunter2@h/v1",
        "https://h/v1?api_key=hunter2",
        "https://h/v1#hunter2",
        "https://h:99999/v1?api_key=hunter2",
    ],
)
def test_a_password_a_query_or_a_fragment_is_refused_and_never_shown(url: str) -> None:
    with pytest.raises(ValueError, match="base_url") as caught:
        Origin.of(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_even_an_empty_user_name_or_query_is_refused() -> None:
    for url in ("https://@h/v1", "https://h/v1?", "https://h/v1#"):
        with pytest.raises(ValueError, match="base_url"):
            Origin.of(url)


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1",
        "192.168.1.1",
        "0.0.0.0",
        "128.0.0.1",
        "[2001:db8::1]",
        "example.com",
        "localhost.example.com",
        "notlocalhost",
        "127.0.0.1.example.com",
    ],
)
def test_plain_http_to_another_machine_only_if_asked_for(host: str) -> None:
    url = f"http://{host}/v1"
    with pytest.raises(ValueError, match="allow_insecure=True"):
        Origin.of(url)
    assert Origin.of(url, allow_insecure=True).name == f"http://{host}:80"
    assert Origin.of(f"https://{host}/v1").name == f"https://{host}:443"


@given(st.text(max_size=40).map(lambda tail: "https://" + tail) | st.text(max_size=40))
def test_any_text_is_an_origin_or_a_value_error(text: str) -> None:
    try:
        origin = Origin.of(text)
    except ValueError:
        return
    assert origin.name.startswith(("https://", "http://"))
    assert not origin.base_url.endswith("/")
    assert Origin.of(origin.base_url) == origin
