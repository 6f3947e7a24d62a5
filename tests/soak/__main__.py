"""`nox -s soak -- --minutes N`: memory, sockets and tasks over time; fails if one of them grows."""

from __future__ import annotations

import argparse
import subprocess
import sys
from functools import partial

import anyio

from tests.soak.mixed import serve, served, soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of mixed faults")
    parser.add_argument("--cancels", type=float, default=60.0, help="seconds of random cancels")
    parser.add_argument("--streams", type=int, default=10_000, help="at once")
    parser.add_argument(
        "--backend", choices=["asyncio", "trio"], default="asyncio", help="of all but the crowd"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve is not None:
        serve(asked.serve)
        return 0
    problems: list[str] = []
    for title, seconds, cancels in (
        ("30 workers, every call cancelled at a random moment", asked.cancels, 1.0),
        ("30 workers, mixed faults", asked.minutes * 60, 0.1),
    ):
        if seconds:
            print(f"{title}, {seconds:g} s, seed {asked.seed}", flush=True)
            with served(asked.seed) as server:
                run = partial(soak, server, seconds=seconds, cancels=cancels, seed=asked.seed)
                problems += anyio.run(run, backend=asked.backend)
    for backend in ("asyncio", "trio") if asked.streams else ():
        print(f"{asked.streams} streams at once, on {backend}", flush=True)
        # In a process of its own: what another crowd has freed would be taken for little use.
        command = [sys.executable, *(f"-W{option}" for option in sys.warnoptions)]
        command += ["-m", "tests.soak.crowd", str(asked.streams), backend]
        if subprocess.run(command).returncode:
            problems.append(f"the crowd on {backend}: told wrong, left something, or too large")
    print("\n".join(problems) or "nothing grew, nothing is left")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
