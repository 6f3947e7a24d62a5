"""One question, one answer, and what is known of the call."""

import asyncio

from fluence_async import FluenceSession


async def main() -> None:
    async with FluenceSession() as fluence:
        answer = await fluence.chat.completions.create(
            model="fluence-chat", messages="Hello, how are you?"
        )
        print(answer.text)
        print(answer.usage)
        print(answer.meta)


asyncio.run(main())
