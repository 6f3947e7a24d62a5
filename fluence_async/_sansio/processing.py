"""A response's headers in, how long the server says it was at it out.

Law: what makes no sense says nothing. Of several, the least counts: it claims the least. Read are
`openai-processing-ms`, and `x-envoy-upstream-service-time`, which gateways made of Envoy set to
the milliseconds from a request's passing on to the response's headers
(https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/router_filter).

Rejected: `server-timing`, whose metrics every server names as it likes, and which may tell of a
part only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["processing_s"]

_NAMES = ("openai-processing-ms", "x-envoy-upstream-service-time")
_MILLISECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")


def processing_s(headers: Mapping[str, str]) -> float | None:
    """Seconds; None if the headers do not say.

    Args:
        headers: Names in lower case.
    """
    least = None
    for name in _NAMES:
        said = headers.get(name)
        if said is not None and _MILLISECONDS.fullmatch(said):
            seconds = float(said) / 1000
            least = seconds if least is None else min(least, seconds)
    return least
