"""Which proxy the environment names for a URL; without `trust_env`, none.

Law: the environment is read once, when a transport is made, by the standard library, so that both
HTTP libraries obey it alike. Rejected: aiohttp's own reading, which costs a thread for each
request and looks up a password in ~/.netrc besides.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

__all__ = ["Proxies", "credentials"]


class Proxies:
    """The proxies of the environment.

    Args:
        trust_env: Whether to read it at all.

    Raises:
        ValueError: It names a proxy that speaks neither http nor https.
    """

    def __init__(self, *, trust_env: bool) -> None:
        found = getproxies() if trust_env else {}
        self._by_scheme: dict[str, str] = {
            scheme: found[scheme] for scheme in ("http", "https") if scheme in found
        }
        for scheme, proxy in self._by_scheme.items():
            kind = urlsplit(proxy).scheme
            if kind not in ("http", "https"):
                raise ValueError(
                    f"{scheme}_proxy is of kind {kind!r}; only http and https proxies are supported"
                )

    def for_url(self, url: str) -> str | None:
        """The URL of the proxy to use, or None for none."""
        if not self._by_scheme:
            return None
        parts = urlsplit(url)
        if proxy_bypass(parts.netloc.rpartition("@")[2]):
            return None
        return self._by_scheme.get(parts.scheme)


def credentials(proxy: str) -> tuple[str, str] | None:
    """User name and password of a proxy's URL, if it has them."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return None
    return unquote(parts.username), unquote(parts.password or "")
