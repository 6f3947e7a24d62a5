"""How a terminal is written to, and how it is left: as it was found.

Law: no control character of a model, a server or a file reaches a terminal. It could move the
cursor over what stands there, set the window's title, or answer in the user's name.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from .. import APIStatusError, ChatCompletion, FluenceError, Meta

__all__ = ["complain", "draws", "note", "printable", "quiet", "summary"]

_CONTROLS = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {ord("\n"), ord("\t")})

_ENDINGS = {"length": "cut at the token limit", "content_filter": "cut by the content filter"}


def printable(text: str) -> str:
    """`text` without its control characters (C0, DEL, C1), line feed and tab excepted."""
    return text if text.isprintable() else text.translate(_CONTROLS)


def draws(stream: TextIO) -> bool:
    """Whether `stream` is a terminal on which the cursor can be moved."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def note(text: str) -> None:
    """Say something beside the answer: a line on stderr, dim where it is a terminal."""
    line = printable(text)
    if draws(sys.stderr) and not os.environ.get("NO_COLOR"):
        line = f"\x1b[2m{line}\x1b[0m"
    print(line, file=sys.stderr, flush=True)


def complain(error: FluenceError) -> None:
    """Say what went wrong, and what support would ask for: two lines on stderr at most."""
    print(f"fluence: {printable(' '.join(str(error).split()))}", file=sys.stderr, flush=True)
    known = [type(error).__name__]
    if isinstance(error, APIStatusError):
        known.append(f"status {error.status_code}")
    if error.meta is not None and error.meta.attempts > 1:
        known.append(f"{error.meta.attempts} attempts")
    if error.meta is not None and error.meta.request_id:
        known.append(f"request {error.meta.request_id}")
    note(f"  {' · '.join(known)}")


def summary(completion: ChatCompletion) -> str:
    """What an answer cost, in one line: tokens and time."""
    parts = []
    usage, meta = completion.usage, completion.meta
    if usage is not None:
        parts.append(
            f"{usage.total_tokens} tokens ({usage.prompt_tokens} in, {usage.completion_tokens} out)"
        )
    parts += _times(meta)
    if completion.finish_reason not in (None, "stop"):
        reason = str(completion.finish_reason)
        parts.append(_ENDINGS.get(reason, reason))
    return " · ".join(parts)


def _times(meta: Meta) -> list[str]:
    times = []
    if meta.limiter_wait_s >= 0.1:
        times.append(f"{meta.limiter_wait_s:.1f} s waited for the rate limit")
    if meta.attempts > 1:
        times.append(f"{meta.attempts} attempts")
    if meta.first_token_s is not None:
        times.append(f"first after {meta.first_token_s:.2f} s")
    if meta.total_s is not None:
        times.append(f"all after {meta.total_s:.2f} s")
    return times


@contextmanager
def quiet() -> Iterator[None]:
    """Within it, what is typed is kept for who reads next, and not echoed into the drawing."""
    if sys.platform == "win32" or not draws(sys.stdout):
        yield
        return
    import termios

    terminal = sys.stdout.fileno()
    if os.tcgetpgrp(terminal) != os.getpgrp():
        yield  # in the background: who changes the terminal from there is stopped
        return
    before, silent = termios.tcgetattr(terminal), termios.tcgetattr(terminal)
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSANOW, silent)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)
