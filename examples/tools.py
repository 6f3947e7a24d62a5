"""The model asks for the weather, our function tells it, and the model puts it into words."""

import asyncio
from typing import Literal

from fluence_async import (
    ChunkReceived,
    FluenceSession,
    ToolCallCompleted,
    ToolFailed,
    ToolReturned,
    tool,
)


@tool(timeout=5)
async def get_weather(city: str, unit: Literal["celsius", "fahrenheit"] = "celsius") -> dict:
    """Get the current weather in a city.

    Args:
        city: The city's name, such as Paris.
        unit: The unit of the temperature.
    """
    await asyncio.sleep(0.01)  # here a weather service would be asked
    return {"city": city, "temperature": 18, "unit": unit}


async def main() -> None:
    async with (
        FluenceSession() as fluence,
        fluence.chat.completions.run_tools(
            model="fluence-chat",
            messages="What is the weather in Paris and in Rome?",
            tools=[get_weather],
            on_tool_error="tell",
        ) as run,
    ):
        async for event in run:
            match event:
                case ChunkReceived():
                    print(event.text, end="", flush=True)
                case ToolCallCompleted(call=call):
                    print("→", call.function.name, call.function.arguments)
                case ToolReturned(content=content):
                    print("←", content)
                case ToolFailed(error=error):
                    print("← failed:", error)
    print(f"\n[{len(run.turns)} turns, {run.usage}]")


asyncio.run(main())
