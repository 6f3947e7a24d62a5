"""A web backend that passes an answer on to the browser while it is written.

One session serves all requests. A browser that goes away cancels the handler, which closes the
stream and with it the connection: nothing is left behind.

    python examples/web_backend.py --serve      then open http://127.0.0.1:8000/?q=Hello
"""

import asyncio
import sys
from collections.abc import AsyncIterator

from aiohttp import ClientSession, web

from fluence_async import FluenceError, FluenceSession

FLUENCE = web.AppKey("fluence", FluenceSession)


async def session(app: web.Application) -> AsyncIterator[None]:
    async with FluenceSession(timeout=60) as fluence:
        app[FLUENCE] = fluence
        yield


async def answer(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
    try:
        async with request.app[FLUENCE].chat.completions.stream(
            model="fluence-chat", messages=request.query.get("q", "Hello!")
        ) as stream:
            await response.prepare(request)
            async for text in stream.text_stream:
                await response.write(text.encode())
    except FluenceError as error:
        if not response.prepared:
            raise web.HTTPBadGateway(text=error.message) from error
        await response.write(f"\n[broke off: {error.message}]".encode())
    return response


def backend() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(session)
    app.router.add_get("/", answer)
    return app


async def visit() -> None:
    """What a browser would see."""
    runner = web.AppRunner(backend(), handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    async with ClientSession() as browser, browser.get(f"http://{host}:{port}/?q=Hello") as page:
        print(page.status, await page.text())
    await runner.cleanup()


if sys.argv[1:] == ["--serve"]:
    web.run_app(backend(), host="127.0.0.1", port=8000, handler_cancellation=True)
else:
    asyncio.run(visit())
