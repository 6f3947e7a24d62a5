"""A response's head as it came, in; the headers as the rest of the package reads them, out.

Law: what one HTTP library lets pass and the other does not is decided here, once. Both framings
at a time (RFC 9112, section 6.3) may be an attempt to smuggle a second response past us; a change
of protocol (101) was not asked for. Values are latin-1, as RFC 9110 has it, so that no byte can
make a later print or pickle fail.
"""

from __future__ import annotations

from collections.abc import Sequence

from ._base import ProtocolViolated
from ._failures import authority

__all__ = ["read_head"]


def read_head(url: str, status: int, raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers: names in lower case; of repeated ones, the first.

    Args:
        url: Where the response is from, for the message.
        status: The HTTP status.
        raw: Names and values in their order.

    Raises:
        ProtocolViolated: The head is one that no HTTP client may accept.
    """
    headers = {str(name, "latin-1").lower(): str(value, "latin-1") for name, value in raw[::-1]}
    if status == 101:
        raise ProtocolViolated(f"{authority(url)} answered 101, a change of protocol")
    if "transfer-encoding" in headers and "content-length" in headers:
        raise ProtocolViolated(
            f"{authority(url)} framed its answer twice, by Content-Length and Transfer-Encoding"
        )
    return headers
