"""What a caller says of how calls are made goes in, checked and whole it comes out.

Law: what a call says goes before what its session says, option by option; None says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .cache.cache import check_asked
from .options import CallOptions, RetryPolicy, Timeout

__all__ = ["LANES", "OPTIONS", "Defaults"]

LANES = {"interactive": 0, "batch": 1}
OPTIONS = frozenset(CallOptions.__annotations__)


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """How calls are made where they do not say otherwise."""

    timeout: Timeout = Timeout()
    retry: RetryPolicy = RetryPolicy()
    priority: str = "interactive"
    tags: Mapping[str, str] = {}
    extra_headers: Mapping[str, str] = {}
    cache: bool | float | None = None
    keep_raw: bool = False

    def changed(self, options: Mapping[str, Any]) -> Defaults:
        """These options with `options` laid over them, checked; None changes nothing."""
        unknown = options.keys() - OPTIONS
        if unknown:
            raise TypeError(
                f"unknown option {', '.join(sorted(map(repr, unknown)))}: "
                f"one of {', '.join(sorted(OPTIONS))}"
            )
        changes = {name: value for name, value in options.items() if value is not None}
        if "timeout" in changes:
            changes["timeout"] = Timeout.of(changes["timeout"])
        if "max_retries" in changes:
            changes["retry"] = msgspec.structs.replace(
                self.retry, max_retries=changes.pop("max_retries")
            )
        if changes.get("priority", "interactive") not in LANES:
            raise ValueError(f"priority={changes['priority']!r}: one of {', '.join(LANES)}")
        check_asked(changes.get("cache"))
        if "tags" in changes:
            changes["tags"] = {**self.tags, **_checked_tags(changes["tags"])}
        if "extra_headers" in changes:
            changes["extra_headers"] = {
                **self.extra_headers,
                **_checked_headers(changes["extra_headers"]),
            }
        return msgspec.structs.replace(self, **changes)


def _checked_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in headers.items():
        text = f"{name}{value}"
        if not name or not text.isascii() or not text.isprintable():
            raise ValueError(f"the header {name!r} and its value must be printable ASCII")
    return headers


def _checked_tags(tags: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in tags.items():
        texts: tuple[object, ...] = (name, value)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError(f"tags={{{name!r}: {value!r}}}: name and value must be a str")
        try:
            f"{name}{value}".encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"tags={{{name!r}: {value!r}}}: half a surrogate pair, which no UTF-8 can carry"
            ) from None
    return tags
