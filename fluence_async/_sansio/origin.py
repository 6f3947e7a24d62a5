"""A base URL in, checked; the address of the one endpoint and the name of its origin out.

Law: the key goes to one origin. Plain http is for loopback; to another machine only if asked
for, since the key would travel readable.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Self
from urllib.parse import urlsplit

import msgspec

__all__ = ["API_BASE_URL", "Origin"]

API_BASE_URL = "https://api.fluence.ai/v1"
_ENDPOINT = "/chat/completions"

# Broader than URLs are, because nothing that may hold a password is shown, be it a URL or not.
_USERINFO = re.compile(r"(?:\w*:)?[/\\]*[^/?#]*@")
_HOST_NAME = re.compile(r"[\w.-]+")


class Origin(msgspec.Struct, frozen=True):
    """Where calls go: `base_url` (without a slash at its end) and `name` (scheme://host:port)."""

    base_url: str
    name: str

    @property
    def completions_url(self) -> str:
        """The address of `POST /v1/chat/completions`."""
        return self.base_url + _ENDPOINT

    @classmethod
    def of(cls, base_url: str, *, allow_insecure: bool = False) -> Self:
        """The origin of a base URL.

        Raises:
            TypeError: It is no str.
            ValueError: It is no http(s) URL, holds a password, query or fragment, or would send
                the key readable to another machine.
        """
        if not isinstance(base_url, str):
            raise TypeError(
                f"base_url must be a str, as {API_BASE_URL!r}, not {type(base_url).__name__}"
            )
        text = base_url.strip()
        if not text:
            raise ValueError(
                f"base_url={base_url!r} is empty: write one like {API_BASE_URL!r}; without it "
                "FLUENCE_BASE_URL is asked, or the Fluence API"
            )
        if _USERINFO.match(text):
            raise ValueError("base_url holds a user name or password: pass the key as api_key=")
        if "?" in text or "#" in text:
            raise ValueError(f"base_url has a query or fragment: it ends like {API_BASE_URL!r}")
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"base_url={base_url!r} is no URL: {error}") from None
        host = parts.hostname or ""
        if (
            parts.scheme not in ("http", "https")
            or not (_HOST_NAME.fullmatch(host) or ":" in host)
            or port == 0
            or not text.isprintable()
            or " " in text
        ):
            raise ValueError(f"base_url={base_url!r}: must be like {API_BASE_URL!r}")
        if parts.path.rstrip("/").endswith(_ENDPOINT):
            raise ValueError(
                f"base_url={base_url!r} is the address of one endpoint: leave {_ENDPOINT!r} out, "
                f"which every call adds; it ends like {API_BASE_URL!r}"
            )
        if parts.scheme == "http" and not allow_insecure and not _is_loopback(host):
            raise ValueError(
                f"base_url={base_url!r} would send the API key readable over the network: use "
                "https, or allow_insecure=True if the way is trusted"
            )
        port = port or (443 if parts.scheme == "https" else 80)
        name = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        return cls(parts.geturl().rstrip("/"), name)


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
