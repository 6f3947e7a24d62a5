"""What calls cost goes in, and stays beyond the process: sums by day, model and tags, in SQLite.

Law: nobody waits for the file and nothing fails of it. A call's end adds to sums in memory, and a
thread that lives only while there is something to write adds these to the file, all of them in
one transaction. So a kill loses what the last few hundredths of a second brought, and half of
nothing; processes add to one another's sums; and what cannot be written (full, locked, no such
disk) is a warning and is tried again later.

Rejected: writing at the end of a call, or through anyio, which would make who waits for an answer
wait for a disk; and a connection kept open, which a fork would inherit.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import anyio
import msgspec
from anyio.to_thread import run_sync

from ._own_database import OwnConnection, inode_of_ours, is_made, make, own
from ._sansio.arguments import check_path
from ._sansio.metering import UsageTotals
from .meta import Meta
from .types import Usage

__all__ = ["Ledger", "LedgerEntry", "default_path", "read_ledger"]

_logger = logging.getLogger("fluence_async")

_APPLICATION_ID = 0x666C756C  # "flul"
_BUSY_S = 1.0
_GATHER_S = 0.02
"""How long the writer waits for more, so that many calls are one transaction."""
_CLOSE_S = 3.0
_PAUSE_S = 5.0
"""After the file could not be written."""
_MANY_ROWS = 100_000

_Row = tuple[str, str, str]
_SUMS = UsageTotals.__struct_fields__
_SCHEMA = f"""
CREATE TABLE usage (
    day TEXT NOT NULL, model TEXT NOT NULL, tags TEXT NOT NULL,
    {", ".join(f"{name} NUMERIC NOT NULL" for name in _SUMS)},
    PRIMARY KEY (day, model, tags)
) WITHOUT ROWID
"""
_ADD = f"""
INSERT INTO usage (day, model, tags, {", ".join(_SUMS)})
VALUES ({", ".join("?" * (3 + len(_SUMS)))})
ON CONFLICT DO UPDATE SET {", ".join(f"{name} = {name} + excluded.{name}" for name in _SUMS)}
"""  # noqa: S608 - the names of fields
_READ = f"SELECT day, model, tags, {', '.join(_SUMS)} FROM usage WHERE day >= ? ORDER BY 1, 2, 3"  # noqa: S608


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What the calls of one day, one model and one set of tags came to.

    Attributes:
        day: The day on which they ended, by UTC: `2026-01-31`.
        model: The model, by the name that was asked for.
        tags: Their tags.
        totals: What they came to.
    """

    day: str
    model: str
    tags: dict[str, str]
    totals: UsageTotals


