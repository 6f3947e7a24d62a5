"""The command line as a test runs it: in a process of its own, with pipes or at a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from fluence_async.testing import FluenceServer

__all__ = ["COMMAND", "Terminal", "environment", "fluence", "started", "until"]

COMMAND = [sys.executable, "-W", "error", "-m", "fluence_async"]
PATIENCE_S = 60.0  # of a test that hangs; nothing waits for it otherwise

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So a shell starts what runs in its background, and the children would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The child makes the terminal its own, so that Ctrl-C typed there reaches it as a signal.
_AT_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


def environment(server: FluenceServer | None = None, **changes: str) -> dict[str, str]:
    """The environment of the child: pointed at `server`, or at nothing."""
    kept = {
        name: os.environ[name] for name in ("HOME", "PATH", "XDG_STATE_HOME") if name in os.environ
    }
    kept |= {"PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm-256color"}
    kept |= {"PROMPT_TOOLKIT_NO_CPR": "1", "PYTHONUTF8": "1"}
    if server is not None:
        kept |= {"FLUENCE_BASE_URL": server.base_url, "FLUENCE_API_KEY": server.api_key}
    return kept | changes


def fluence(
    *arguments: str,
    server: FluenceServer | None = None,
    stdin: str | bytes = "",
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `fluence` with pipes, to its end."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        env=env or environment(server),
        timeout=PATIENCE_S,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


@contextmanager
def started(*arguments: str, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start `fluence` with pipes; at the end, or if it hangs, it is killed."""
    with subprocess.Popen(
        [*COMMAND, *arguments],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        watchdog = threading.Timer(PATIENCE_S, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()


def until(condition: Callable[[], bool]) -> None:
    """Wait for what a server sees a moment later."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Terminal:
    """`fluence` at a pseudo-terminal of its own."""

    def __init__(self, arguments: Sequence[str], env: dict[str, str]) -> None:
        self._arguments = arguments
        self._env = env
        self._seen = 0
        self.output = ""
        self.status: int | None = None

    def __enter__(self) -> Self:
        self._keyboard, self._screen = pty.openpty()
        fcntl.ioctl(self._screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.attributes = termios.tcgetattr(self._screen)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _AT_TERMINAL, *COMMAND, *self._arguments],
            stdin=self._screen,
            stdout=self._screen,
            stderr=self._screen,
            env=self._env,
            start_new_session=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._keyboard)
        os.close(self._screen)

    @property
    def text(self) -> str:
        """All output without escape sequences."""
        return re.sub(r"\x1b(?:\[[^A-Za-z]*[A-Za-z]|[=>])", "", self.output)

    @property
    def echoes(self) -> bool:
        """Whether what is typed now is echoed."""
        return bool(termios.tcgetattr(self._screen)[3] & termios.ECHO)

    def type(self, text: str) -> None:
        """Type on the keyboard."""
        os.write(self._keyboard, text.encode())

    def signal(self, number: int) -> None:
        """Send the process a signal that does not come from the keyboard."""
        self._process.send_signal(number)

    def expect(self, text: str) -> None:
        """Read on until `text` has come, after what was expected before."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.text[self._seen :]:
            assert time.monotonic() < deadline, f"{text!r} is not in {self.text[self._seen :]!r}"
            self._read(0.1)
        self._seen = self.text.index(text, self._seen) + len(text)

    def wait(self) -> int:
        """Read on to the end of the program; return its exit code."""
        deadline = time.monotonic() + PATIENCE_S
        while self._process.poll() is None:
            assert time.monotonic() < deadline, f"still running after {self.text[self._seen :]!r}"
            self._read(0.05)
        while self._read(0.0):
            pass
        return self._process.returncode

    def assert_as_found(self) -> None:
        """The terminal is as the program found it, and its cursor can be seen."""
        assert termios.tcgetattr(self._screen) == self.attributes
        assert self.output.rfind("\x1b[?25l") <= self.output.rfind("\x1b[?25h")
        assert self.output.rfind("\x1b[?7l") <= self.output.rfind("\x1b[?7h")
        assert self.output.rfind("\x1b[?2004h") <= self.output.rfind("\x1b[?2004l")

    def _read(self, seconds: float) -> bool:
        if not select.select([self._keyboard], [], [], seconds)[0]:
            return False
        self.output += os.read(self._keyboard, 65536).decode(errors="replace")
        return True
