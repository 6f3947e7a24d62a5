"""A guard: within it, no connection leaves this machine.

Law: whoever tries gets a `NetworkForbidden` that names host and port and the way out; the loopback
and Unix sockets stay open. It hangs on Python's own audit events, so it sees every library that
connects through `socket`, in every thread; a C library with sockets of its own it does not see
(of uvloop, what aiohttp connects is seen, and no look-up of a name). A name that is handed to
`socket.connect` itself is looked up before anybody sees it. On trio the error may come in an
ExceptionGroup.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["NetworkForbidden", "forbid_network"]


class NetworkForbidden(RuntimeError):
    """A connection to another machine was tried.

    Attributes:
        host: Its name or address.
        port: The port; None where only its name was looked up.
    """

    def __init__(self, host: str, port: object = None) -> None:
        what = f"a look-up of {host}" if port is None else f"a connection to {host}:{port}"
        super().__init__(
            f"{what} was tried, and this test may not leave the machine. Point the program at "
            "a FluenceServer; or let the host in: forbid_network(allow=[...]), or "
            "@pytest.mark.allow_network"
        )
        self.host = host
        self.port = port


_guards: list[frozenset[str]] = []
"""What each guard in force lets in."""


@contextmanager
def forbid_network(*, allow: Collection[str] = ()) -> Iterator[None]:
    """Let no connection leave this machine until the block ends, from any thread.

    Args:
        allow: Host names and addresses that may be reached all the same. Names are looked up once,
            at the start.

    Example:
        ```python
        with forbid_network():
            socket.create_connection(("example.com", 443))  # raises NetworkForbidden
        ```
    """
    _install()
    guard = frozenset({*allow, *(address for name in allow for address in _addresses(name))})
    _guards.append(guard)
    try:
        yield
    finally:
        _guards.remove(guard)


def _install() -> None:
    """Hang the guard on the interpreter, once: an audit hook cannot be taken off again."""
    global _installed  # noqa: PLW0603
    if not _installed:
        _installed = True
        sys.addaudithook(_watch)


def _addresses(name: str) -> list[str]:
    try:
        return [str(info[4][0]) for info in socket.getaddrinfo(name, None)]
    except OSError:
        return []


_installed = False
_CONNECTS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_INTERNET = frozenset({socket.AF_INET, socket.AF_INET6})
_LOOKS_UP = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"})


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not _guards or not event.startswith("socket."):
        return
    if event in _CONNECTS:
        opened, address = arguments[:2]
        if opened.family in _INTERNET and address and not _may(address[0], numeric=False):
            if event == "socket.connect":
                opened.close()  # many libraries do so for an OSError only
            raise NetworkForbidden(_text(address[0]), address[1])
    elif event in _LOOKS_UP and not _may(arguments[0], numeric=True):
        raise NetworkForbidden(_text(arguments[0]), arguments[1] if len(arguments) > 1 else None)


def _may(host: object, *, numeric: bool) -> bool:
    """Whether `host` may be reached, or, if `numeric`, looked up: an address needs no network."""
    name = _text(host)
    if name in {"", "localhost"} or name.endswith(".localhost"):
        return True
    if all(name in guard for guard in _guards):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return numeric or address.is_loopback or address.is_unspecified


def _text(host: object) -> str:
    return host.decode("ascii", "replace") if isinstance(host, bytes) else str(host or "")
