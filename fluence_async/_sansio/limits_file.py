"""What a limiter's file holds: its records in, bytes out, and back.

    header    what is true of the whole: how many units are in flight, how many entries there are
    lessons   what was learnt of the server (`lessons.py`); a version that learns nothing leaves it
    passed    by how many grants who waits in the batch lane was passed, and when that last looked
    slots     one for each request in flight: whose, since when, its costs
    tickets   one for each limiter that waits (`ticket.py`)
    ring      one entry for each request that has come to an end: by when it had arrived, its costs

Law: every record but those of turns (passed, tickets) carries its checksum, and none is believed
without. A header is written whole or not at all. Slots and ring are the truth; what the header says
of units in flight can be counted again from the slots.

Times in slots and ring, in ns, are the file's own: the machine's clock since boot plus `base`,
which is chosen anew after each boot so that the file's time goes on where it had stopped. Those of
turns are of the machine's clock as it is.

Rejected: `mmap` (who reads a file that somebody cuts short, or writes where the disk is full, is
killed by SIGBUS; a `pread` or `pwrite` raises), a bucket's windows in the file (each process has
its own, made from the ring, so that it may know other limits than the one beside it).
"""

from __future__ import annotations

from binascii import crc32
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import compress
from struct import Struct
from typing import Final, NamedTuple

__all__ = [
    "DIMENSIONS",
    "ENTRY_SIZE",
    "FILE_SIZE",
    "HEADER_SIZE",
    "LESSONS_AT",
    "NO_SLOT",
    "NO_TICKET",
    "PASSED",
    "PASSED_AT",
    "RING",
    "SLOTS",
    "SLOTS_AT",
    "SLOTS_SIZE",
    "SLOT_SIZE",
    "TICKET",
    "TICKETS",
    "TICKETS_AT",
    "TICKETS_SIZE",
    "VERSION",
    "Costs",
    "Damaged",
    "Foreign",
    "Header",
    "Slot",
    "entry_at",
    "pack_entry",
    "slot_at",
    "ticket_at",
    "unpack_entries",
]

DIMENSIONS: Final = 8
SLOTS: Final = 4096
TICKETS: Final = 128
RING: Final = 65536

_MAGIC = b"flulimit"
VERSION: Final = 2
_DIGEST = Struct("8s")
_NO_DIGEST = bytes(_DIGEST.size)
_HEADER = Struct(f"<I8sIIQ16sqqqqqQQ{DIMENSIONS}Q{DIMENSIONS * _DIGEST.size}s")
_HEADER_BODY = Struct(_HEADER.format.replace("I", "", 1))
_SLOT = Struct(f"<IIIIQq{DIMENSIONS}Q")
_SLOT_BODY = Struct(_SLOT.format.replace("I", "", 1))
TICKET: Final = Struct(f"<QQqq{DIMENSIONS}Q")
_ENTRY = Struct(f"<IIq{DIMENSIONS}Q")
_ENTRY_BODY = Struct(_ENTRY.format.replace("I", "", 1))
_AFTER_CHECKSUM = 4

HEADER_SIZE: Final = _HEADER.size
LESSONS_AT: Final = 1024  # up to what is at the page's end
SLOT_SIZE: Final = _SLOT.size
ENTRY_SIZE: Final = _ENTRY.size
SLOTS_AT: Final = 4096
PASSED: Final = Struct("<qq")
PASSED_AT: Final = SLOTS_AT - PASSED.size
SLOTS_SIZE: Final = SLOTS * SLOT_SIZE
TICKETS_AT: Final = SLOTS_AT + SLOTS_SIZE
TICKETS_SIZE: Final = TICKET.size
_RING_AT = TICKETS_AT + TICKETS * TICKETS_SIZE
FILE_SIZE: Final = _RING_AT + RING * ENTRY_SIZE

NO_SLOT: Final = bytes(SLOT_SIZE)
NO_TICKET: Final = bytes(TICKETS_SIZE)

Costs = tuple[int, ...]
"""Units of each dimension, in the header's order."""


class Damaged(Exception):
    """The file was a limiter's, and makes no sense any more."""


class Foreign(Exception):
    """The file is another program's, or another version's of this package: not ours to touch."""


