"""The same question five times at once, once more, and as a stream: one request in all."""

import asyncio

from fluence_async import FluenceSession
from fluence_async.cache import MemoryCache


async def main() -> None:
    # cache="sqlite" keeps the answers in a file that outlives the program.
    async with FluenceSession(cache=MemoryCache(ttl_s=600)) as fluence:

        async def ask() -> str:
            answer = await fluence.chat.completions.create(
                model="fluence-chat", messages="What is 6 times 7?"
            )
            how = "cached" if answer.meta.cached else "shared" if answer.meta.coalesced else "asked"
            return f"{answer.text} ({how})"

        for line in await asyncio.gather(*(ask() for _ in range(5))):
            print(line)
        print(await ask())

        async with fluence.chat.completions.stream(
            model="fluence-chat", messages="What is 6 times 7?"
        ) as stream:
            print(await stream.get_final_text(), "(cached)" if stream.meta.cached else "")

        # A temperature above 0 asks for variety: such answers are kept only where you say so.
        poem = await fluence.chat.completions.create(
            model="fluence-chat", messages="Tell me a story", temperature=0.9, cache=3600
        )
        print(len(poem.text), "characters, good for an hour")


asyncio.run(main())
