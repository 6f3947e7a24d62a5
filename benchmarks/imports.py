"""Import statements go in; their CPU, their memory and the heavy modules they load come out.

Each statement runs in a fresh interpreter, in turns, bytecode compiled beforehand. CPU and not
wall time, so that other processes do not count; with warm disks the two are the same.
"""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median

from .table import Bar, Row, Table
from .worker import ROOT, environment

__all__ = ["imports"]

MSGSPEC = "import msgspec"
OURS = "import fluence_async"
OURS_USED = "from fluence_async import FluenceSession"
OTHERS = ("import aiohttp", "import openai")
ALLOWED_MS = 60
FORBIDDEN = ("aiohttp", "httpcore2", "rich")

# Nothing is imported before the statement that it could profit from: `sys` and `time` are built in.
PROBE = """
import sys, time

def rss_kb():
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    except OSError:
        import resource
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak // 1024 if sys.platform == "darwin" else peak

rss_kb()
before, begun = rss_kb(), time.process_time()
try:
    {statement}
except ImportError as error:
    sys.exit(f"left out: {statement} ({{error}})")
seconds = time.process_time() - begun
grown = rss_kb() - before
import json
print(json.dumps([seconds * 1e3, grown / 1024, sorted({{*{watched!r}}} & {{*sys.modules}})]))
"""
WATCHED = (*FORBIDDEN, "anyio", "asyncio", "httpx", "httpx2", "pydantic", "ssl", "trio", "typer")


def probe(statement: str) -> tuple[float, float, list[str]] | str:
    """CPU in ms, growth in MiB and the watched modules that are loaded; or why not."""
    child = subprocess.run(
        [sys.executable, "-c", PROBE.format(statement=statement, watched=WATCHED)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode:
        return child.stderr.strip()
    cpu_ms, grown_mib, modules = json.loads(child.stdout)
    return cpu_ms, grown_mib, modules


def imports(*, quick: bool) -> list[Table]:
    """Run each statement in turns; two tables, CPU and memory."""
    cpu = Table("import", "CPU of the statement in a fresh interpreter", "ms", [], base=MSGSPEC)
    memory = Table("import", "memory (RSS) that it adds", "MiB", [], base=MSGSPEC)
    loaded = {}
    for statement in (MSGSPEC, OURS, OURS_USED, *OTHERS):
        found = probe(statement)  # this one compiles
        if isinstance(found, str):
            cpu.notes.append(found)
            continue
        loaded[statement] = found[2]
        cpu.rows.append(Row(statement, []))
        memory.rows.append(Row(statement, []))
    for turn in range(3 if quick else 11):
        for spent, grown in zip(cpu.rows, memory.rows, strict=True):
            if spent.name in OTHERS and turn >= (1 if quick else 3):
                continue
            found = probe(spent.name)
            assert not isinstance(found, str), found
            spent.rounds.append(found[0])
            grown.rounds.append(found[1])
    for ours in (OURS, OURS_USED):
        if row := cpu.row(ours):
            cpu.bars += [time_bar(row, cpu.rows[0]), modules_bar(ours, loaded[ours])]
    return [cpu, memory]


def time_bar(row: Row, msgspec: Row) -> Bar:
    more = median(own - other for own, other in zip(row.rounds, msgspec.rounds, strict=True))
    says = f"{row.name} at most {ALLOWED_MS} ms more than {msgspec.name}"
    return Bar(says, f"{more:.1f}", more <= ALLOWED_MS)


def modules_bar(statement: str, loaded: list[str]) -> Bar:
    heavy = [name for name in FORBIDDEN if name in loaded]
    says = f"{statement} loads none of {', '.join(FORBIDDEN)}"
    return Bar(says, ", ".join(heavy) or "none", not heavy)
