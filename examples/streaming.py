"""An answer as it is written; if it breaks off, what had come is still there."""

import asyncio

from fluence_async import FluenceSession, StreamError


async def main() -> None:
    async with FluenceSession() as fluence:
        try:
            async with fluence.chat.completions.stream(
                model="fluence-chat", messages="Tell me a story"
            ) as stream:
                async for text in stream.text_stream:
                    print(text, end="", flush=True)
        except StreamError as error:
            came = len(error.partial.text) if error.partial else 0
            print(f"\n[broke off after {came} characters: {error}]")
        else:
            print(f"\n[{stream.completion.finish_reason}, {stream.usage}]")


asyncio.run(main())
