"""What all processes of one key have in common: requests in flight and over, in a file.

Law: everything but `lock` is for who holds the lock. Writes are in such an order that whoever is
killed between two of them leaves a unit counted twice, or one that belongs to a dead process; never
one too few. Who looks for dead processes counts the slots again, and so puts that right.

A boot of the machine moves the file's time on by as much as the wall clock says, less a second,
and never back: should that clock have been set back, all is as if no time had passed.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from operator import add, sub
from pathlib import Path
from typing import NamedTuple

from .._sansio.limits_file import (
    DIMENSIONS,
    ENTRY_SIZE,
    FILE_SIZE,
    HEADER_SIZE,
    NO_SLOT,
    RING,
    SLOT_SIZE,
    SLOTS,
    SLOTS_AT,
    SLOTS_SIZE,
    Costs,
    Header,
    Slot,
    entry_at,
    pack_entry,
    slot_at,
    unpack_entries,
)
from ._process import Process, boot_id, is_alive, this_process
from ._state import StateFile

__all__ = ["NOTHING", "Ledger", "Place"]

_S = 1_000_000_000
_UNSEEN_PROCESS = 3600 * _S
"""How long one that cannot be seen is believed to wait for an answer."""
_LOOK_EVERY = _S // 10
_AT_ONCE = 1024
NOTHING: Costs = (0,) * DIMENSIONS


class Place(NamedTuple):
    """Where a request in flight is written down: in which file, where, what it costs, what it says
    there, and as of when: later, somebody who believed its process dead may have struck it out."""

    epoch: int
    number: int
    costs: Costs
    slot: bytes
    version: int


class Ledger:
    """The file of one key.

    Args:
        path: Where.
        wall: The wall clock, in ns.
        open_file: How it is opened.

    Attributes:
        header: What holds for the whole, since `refresh`.
        file: All of it, as bytes.

    Raises:
        OSError: The file cannot be had.
    """

    header: Header

    def __init__(
        self,
        path: Path,
        wall: Callable[[], int],
        open_file: Callable[[Path], StateFile] = StateFile,
    ) -> None:
        self._path = path
        self._wall = wall
        self._open_file = open_file
        self.file = open_file(path)
        self._boot = boot_id()
        self.process: Process = this_process()
        self._data: bytes | None = None
        self._version = 0  # counts how often others have written
        self._free: list[tuple[int, int]] = []
        self._look_at = 0

    def lock(self) -> bool:
        """Whether the file is locked."""
        return self.file.lock()

    def unlock(self) -> None:
        """Let others have it."""
        self.file.unlock()

    def close(self) -> None:
        """Let go of it."""
        self.file.close()

    # ─── the whole ────────────────────────────────────────────────────────────────────────

    def refresh(self, now: int) -> bool:
        """Read the header if somebody has written; whether that was so. A file that somebody has
        deleted is begun anew.

        Raises:
            BlockingIOError: Another process is just beginning it.
            Damaged: It cannot be believed.
            Foreign: It is not ours.
            OSError: It cannot be read.
        """
        if now >= self._look_at:
            self._look_at = now + _LOOK_EVERY
            if not self.file.is_at(self._path):
                self.file.close()
                self.file = self._open_file(self._path)
                if not self.file.lock():
                    raise BlockingIOError
        data = self.file.read(HEADER_SIZE, 0)
        if data == self._data:
            return False
        self._version += 1
        if not data.strip(b"\0") and self.file.size in (0, FILE_SIZE):  # who began it was killed
            self.reset(now)
            return True
        header = self.header = Header.unpack(data)
        self.file.protect()
        self._data = data
        if header.boot != self._boot:
            passed = max(0, self._wall() - header.wall - _S)
            header.base = header.latest + passed - now
            header.boot = self._boot
            self.commit(now)
        elif header.latest > now + header.base:  # no clock of a machine does that: a container's
            header.base = header.latest - now
        return True

    def reset(self, now: int) -> None:
        """Begin anew."""
        self.file.protect()
        self.file.clear(FILE_SIZE)
        epoch = int.from_bytes(os.urandom(8), "little") | 1
        self.header = Header(epoch, self._boot, 0, now)
        self.commit(now)

    def commit(self, now: int) -> None:
        """Write the header, and with it that all is written."""
        header = self.header
        header.latest = max(header.latest, now + header.base)
        header.wall = self._wall()
        self._data = header.pack()
        self.file.write(self._data, 0)

    # ─── requests ─────────────────────────────────────────────────────────────────────────

    def has_room(self) -> bool:
        """Whether there is a slot for one more request in flight."""
        for fresh in (False, True):
            if fresh:
                taken = {number for number, _ in self._slots()}
                free = [number for number in range(SLOTS) if number not in taken]
                some = random.sample(free, min(64, len(free)))  # others look for some too
                self._free = [(number, self._version) for number in some]
            while self._free:
                number, version = self._free[-1]
                at = slot_at(number)
                if version == self._version or self.file.read(SLOT_SIZE, at) == NO_SLOT:
                    return True
                self._free.pop()
        return False

    def take(self, now: int, costs: Costs) -> Place:
        """One is in flight from now on; there is room for it."""
        header = self.header
        number, _ = self._free.pop()
        slot = Slot(*self.process, now + header.base, costs).pack()
        header.in_flight = list(map(add, header.in_flight, costs))
        self.commit(now)
        self.file.write(slot, slot_at(number))
        return Place(header.epoch, number, costs, slot, self._version)

    def give_back(self, place: Place, now: int) -> bool:
        """It never left; False if somebody has struck it out already."""
        if not self._stands(place):
            return False
        self._leave(place, now, NOTHING)
        return True

    def settle(
        self, place: Place, now: int, arrived: int, used: Sequence[int], left: Costs = NOTHING
    ) -> Place | None:
        """It had arrived by then, and came to that; `left` of it is still in flight, and where
        that stands is returned. None if somebody has struck it out already, or there is no room to
        write it down, so that all of it stays in flight."""
        if not self._stands(place):
            return None
        if any(used) and not self._append(now, arrived, used):
            return None
        return self._leave(place, now, left)

    def _append(self, now: int, arrived: int, used: Sequence[int]) -> bool:
        header = self.header
        if header.head >= RING:
            data = self.file.read(ENTRY_SIZE, entry_at(header.head))
            oldest = int.from_bytes(data[8:16], "little", signed=True)
            if oldest + header.keep > now + header.base:
                return False
        entry = pack_entry(header.epoch, header.head, arrived + header.base, used)
        self.file.write(entry, entry_at(header.head))
        header.head += 1
        return True

    def _stands(self, place: Place) -> bool:
        at = slot_at(place.number)
        return place.version == self._version or self.file.read(SLOT_SIZE, at) == place.slot

    def _leave(self, place: Place, now: int, left: Costs) -> Place:
        header = self.header
        header.in_flight = list(map(sub, header.in_flight, place.costs))
        slot = NO_SLOT
        if left is not NOTHING and any(left):
            header.in_flight = list(map(add, header.in_flight, left))
            slot = Slot(*self.process, now + header.base, left).pack()
        self.commit(now)
        self.file.write(slot, slot_at(place.number))
        if slot is NO_SLOT:
            self._free.append((place.number, self._version))
        return Place(place.epoch, place.number, left, slot, self._version)

    def trim(self, now: int) -> None:
        """Go past the entries that nobody needs any more, so that who begins need not read them."""
        header = self.header
        header.tail = max(header.tail, header.head - RING)
        for arrived, _ in self.entries(header.tail):
            if arrived + header.keep > now:
                break
            header.tail += 1

    def is_idle(self, now: int) -> bool:
        """Whether it holds nothing that anybody would miss."""
        self.trim(now)
        header = self.header
        held = any(header.in_flight) or header.blocked > now + header.base
        return header.tail == header.head and not held

    def entries(self, since: int) -> Iterator[tuple[int, Costs]]:
        """Requests that are over, from that entry on: by when they had arrived, and their costs."""
        header = self.header
        while since < header.head:
            count = min(header.head - since, RING - since % RING, _AT_ONCE)
            data = self.file.read(count * ENTRY_SIZE, entry_at(since))
            for arrived, costs in unpack_entries(data, header.epoch, since, count):
                yield arrived - header.base, costs
            since += count

    def orphans(self, now: int) -> list[Place]:
        """Requests in flight whose processes are gone; all in flight are counted again."""
        in_flight = [0] * DIMENSIONS
        alive: dict[Process, bool | None] = {}
        found = []
        for number, slot in self._slots():
            in_flight = list(map(add, in_flight, slot.costs))
            process = Process(*slot[:4])
            if process not in alive:
                alive[process] = is_alive(process, self.process)
            known = alive[process]
            if known is None:
                known = slot.taken + _UNSEEN_PROCESS > now + self.header.base
            if not known:
                data = slot.pack()
                found.append(Place(self.header.epoch, number, slot.costs, data, self._version))
        if in_flight != self.header.in_flight:
            self.header.in_flight = in_flight
            self.commit(now)
        return found

    def _slots(self) -> Iterator[tuple[int, Slot]]:
        return Slot.unpack_all(self.file.read(SLOTS_SIZE, SLOTS_AT))
