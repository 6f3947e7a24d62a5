"""What a caller says of how calls are made goes in, checked and whole it comes out.

Law: what a call says goes before what its session says, option by option; None says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ._sansio.arguments import check_headers, check_tags, meant
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
                f"unknown option {meant(unknown, OPTIONS)}: one of {', '.join(sorted(OPTIONS))}"
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
            check_tags(changes["tags"])
            changes["tags"] = {**self.tags, **changes["tags"]}
        if "extra_headers" in changes:
            check_headers("extra_headers", changes["extra_headers"])
            changes["extra_headers"] = {**self.extra_headers, **changes["extra_headers"]}
        return msgspec.structs.replace(self, **changes)
