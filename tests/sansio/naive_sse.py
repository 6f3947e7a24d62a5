"""A whole event stream goes in; what the spec says it means comes out.

The referee of `fluence_async._sansio.sse`, written from the spec's words and nothing else: all of
the bytes are decoded first, all of the text is cut into lines next, and then each line is read.
https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field


@dataclass
class Reading:
    """What a stream meant, up to its last byte.

    Attributes:
        events: (type, data, last event id, retry of the event's own block) of each.
        last_event_id: As of the last blank line.
        reconnection_time: As of the last line, in milliseconds.
    """

    events: list[tuple[str, str, str, int | None]] = field(default_factory=list)
    last_event_id: str = ""
    reconnection_time: int | None = None


def read(stream: bytes) -> Reading:
    """Interpret `stream`; an event whose blank line is missing at its end is not dispatched."""
    text = stream.decode("utf-8", errors="replace")
    text = text.removeprefix("\ufeff")
    *lines, _unfinished = re.split("\r\n|\n|\r", text)

    reading = Reading()
    data_buffer = type_buffer = id_buffer = ""
    retry: int | None = None
    for line in lines:
        if line == "":
            reading.last_event_id = id_buffer
            if data_buffer != "":
                data = data_buffer[:-1]  # without the trailing LF
                reading.events.append((type_buffer or "message", data, id_buffer, retry))
            data_buffer = type_buffer = ""
            retry = None
            continue
        if line.startswith(":"):
            continue
        name, value = line.split(":", 1) if ":" in line else (line, "")
        value = value.removeprefix(" ")
        if name == "event":
            type_buffer = value
        elif name == "data":
            data_buffer += value + "\n"
        elif name == "id":
            if "\0" not in value:
                id_buffer = value
        elif name == "retry" and re.fullmatch("[0-9]+", value):
            retry = reading.reconnection_time = int(value)
    return reading
