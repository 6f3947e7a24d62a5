"""What calls cost, and budgets that end them in time: one for all, one for each tenant."""

import asyncio

from fluence_async import Budget, BudgetExceededError, FluenceSession, Price


async def main() -> None:
    async with FluenceSession(
        prices={"fluence-chat": Price(prompt=0.50, completion=1.50)},
        budget=["$5/day", Budget("45 tokens/hour", tag="tenant")],
    ) as fluence:
        for tenant in ("acme", "acme", "acme", "globex"):
            try:
                answer = await fluence.chat.completions.create(
                    model="fluence-chat",
                    messages="What is 6 times 7?",
                    max_tokens=10,
                    tags={"tenant": tenant},
                )
                print(f"{tenant}: {answer.text}")
            except BudgetExceededError as error:
                print(f"{tenant}: {error}")

        used = fluence.usage.snapshot()
        for tenant, totals in used.tags["tenant"].items():
            print(f"{tenant}: {totals.total_tokens} tokens, ${totals.cost:.6f}")


asyncio.run(main())
