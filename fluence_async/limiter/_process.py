"""Who this process is, and whether another one still is: what Linux tells in `/proc`.

Law: a process is known by its number and the time of its start, since numbers are used again; and
by its boot. Of one in another pid or time namespace (a container with the same home directory)
nothing can be known.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

__all__ = ["Process", "boot_clock", "boot_id", "is_alive", "this_process"]


class Process(NamedTuple):
    """One process among all that this machine has ever had."""

    pid: int
    boot: int
    namespace: int
    started: int


def boot_clock() -> Callable[[], int]:
    """Nanoseconds that all processes of this machine count alike, asleep or awake: in whatever time
    namespace they are (https://man7.org/linux/man-pages/man7/time_namespaces.7.html)."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return time.monotonic_ns
    offset = _boot_offset()
    if offset:
        return lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME) - offset
    return partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)


def _boot_offset() -> int:
    """By how much this process's namespace shifts the boot clock, in ns."""
    try:
        lines = Path("/proc/self/timens_offsets").read_text("ascii").splitlines()
    except OSError:  # a kernel before 5.6, or no /proc
        return 0
    found = [line.split() for line in lines if line.startswith("boottime")]
    return sum(int(seconds) * 1_000_000_000 + int(ns) for _, seconds, ns in found)


def boot_id() -> bytes:
    """16 bytes, others after each boot."""
    return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().replace("-", ""))


def this_process() -> Process:
    """The running one."""
    pid = os.getpid()
    started = _started(pid)
    namespace = _inode("pid") ^ _inode("time")  # in another, pids or start times are others
    return Process(pid, int.from_bytes(boot_id()[:4], "little"), namespace, started or 0)


def _inode(kind: str) -> int:
    """What tells a namespace of this process from others, in 32 bits; 0 if the kernel has none."""
    try:
        return Path(f"/proc/self/ns/{kind}").stat().st_ino & 0xFFFF_FFFF
    except OSError:
        return 0


def is_alive(process: Process, here: Process) -> bool | None:
    """Whether it is; None if `here`, the running one, cannot see it."""
    if process == here:
        return True
    if process.boot != here.boot:
        return False
    if process.namespace != here.namespace:
        return None
    return _started(process.pid) == process.started


def _started(pid: int) -> int | None:
    """When a process began, in ticks since boot; None if it is no more (or a zombie)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = text.rpartition(b")")[2].split()  # its name may hold anything
    return None if state in b"ZXx" else int(fields[18])
