"""How a program of yours is tested: `python3 -m pytest examples/tests`, with the package installed.

`fluence_server` is the API on this machine, fresh for each test; `fluence_session` talks to it.
"""

import pytest

from fluence_async import FluenceSession, StreamInterruptedError
from fluence_async.testing import FluenceServer, Reset, Status, Stream

pytestmark = pytest.mark.anyio


async def tell(fluence: FluenceSession, about: str) -> str:
    """The program under test: tells a story, or as much of it as came."""
    try:
        async with fluence.chat.completions.stream(
            model="fluence-chat", messages=f"Tell me a story about {about}"
        ) as stream:
            return await stream.get_final_text()
    except StreamInterruptedError as error:
        return f"{error.partial.text if error.partial else ''}… and there the page is torn."


async def test_a_story_is_told(fluence_session: FluenceSession) -> None:
    assert "dragons" in await tell(fluence_session, "dragons")


async def test_a_busy_server_is_asked_again(
    fluence_server: FluenceServer, fluence_session: FluenceSession
) -> None:
    fluence_server.script(Status(429, retry_after="0.01"), "Once upon a time.")
    assert await tell(fluence_session, "dragons") == "Once upon a time."
    fluence_server.assert_requested(2, text="dragons", stream=True)


async def test_a_torn_story_says_so(
    fluence_server: FluenceServer, fluence_session: FluenceSession
) -> None:
    fluence_server.script(Stream("Once upon a ", Reset()))
    assert await tell(fluence_session, "knights") == "Once upon a … and there the page is torn."


async def test_each_story_is_its_own(
    fluence_server: FluenceServer, fluence_session: FluenceSession
) -> None:
    fluence_server.when(text="dragons").script("Fire!", repeat=True)
    fluence_server.when(text="knights").script("Armour!", repeat=True)
    told = [await tell(fluence_session, about) for about in ("knights", "dragons", "knights")]
    assert told == ["Armour!", "Fire!", "Armour!"]


@pytest.mark.fluence_server(limits=["2/minute"], time_scale=600)
async def test_a_minute_of_the_servers_limit_lasts_a_tenth_of_a_second(
    fluence_server: FluenceServer, fluence_session: FluenceSession
) -> None:
    for _ in range(3):
        await tell(fluence_session, "dragons")
    assert fluence_server.refusals == 1
