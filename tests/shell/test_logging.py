"""The log: one logger, and nothing in it that was said, nor the key, at any level."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from pathlib import Path

import pytest

import fluence_async
from fluence_async import BadRequestError, FluenceSession, RetryPolicy
from tests.shell.scripted import ScriptedTransport
from tests.shell.test_exchange import GOOD, answer

KEY = "sk-sentinel-0123456789"


@pytest.mark.anyio
@pytest.mark.parametrize("level", ["info", "debug"])
async def test_no_log_holds_the_key_or_what_was_said(
    level: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("fluence_async")
    monkeypatch.setattr(logger, "level", logger.level)
    monkeypatch.setenv("FLUENCE_LOG", level)
    quoting = b'{"error": {"message": "you said: hush ' + KEY.encode() + b'"}}'
    transport = ScriptedTransport(answer(quoting, status=500), GOOD, answer(quoting, status=400))
    retry = RetryPolicy(max_retries=1, base_s=0.001)
    async with FluenceSession(
        api_key=KEY, limiter=None, transport=lambda: transport, retry=retry, cache="memory"
    ) as fluence:
        for n in range(2):
            with suppress(BadRequestError):
                await fluence.chat.completions.create(model="m", messages=f"hush {n}")
        async with fluence.chat.completions.stream(model="m", messages="hush 0") as stream:
            await stream.get_final_text()
    ours = [record for record in caplog.records if record.levelno >= logging.DEBUG]
    assert {record.name for record in ours if "fluence" in record.name} == {"fluence_async"}
    assert any("attempt 1 failed of InternalServerError" in r.getMessage() for r in ours)
    assert any("begins" in r.getMessage() for r in ours) is (level == "debug")
    for secret in (KEY, "hush", "Hi"):
        assert all(secret not in f"{r.getMessage()} {r.args} {r.exc_text}" for r in ours)


def test_the_package_has_one_logger() -> None:
    named = {
        argument
        for path in Path(fluence_async.__file__).parent.rglob("*.py")
        for argument in re.findall(r"getLogger\(([^)]*)\)", path.read_text("utf-8"))
    }
    # The root's is asked whether it has a handler; the local server is a program of its own.
    assert named == {'"fluence_async"', "", '"fluence_async.server"'}
