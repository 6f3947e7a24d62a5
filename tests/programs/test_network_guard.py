"""The guard that lets no connection leave the machine, and what a program sees of it."""

from __future__ import annotations

import socket
import threading

import anyio
import pytest

from fluence_async import FluenceSession
from fluence_async.testing import FluenceServer, NetworkForbidden, forbid_network

pytestmark = pytest.mark.anyio
ELSEWHERE = "192.0.2.1"  # TEST-NET-1: nobody's


async def test_the_loopback_stays_open() -> None:
    with forbid_network():
        async with (
            FluenceServer() as server,
            FluenceSession(api_key=server.api_key, base_url=server.base_url) as fluence,
        ):
            answer = await fluence.chat.completions.create(model="fluence-chat", messages="hi")
            assert answer.text
            local = server.base_url.replace("127.0.0.1", "localhost")
            async with FluenceSession(api_key=server.api_key, base_url=local) as named:
                assert await named.chat.completions.create(model="fluence-chat", messages="hi")


@pytest.mark.parametrize(
    ("base_url", "tried"),
    [
        ("https://api.example.com/v1", "api.example.com"),
        (f"https://{ELSEWHERE}/v1", f"a connection to {ELSEWHERE}:443"),
    ],
)
async def test_a_session_that_would_leave_fails_at_once_and_says_where_to(
    base_url: str, tried: str
) -> None:
    with forbid_network(), anyio.fail_after(5):
        async with FluenceSession(api_key="some-key", base_url=base_url, limiter=None) as fluence:
            with pytest.RaisesGroup(
                pytest.RaisesExc(NetworkForbidden, match=f"{tried}.*at a FluenceServer"),
                allow_unwrapped=True,
            ):
                await fluence.chat.completions.create(model="m", messages="hi")


@pytest.mark.parametrize("host", [ELSEWHERE, "2001:db8::1", "8.8.8.8"])
def test_tcp_and_udp_are_seen(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with forbid_network():
        with pytest.raises(NetworkForbidden, match=f"a connection to {host}:443"):
            socket.create_connection((host, 443), timeout=1)
        with socket.socket(family, socket.SOCK_STREAM) as stream:
            with pytest.raises(NetworkForbidden, match=f"{host}:80"):
                stream.connect_ex((host, 80))
        with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
            with pytest.raises(NetworkForbidden, match=f"{host}:53"):
                datagrams.sendto(b"", (host, 53))
            with pytest.raises(NetworkForbidden, match=f"{host}:53"):
                datagrams.sendmsg([b""], [], 0, (host, 53))


def test_look_ups_are_seen() -> None:
    with forbid_network():
        with pytest.raises(NetworkForbidden, match=r"example\.com:443"):
            socket.create_connection(("example.com", 443), timeout=1)
        with pytest.raises(NetworkForbidden, match=r"a look-up of example\.com was"):
            socket.gethostbyname("example.com")


def test_every_thread_is_guarded() -> None:
    caught: list[BaseException] = []

    def leave() -> None:
        try:
            socket.create_connection((ELSEWHERE, 443), timeout=1)
        except BaseException as error:
            caught.append(error)

    with forbid_network():
        thread = threading.Thread(target=leave)
        thread.start()
        thread.join()
    assert [type(error) for error in caught] == [NetworkForbidden]


def test_who_is_let_in_is_let_in_and_the_door_opens_at_the_end() -> None:
    with socket.socket() as outside:
        outside.setblocking(False)
        with forbid_network(allow=[ELSEWHERE]):
            with forbid_network(allow=["192.0.2.2"]), pytest.raises(NetworkForbidden):
                socket.create_connection((ELSEWHERE, 443), timeout=1)
            assert outside.connect_ex((ELSEWHERE, 443)) != 0
    with socket.socket() as outside:
        outside.setblocking(False)
        assert outside.connect_ex((ELSEWHERE, 443)) != 0


def test_unix_sockets_and_servers_are_none_of_its_business() -> None:
    with forbid_network():
        one, other = socket.socketpair()
        one.sendall(b"x")
        assert other.recv(1) == b"x"
        one.close()
        other.close()
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname()).close()
        assert socket.getaddrinfo(None, 0)
        assert socket.getaddrinfo(ELSEWHERE, 443)