class Header:
    """What is true of the whole file.

    Attributes:
        epoch: Another number for each beginning of the file.
        boot: Of which boot of the machine the clock is.
        base: What is added to that clock to have the file's time.
        latest: The latest time seen, in the file's time.
        wall: The wall clock then.
        keep: For how long entries are needed.
        blocked: Before this nobody takes, in the file's time.
        head: How many entries were ever written.
        tail: Those before are needed no more.
        tickets: Beyond so many, there are no tickets.
        in_flight: Units in flight, of each dimension.
        names: The dimensions' digests, one after another; the first is that of requests.
    """

    def __init__(self, epoch: int, boot: bytes, base: int, latest: int) -> None:
        self.epoch = epoch
        self.boot = boot
        self.base = base
        self.latest = latest
        self.wall = 0
        self.keep = 0
        self.blocked = 0
        self.head = 0
        self.tail = 0
        self.tickets = 0
        self.in_flight = [0] * DIMENSIONS
        self.names = _digest("requests").ljust(DIMENSIONS * _DIGEST.size, b"\0")

    def pack(self) -> bytes:
        """As it is written."""
        data = _HEADER_BODY.pack(
            _MAGIC,
            VERSION,
            self.tickets,
            self.epoch,
            self.boot,
            self.base,
            self.latest,
            self.wall,
            self.keep,
            self.blocked,
            self.head,
            self.tail,
            *self.in_flight,
            self.names,
        )
        return crc32(data).to_bytes(4, "little") + data

    @classmethod
    def unpack(cls, data: bytes) -> Header:
        """As it was read.

        Raises:
            Damaged: It is one no longer.
            Foreign: It never was, or is of another version.
        """
        if data[4:12] != _MAGIC:
            raise Foreign("it is another program's: choose another path, or delete it")
        if len(data) < HEADER_SIZE:
            raise Damaged("it is too short")
        fields = _HEADER.unpack(data)
        checksum, _, version, tickets, epoch, boot, base, latest, wall, *rest = fields
        if version != VERSION:
            raise Foreign(f"it has version {version}, and this package knows only {VERSION}")
        if checksum != crc32(data[_AFTER_CHECKSUM:]):
            raise Damaged("its header's checksum is wrong")
        self = cls(epoch, boot, base, latest)
        self.tickets = tickets
        self.wall = wall
        self.keep, self.blocked, self.head, self.tail, *self.in_flight, self.names = rest
        return self

    def has_room(self, dimensions: Iterable[str]) -> bool:
        """Whether these can have a place each."""
        known = self._digests()
        return len({*map(_digest, dimensions)} - {*known}) <= known.count(_NO_DIGEST)

    def column(self, dimension: str) -> int:
        """Where costs of a dimension are; a new one is given the next place.

        Raises:
            ValueError: There is none left.
        """
        digest = _digest(dimension)
        known = self._digests()
        if digest not in known:
            if _NO_DIGEST not in known:
                raise ValueError(f"{dimension!r} is one dimension more than it can count")
            known[known.index(_NO_DIGEST)] = digest
            self.names = b"".join(known)
        return known.index(digest)

    def _digests(self) -> list[bytes]:
        return [digest for (digest,) in _DIGEST.iter_unpack(self.names)]


def _digest(dimension: str) -> bytes:
    return blake2b(dimension.encode(), digest_size=_DIGEST.size).digest()


class Slot(NamedTuple):
    """A request in flight: the process that made it, when (in the file's time), its costs."""

    pid: int
    boot: int
    namespace: int
    started: int
    taken: int
    costs: Costs

    def pack(self) -> bytes:
        """As it is written."""
        pid, boot, namespace, started, taken, costs = self
        data = _SLOT_BODY.pack(pid, boot, namespace, started, taken, *costs)
        return crc32(data).to_bytes(4, "little") + data

    @classmethod
    def unpack_all(cls, data: bytes) -> Iterator[tuple[int, Slot]]:
        """Those that are taken, with their places.

        Raises:
            Damaged: One of them makes no sense, or there should be more.
        """
        if len(data) != SLOTS_SIZE:
            raise Damaged("it is too short")
        pids = memoryview(data).cast("I")[1 :: SLOT_SIZE // 4].tolist()  # nearly all are free
        for place in compress(range(SLOTS), pids):
            at = place * SLOT_SIZE
            checksum, *fields = _SLOT.unpack_from(data, at)
            if checksum != crc32(data[at + 4 : at + SLOT_SIZE]):
                raise Damaged("a slot's checksum is wrong")
            pid, boot, namespace, started, taken, *costs = fields
            yield place, cls(pid, boot, namespace, started, taken, tuple(costs))


def slot_at(place: int) -> int:
    """Where a slot stands."""
    return SLOTS_AT + place * SLOT_SIZE


def ticket_at(place: int) -> int:
    """Where a ticket stands."""
    return TICKETS_AT + place * TICKETS_SIZE


def entry_at(number: int) -> int:
    """Where an entry stands."""
    return _RING_AT + number % RING * ENTRY_SIZE


def pack_entry(epoch: int, number: int, arrived: int, costs: Sequence[int]) -> bytes:
    """The entry of a request that had arrived by then."""
    data = _ENTRY_BODY.pack(number & 0xFFFF_FFFF, arrived, *costs)
    return crc32(data, epoch & 0xFFFF_FFFF).to_bytes(4, "little") + data


def unpack_entries(data: bytes, epoch: int, number: int, count: int) -> Iterator[tuple[int, Costs]]:
    """`count` entries from `number` on: by when each had arrived, and its costs.

    Raises:
        Damaged: They are others, or there should be more.
    """
    if len(data) != count * ENTRY_SIZE:
        raise Damaged("it is too short")
    seed = epoch & 0xFFFF_FFFF
    for place, (checksum, low, arrived, *costs) in enumerate(_ENTRY.iter_unpack(data)):
        at = place * ENTRY_SIZE
        if low != (number + place) & 0xFFFF_FFFF or checksum != crc32(
            data[at + 4 : at + ENTRY_SIZE], seed
        ):
            raise Damaged("an entry is not what it should be")
        yield arrived, tuple(costs)
