"""`python -m benchmarks`: what fluence_async costs, beside its peers in one run.

Names of benchmarks choose some of them. Nothing here fails for being slow: the bars are printed
with what was found, and a person judges.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from .cache import cache
from .calls import CALLS, compared
from .hooks import hooks
from .imports import imports
from .limiter import limiter
from .partial import partial
from .table import Table

BENCHMARKS = (*CALLS, "limiter", "partial", "cache", "hooks", "import")
LIBRARIES = ("aiohttp", "msgspec", "anyio", "openai", "httpx2", "httpx")


def machine() -> dict[str, str]:
    """Where these figures hold: processor, system, Python, versions."""
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return {
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        **found,
    }


def processor() -> str:
    """The processor's name, as far as the system says it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"


def others_load() -> str:
    """What to say if the machine has other work, which clumps the arrivals that clients see."""
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return f"This machine is busy: load {load:.1f} on {cores} cores." if load > cores / 2 else ""


def tables(names: list[str], *, quick: bool) -> Iterator[Table]:
    """Run the benchmarks of these names, one after another."""
    for name in CALLS:
        if name in names:
            yield compared(name, quick=quick)
    if "limiter" in names:
        yield from limiter(quick=quick)
    if "partial" in names:
        yield from partial(quick=quick)
    if "cache" in names:
        yield from cache(quick=quick)
    if "hooks" in names:
        yield from hooks(quick=quick)
    if "import" in names:
        yield from imports(quick=quick)


def main() -> None:
    """Parse, run, print each table as soon as it is there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, within 30 seconds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's figures")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHMARKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    here = machine()
    print(*(f"{name} {value}" for name, value in here.items()), sep=" · ")
    if busy := others_load():
        print(f"{busy} Ratios are of little worth now, those of `live` least.")
    done = []
    for table in tables(arguments.names or list(BENCHMARKS), quick=arguments.quick):
        print("", *table.lines(), sep="\n", flush=True)
        done.append(table)
    if arguments.json:
        report = {"machine": here, "tables": done}
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