class Ledger:
    """A file in which sessions keep what their calls cost, any number of processes at once.

    Readable by its owner only. Models, tags and sums are in it; prompts, answers and keys are not.

    Args:
        path: The file; None for `default_path()`.

    Raises:
        ValueError, TypeError: A path that can be none.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        check_path("path", path)
        self._path = default_path() if path is None else Path(path)
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        # Reentrant, because a stream that is collected as garbage is counted wherever that happens.
        self._lock = threading.RLock()
        self._file = threading.Lock()
        self._sums: dict[_Row, UsageTotals] = {}
        self._writing = False
        self._not_before = 0.0
        self._warned = False

    def count(
        self,
        at: float,
        model: str,
        meta: Meta,
        usage: Usage | None,
        cost: float,
        *,
        estimated: bool,
        failed: bool,
    ) -> None:
        """Count a call that ended `at`, in seconds since the epoch; the rest as `UsageTotals`."""
        if self._pid != os.getpid():  # what a fork brought along is for the parent to write
            self._begin()
        row = (_day(int(at // 86400)), model, _encode_tags(meta.tags))
        with self._lock:
            sums = self._sums.get(row)
            if sums is None:
                if len(self._sums) >= _MANY_ROWS:
                    return
                sums = self._sums[row] = UsageTotals()
            sums.count(meta, usage, cost, estimated, failed)
            if self._writing or time.monotonic() < self._not_before:
                return
            self._writing = True
        try:
            threading.Thread(target=self._write_all, name="fluence usage ledger").start()
        except RuntimeError:  # the interpreter is ending
            self._writing = False

    async def aclose(self) -> None:
        """Write what is not written yet; waits 3 seconds at most."""
        if self._pid == os.getpid() and (self._sums or self._writing):
            with anyio.move_on_after(_CLOSE_S, shield=True):
                await run_sync(self._write, abandon_on_cancel=True)

    # ─── the thread ───────────────────────────────────────────────────────────────────────

    def _write_all(self) -> None:
        while True:
            time.sleep(_GATHER_S)
            with self._lock:
                if not self._sums or time.monotonic() < self._not_before:
                    self._writing = False
                    return
            self._write()

    def _write(self) -> None:
        """Add what there is to the file; what cannot be added stays for the next time."""
        with self._file:
            with self._lock:
                sums, self._sums = self._sums, {}
            if not sums:
                return
            try:
                _add(self._path, sums)
            except (sqlite3.Error, OSError, ValueError) as error:
                self._keep(sums)
                self._not_before = time.monotonic() + _PAUSE_S
                self._warn(error)
            else:
                self._warned = False

    def _keep(self, sums: dict[_Row, UsageTotals]) -> None:
        with self._lock:
            for row, more in self._sums.items():
                sums.setdefault(row, UsageTotals()).add(more)
            self._sums = sums

    def _warn(self, error: Exception) -> None:
        """Once, until it works again."""
        level = logging.DEBUG if self._warned else logging.WARNING
        self._warned = True
        _logger.log(
            level,
            "the ledger %s could not be written (%s: %s); calls go on, and it is tried again",
            self._path,
            type(error).__name__,
            error,
        )

    def __repr__(self) -> str:
        return f"<Ledger in {self._path}>"


def read_ledger(
    path: str | os.PathLike[str] | None = None, *, since: str = ""
) -> list[LedgerEntry]:
    """What is in a ledger, by day, model and tags.

    Args:
        path: The file; None for `default_path()`.
        since: The first day, such as `2026-01-31`, by UTC.

    Raises:
        FileNotFoundError: There is none.
        ValueError: The file is no ledger, or is damaged or locked.
        OSError: It cannot be read.
    """
    path = default_path() if path is None else Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"there is no ledger at {path}: FluenceSession(ledger=True) keeps one"
        )
    if not inode_of_ours(path, _APPLICATION_ID):
        raise _not_ours(path)
    try:
        with _opened(path) as connection:
            rows = connection.execute(_READ, (since,)).fetchall()
        return [_entry(row) for row in rows]
    except (sqlite3.Error, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"the ledger {path} cannot be read: {error}") from error


def default_path() -> Path:
    """Where this user's ledger is: `fluence/usage.sqlite3`, beside other programs' states."""
    if sys.platform == "win32":
        state = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    elif sys.platform == "darwin":
        state = Path.home() / "Library/Application Support"
    else:
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    return state / "fluence" / "usage.sqlite3"


# ─── the file ─────────────────────────────────────────────────────────────────────────────


def _add(path: Path, sums: dict[_Row, UsageTotals]) -> None:
    if not own(path, _APPLICATION_ID):
        raise _not_ours(path)
    rows = [(*row, *msgspec.structs.astuple(totals)) for row, totals in sums.items()]
    with _opened(path, new=True) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(_ADD, rows)
        connection.execute("COMMIT")


@contextmanager
def _opened(path: Path, *, new: bool = False) -> Iterator[sqlite3.Connection]:
    connection = OwnConnection(path, timeout=_BUSY_S, isolation_level=None)
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        if new:
            ours = make(connection, _APPLICATION_ID, [_SCHEMA])
        else:
            ours = is_made(connection, _APPLICATION_ID)
        if not ours:
            raise _not_ours(path)
        yield connection
    finally:
        connection.close()


def _not_ours(path: Path) -> ValueError:
    return ValueError(
        f"{path} is no ledger, but another program's file, or damaged beyond recognition, and is "
        "left as it is: name another path, or delete it"
    )


def _entry(row: tuple[object, ...]) -> LedgerEntry:
    day, model, tags, *sums = row
    return msgspec.convert(
        {
            "day": day,
            "model": model,
            "tags": msgspec.json.decode(tags) if isinstance(tags, str) else tags,
            "totals": dict(zip(_SUMS, sums, strict=True)),
        },
        LedgerEntry,
    )


def _encode_tags(tags: dict[str, str]) -> str:
    return msgspec.json.encode(tags, order="sorted").decode() if tags else "{}"


@lru_cache(maxsize=4)
def _day(number: int) -> str:
    """The name of a day, counted from the epoch."""
    return datetime.fromtimestamp(number * 86400, UTC).date().isoformat()
