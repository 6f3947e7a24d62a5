"""Bytes of an event stream go in, in any pieces; server-sent events come out.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation

Law: any cutting gives the same events, each as soon as its blank line is in (a lone CR is a line
end at once, and a LF that then follows is swallowed), in time linear in the bytes.

How: CR and CRLF become LF at the door. What follows the last LF waits in a bytearray that is not
looked at again until the next LF comes; so it never holds a line end, and each byte is copied a
bounded number of times. Whole lines are taken one by one, as the spec does, except where they
are a run of `data: …` events, which is nearly always: one split does the work, and that no LF is
left proves it. UTF-8 is decoded after the cut at LF, which is no part of any other character, so
that malformed bytes become U+FFFD as if the whole stream had been decoded at once.

Rejected: a pending CR held back until the next byte tells whether it was a CRLF (an event would
wait for the next one); `splitlines` on text (it splits at U+2028 and six others); decoding
incrementally (slower than decoding whole lines, and a second place for a cut to matter).
"""

from __future__ import annotations

import msgspec

__all__ = ["EventTooLarge", "SSEDecoder", "ServerSentEvent", "lone_payload"]

_BOM = b"\xef\xbb\xbf"
_FIELDS = (b"data", b"event", b"id", b"retry")
_RETRY_DIGITS = 300  # the spec sets no bound; so many always fit int() and float()


class ServerSentEvent(msgspec.Struct, frozen=True, gc=False):
    """One dispatched event.

    Attributes:
        event: Its type.
        data: Its data lines, joined by LF.
        id: The last event id as of this event; it stays until another comes.
        retry: The reconnection time that this event's own block set, in milliseconds.
    """

    event: str = "message"
    data: str = ""
    id: str = ""
    retry: int | None = None


