"""A conversation at a terminal: it remembers its turns until it is left.

Law: Ctrl-C stops the answer and not the program. What had come of the answer stays in view, and
in the conversation with a mark, so that the model knows that it was not heard to its end. A
question that got no answer at all is taken back.
"""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from prompt_toolkit import PromptSession
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from .. import ChatCompletion, FluenceError, FluenceSession
from .asking import Settings, ask, open_session
from .chat import opening
from .render import view_of
from .terminal import complain, note, quiet, summary

__all__ = ["Conversation", "converse"]

T = TypeVar("T")

_PROMPT = FormattedText([("bold ansicyan", "› ")])
_HELP = """\
/reset    forget the conversation, and begin a new one
/quit     leave, as Ctrl-D does
Ctrl-C    stop the answer; at the prompt, empty the line, or leave if it is empty
Alt-Enter begin a new line; a text of several lines can be pasted as it is"""
_STOPPED = "\n\n[stopped by the user]"
_BROKEN = "\n\n[the connection broke here]"


async def converse(settings: Settings) -> None:
    """Hold a conversation until the user leaves it."""
    async with open_session(settings.base_url) as fluence:
        note(f"{settings.model} · /help for help, Ctrl-D to leave")
        await Conversation(fluence, settings).run()


class Conversation:
    """The turns so far, and what happens in one."""

    def __init__(self, fluence: FluenceSession, settings: Settings) -> None:
        self._fluence = fluence
        self._settings = settings
        self._messages = opening(settings)

    async def run(self) -> None:
        """Ask and answer until the user leaves."""
        prompt: PromptSession[str] = PromptSession(
            history=InMemoryHistory(), key_bindings=_keys(), prompt_continuation="  "
        )
        with _Interrupt() as interrupt:
            while True:
                try:
                    text = await prompt.prompt_async(_PROMPT)
                except (EOFError, KeyboardInterrupt):
                    return
                if re.fullmatch(r"/\w+\s*", text):
                    if not self._obey(text.strip()):
                        return
                elif text.strip():
                    await self._turn(text, interrupt)

    def _obey(self, command: str) -> bool:
        """Do what `command` says; False if it says to leave."""
        if command == "/quit":
            return False
        if command == "/help":
            note(_HELP)
        elif command == "/reset":
            self._messages = opening(self._settings)
            note("a new conversation")
        else:
            note(f"there is no command {command}; /help names them all")
        print(flush=True)
        return True

    async def _turn(self, text: str, interrupt: _Interrupt) -> None:
        """Answer `text`, and remember as much of both as there is."""
        self._messages.append({"role": "user", "content": text})
        pieces: list[str] = []

        def show(piece: str) -> None:
            pieces.append(piece)
            view.show(piece)

        try:
            with quiet(), view_of(sys.stdout) as view:
                asking = ask(self._fluence, self._messages, self._settings, show)
                completion = await interrupt.stoppable(asking)
        except FluenceError as error:
            complain(error)
            self._remember("".join(pieces), _BROKEN)
        else:
            self._close(completion, "".join(pieces))
        print(flush=True)

    def _close(self, completion: ChatCompletion | None, text: str) -> None:
        if completion is None:
            note("stopped")
            self._remember(text, _STOPPED)
            return
        if not text:
            note(f"an answer without text (finish_reason: {completion.finish_reason})")
        note(summary(completion))
        self._remember(text, "")

    def _remember(self, text: str, mark: str) -> None:
        if text:
            self._messages.append({"role": "assistant", "content": text + mark})
        else:
            self._messages.pop()


class _Interrupt:
    """Within it, Ctrl-C cancels what is `stoppable`, and does nothing where nothing is.

    It takes the place of asyncio's own, which cancels the main task: the program.
    """

    def __init__(self) -> None:
        self._task: asyncio.Future[Any] | None = None
        self._stopped = False

    async def stoppable(self, coroutine: Coroutine[Any, Any, T]) -> T | None:
        """The result of `coroutine`; None if Ctrl-C stopped it."""
        self._stopped = False
        self._task = task = asyncio.ensure_future(coroutine)
        try:
            return await task
        except asyncio.CancelledError:
            if self._stopped:
                return None
            raise
        finally:
            self._task = None

    def _stop(self) -> None:
        if self._task is not None:
            self._stopped = True
            self._task.cancel()

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._before = signal.signal(
            signal.SIGINT, lambda *_: loop.call_soon_threadsafe(self._stop)
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        signal.signal(signal.SIGINT, self._before)


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("escape", "enter")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-c")
    @keys.add("<sigint>")
    def empty_or_leave(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    return keys
