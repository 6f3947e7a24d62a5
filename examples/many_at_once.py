"""Forty questions at once. The limiter keeps them inside the API's limits, in order."""

import asyncio

from fluence_async import FluenceError, FluenceSession


async def ask(fluence: FluenceSession, question: str) -> str:
    try:
        answer = await fluence.chat.completions.create(model="fluence-chat", messages=question)
    except FluenceError as error:
        return f"{question} failed: {error}"
    return f"{question} {answer.text}"


async def main() -> None:
    async with FluenceSession(timeout=60) as fluence:
        questions = [f"What is {n} times {n}?" for n in range(40)]
        for answer in asyncio.as_completed([ask(fluence, question) for question in questions]):
            print(await answer)


asyncio.run(main())
