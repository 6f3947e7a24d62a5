"""An answer of a type of ours: whole, and field by field while it is written."""

import asyncio

import msgspec

from fluence_async import FluenceSession


class Step(msgspec.Struct):
    """One step of a recipe."""

    text: str
    minutes: int


class Recipe(msgspec.Struct):
    """A recipe."""

    title: str
    servings: int
    steps: list[Step]


async def main() -> None:
    async with FluenceSession() as fluence:
        completions = fluence.chat.completions

        answer = await completions.parse(
            model="fluence-chat",
            messages="A recipe for Tomato Soup, servings: 4",
            response_type=Recipe,
        )
        if answer.parsed is not None:
            print(answer.parsed.title, "for", answer.parsed.servings)
        else:
            print("no recipe:", answer.parse_error)

        async with completions.parse(
            model="fluence-chat",
            messages="A recipe for Tomato Soup, servings: 4",
            response_type=Recipe,
        ) as answer_as_it_comes:
            async for field in answer_as_it_comes:
                print(field.name, "is", field.value)
        print(answer_as_it_comes.result.value)


asyncio.run(main())
