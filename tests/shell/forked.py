"""A server's life with workers: a session made before the fork, used on both sides of it.

python -m tests.shell.forked BASE_URL API_KEY: exits with 0 if all went well everywhere.
"""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from collections.abc import Callable

import trio

from fluence_async import FluenceSession

warnings.simplefilter("error")
warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)


async def ask(fluence: FluenceSession) -> None:
    for _ in range(3):
        answer = await fluence.chat.completions.create(model="fluence-chat", messages="2 + 2")
        assert "4" in answer.text, answer.text
        async with fluence.chat.completions.stream(
            model="fluence-chat", messages="2 + 2"
        ) as stream:
            assert "4" in await stream.get_final_text()


def child(work: Callable[[], object]) -> int:
    """A worker that does this, and nothing of its parent's."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return pid


def join(children: list[int]) -> None:
    for pid in children:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


async def fork_in_the_middle_of_a_stream(fluence: FluenceSession) -> None:
    await ask(fluence)
    async with fluence.chat.completions.stream(model="fluence-chat", messages="2 + 2") as stream:
        first = await anext(stream)
        join([child(lambda: asyncio.run(ask(fluence))), child(lambda: trio.run(ask, fluence))])
        text = first.text + "".join([chunk.text async for chunk in stream])
    assert "4" in text, text
    await ask(fluence)


def main(base_url: str, api_key: str) -> None:
    fluence = FluenceSession(base_url=base_url, api_key=api_key, limiter=None)  # "preload"
    join([child(lambda: asyncio.run(ask(fluence))) for _ in range(3)])  # never used before
    asyncio.run(ask(fluence))
    join([child(lambda: asyncio.run(ask(fluence))) for _ in range(3)])  # in a run that ended
    asyncio.run(fork_in_the_middle_of_a_stream(fluence))
    trio.run(ask, fluence)


if __name__ == "__main__":
    main(*sys.argv[1:])
