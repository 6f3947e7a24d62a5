"""Scripts over HTTP: what a test in any language says to the server, and asks it afterwards.

    POST   /_fluence/script     {"lines": [...], "repeat": false, "when": {"text": "dragons"}}
    GET    /_fluence/requests   the requests that came, the last thousand
    DELETE /_fluence/requests   forget them, and every script

`lines` are as in `script_json`. `when` names `text`, `headers` and `fields` of the requests that
are meant; without it, all are. Whoever asks needs the server's key, as for the API itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec

from .received import Match, Received
from .refusal import Refusal
from .replies import Reply
from .responders.script import Script
from .script_json import read_line
from .written import a_line

__all__ = ["CONTROL_PATH", "Control"]

CONTROL_PATH = "/_fluence/"
_KEPT = 1000
_SECRET = frozenset({"api-key", "authorization", "cookie", "proxy-authorization", "x-api-key"})


class _When(msgspec.Struct, forbid_unknown_fields=True):
    text: str | None = None
    headers: dict[str, str] = {}
    fields: dict[str, Any] = {}


class _Written(msgspec.Struct, forbid_unknown_fields=True):
    lines: list[Any]
    repeat: bool = False
    when: _When | None = None


class Control:
    """The server's script and its memory, over HTTP.

    Args:
        script: What is written to.
    """

    def __init__(self, script: Script) -> None:
        self._script = script
        self._requests: deque[Received] = deque(maxlen=_KEPT)

    def watch(self, received: Received) -> None:
        """Remember a request."""
        self._requests.append(received)

    def answer(self, method: str, path: str, body: bytes) -> Reply:
        """What a request to `path` is answered.

        Raises:
            Refusal: It makes no sense.
        """
        match method, path.removeprefix(CONTROL_PATH):
            case "POST", "script":
                return Reply(json={"lines": self._write(body)})
            case "GET", "requests":
                return Reply(json={"requests": [_told(each) for each in self._requests]})
            case "DELETE", "requests":
                self._requests.clear()
                self._script.forget()
                return Reply(204)
        raise Refusal(
            404,
            f"No {method} {path}: there are POST {CONTROL_PATH}script, and GET and DELETE "
            f"{CONTROL_PATH}requests",
        )

    def _write(self, body: bytes) -> int:
        try:
            written = msgspec.json.decode(body, type=_Written)
            lines = [a_line(read_line(line)) for line in written.lines]
        except (ValueError, TypeError, RecursionError) as error:  # msgspec's errors are ValueErrors
            reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise Refusal(400, f"The script cannot be read: {reason}") from None
        part = self._script if written.when is None else self._script.when(_match(written.when))
        part.script(*lines, repeat=written.repeat)
        return len(lines)


def _match(when: _When) -> Match:
    return Match(text=when.text, headers=when.headers, fields=when.fields)


def _told(received: Received) -> Mapping[str, Any]:
    """A request as JSON, without its key."""
    try:
        said = received.json
    except (ValueError, RecursionError):
        said = received.body.decode(errors="replace")
    return {
        "at": received.at,
        "method": received.method,
        "path": received.path,
        "headers": {n: v for n, v in received.headers.items() if n not in _SECRET},
        "body": said,
        "status": received.status,
        "executed": received.executed,
        "refused": received.refused,
    }