class EventTooLarge(ValueError):
    """One event, or one line, is larger than the decoder may hold.

    Attributes:
        size: Bytes of the event's lines when it was given up; it may have been longer.
        limit: The decoder's `max_event`.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        size = f"an event of {self.size} bytes or more"
        return f"{size} passes the limit of {self.limit}; allow more with max_event="


class SSEDecoder:
    r"""An event stream, pushed in as it arrives.

    Args:
        max_event: The largest event, in bytes of its lines without line ends.

    Example:
        >>> decoder = SSEDecoder()
        >>> decoder.feed(b"data: Hel")
        []
        >>> decoder.feed(b"lo\n\n")
        [ServerSentEvent(event='message', data='Hello', id='', retry=None)]
    """

    def __init__(self, *, max_event: int = 16 * 2**20) -> None:
        if max_event < 1:
            raise ValueError(f"max_event is {max_event}; it must be at least 1 byte")
        self._max_event = max_event
        self._at_start = True  # a BOM may still come
        self._after_cr = False  # the last byte was a CR: a LF now belongs to it
        self._tail = bytearray()  # the line that has not ended
        self._too_large = 0  # the size of the event that ended this decoder's life
        self._last_id = ""
        self._reconnection_time: int | None = None
        # The block (the lines since the last blank one): its size, counting known fields only,
        # is above 0 exactly when one of them has been read.
        self._size = 0
        self._data = bytearray()  # each data line and a LF
        self._event = ""
        self._id = ""
        self._retry: int | None = None

    def __repr__(self) -> str:
        pending = self._size + len(self._tail)
        return f"<SSEDecoder max_event={self._max_event}, {pending} bytes pending>"

    @property
    def last_event_id(self) -> str:
        """The id as of the last blank line; "" if none was set."""
        return self._last_id

    @property
    def reconnection_time(self) -> int | None:
        """What the last valid `retry` field said, in milliseconds."""
        return self._reconnection_time

    @property
    def mid_event(self) -> bool:
        """Whether an end of the stream now would truncate an event.

        True if a field (data, event, id, retry) has been read since the last blank line, or the
        unfinished line is or could become one. Comments and unknown fields do not count.
        """
        if self._size or self._too_large:
            return True
        name, colon, _ = bytes(self._tail[:8]).partition(b":")
        if colon:
            return name in _FIELDS
        return name != b"" and any(field.startswith(name) for field in _FIELDS)

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Push bytes in, get the events that they completed.

        Raises:
            EventTooLarge: An event passes `max_event`. Events completed before it by the same
                bytes are returned first: then the next call raises, and every one after it.
        """
        if self._too_large:
            raise EventTooLarge(self._too_large, self._max_event)
        if self._at_start:
            data = bytes(self._tail) + data
            self._tail.clear()
            if _BOM.startswith(data):
                self._tail += data
                return []
            self._at_start = False
            data = data.removeprefix(_BOM)
        if not data:
            return []
        if self._after_cr:
            data = data.removeprefix(b"\n")
        self._after_cr = data.endswith(b"\r")
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        end = data.rfind(b"\n") + 1
        events: list[ServerSentEvent] = []
        try:
            if end:
                lines = bytes(self._tail) + data[:end]
                self._tail.clear()
                self._take(lines, events)
            self._tail += data[end:]
            self._bound(len(self._tail))
        except EventTooLarge as error:
            self._too_large = error.size
            if not events:
                raise
        return events

    @property
    def between_events(self) -> bool:
        """Whether nothing of what comes next has begun, so that a whole event (see `lone_payload`)
        would leave no trace here."""
        return not (self._tail or self._size or self._at_start or self._too_large)

    def feed_lines(self, data: bytes) -> tuple[bytes, int] | None:
        """Push bytes in if all they complete is events written exactly `data: {…}`, LF, LF.

        What most streams of JSON are, and so the quick way to read them: it makes no objects,
        and what it returns can be decoded as one batch of JSON lines.

        Law: calls of `feed_lines`, each followed by `feed` of the same bytes where it returned
        None, give exactly the payloads that `feed` alone would have given.

        Returns:
            The payloads (valid UTF-8, joined by LF, each beginning with `{` and ending with `}`)
            and how many: `(b"", 0)` if the bytes completed none. None if there may be anything
            else in them, or too much: nothing is consumed then, and `feed` takes them.
        """
        held = len(self._tail)
        if self._size or self._too_large or self._after_cr or held + len(data) > self._max_event:
            return None
        if b"\r" in data or (self._at_start and (self._tail or data)[:1] == _BOM[:1]):
            return None
        last = data.rfind(b"\n")
        if last < 0:
            self._tail += data
            return b"", 0
        buffer = bytes(self._tail) + data if held else data
        end = held + last + 1
        if not buffer.startswith(b"data: {") or not buffer.endswith(b"}\n\n", 0, end):
            return None
        inner = buffer[6 : end - 2].split(b"}\n\ndata: {")
        lines = b"}\n{".join(inner)
        # Any other line would leave a LF besides the separators.
        if b"\n" in b"".join(inner) or not _is_utf8(lines):
            return None
        self._at_start = False
        if held or end < len(buffer):
            self._tail[:] = buffer[end:]
        return lines, len(inner)

    def _bound(self, line: int) -> None:
        """Refuse a block that a line of so many bytes would make too large."""
        if self._size + line > self._max_event:
            raise EventTooLarge(self._size + line, self._max_event)

    def _take(self, lines: bytes, events: list[ServerSentEvent]) -> None:
        """Read whole lines (the last byte is a LF)."""
        if not self._size and lines.startswith(b"data: ") and len(lines) <= self._max_event:
            end = lines.rfind(b"\n\n")
            run = lines[6 : max(end, 6)].decode("utf-8", "replace").split("\n\ndata: ")
            # Any other line would leave a LF besides the separators.
            if end > 0 and "\n" not in "".join(run):
                last_id = self._last_id
                events += [ServerSentEvent("message", data, last_id) for data in run]
                lines = lines[end + 2 :]
        for line in lines.split(b"\n")[:-1]:
            self._bound(len(line))
            if line:
                self._field(line)
            else:
                self._dispatch(events)

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name not in _FIELDS:  # a comment has the empty name
            return
        self._size += len(line)
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data += value
            self._data += b"\n"
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif value.isdigit() and len(value) <= _RETRY_DIGITS:  # of bytes: ASCII digits only
            self._retry = self._reconnection_time = int(value)

    def _dispatch(self, events: list[ServerSentEvent]) -> None:
        self._last_id = self._id
        if self._data:
            data = self._data[:-1].decode("utf-8", "replace")
            events.append(ServerSentEvent(self._event or "message", data, self._id, self._retry))
            self._data.clear()
        self._size = 0
        self._event = ""
        self._retry = None


def lone_payload(data: bytes) -> bytes | None:
    """What a live stream nearly always brings, one event written `data: {…}`, LF, LF and nothing
    else: its payload, which need not be valid UTF-8; None if `data` may be anything else."""
    if (
        data.startswith(b"data: {")
        and data.endswith(b"}\n\n")
        and data.find(b"\n") == len(data) - 2
        and data.find(b"\r") < 0
    ):
        return data[6:-2]
    return None


def _is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
