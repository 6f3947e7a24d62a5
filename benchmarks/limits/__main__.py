"""`python -m benchmarks.limits`: 429s and time of our limiter and its peers, in simulated hours.

Without an option: the table and the picture, of 3,000 requests under 100 a minute and 1000 an hour.
`--seeds N` runs so many small scenes, names those that broke a promise, and fails if any did;
`--seed N` runs one of them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from .networks import NETWORKS
from .ours import Ours
from .peers import PEERS
from .picture import picture
from .runs import AS_PROMISED, DOCUMENTED, Scene, broken, long_run, promised
from .servers import SERVERS

CALLS = 3000
SENDERS: dict[str, Callable[..., Any]] = {
    'fluence_async, policy="any"': Ours,
    'fluence_async, policy="window"': partial(Ours, policy="window"),
    **PEERS,
}
NETWORK = "jittered"


def figures(network: str, *, headers: bool) -> dict[str, dict[str, tuple[int, float]]]:
    """Refusals, and the makespan in hours, of each sender on each server."""
    found: dict[str, dict[str, tuple[int, float]]] = {}
    for name, sender in SENDERS.items():
        for kind in SERVERS:
            outcome = Scene(kind, network, headers=headers).run(sender, CALLS)
            found.setdefault(name, {})[kind] = len(outcome.refused), outcome.makespan / 3600
    return found


def lines(found: dict[str, dict[str, tuple[int, float]]]) -> list[str]:
    """The table: of each server 429s, and hours until the last request was accepted."""
    width = max(map(len, found))
    table = [f"{'':{width}}" + "".join(f"{kind:>17}" for kind in SERVERS)]
    for name, cells in found.items():
        texts = (f"{refused:,} · {hours:.2f} h" for refused, hours in cells.values())
        table.append(f"{name:{width}}" + "".join(f"{text:>17}" for text in texts))
    return table


def seeds(number: int) -> int:
    """Run the scenes of so many seeds, on all cores; how many were broken."""
    begun, bad = time.monotonic(), 0
    with ProcessPoolExecutor() as processes:
        found = processes.map(broken, range(number), chunksize=50)
        for seed, wrong in enumerate(found):
            if wrong:
                bad += 1
                print(f"--seed {seed}: {wrong}", flush=True)
    print(f"{number:,} seeds in {time.monotonic() - begun:.0f} s, {bad} of them broken")
    return bad


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limits", description=__doc__)
    parser.add_argument("--seeds", type=int, metavar="N", help="run the small scenes 0 to N - 1")
    parser.add_argument("--seed", type=int, metavar="N", help="run one of them")
    parser.add_argument("--network", choices=NETWORKS, default=NETWORK)
    parser.add_argument("--headers", action="store_true", help="servers tell what remains")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the 429s")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        print(Scene.of(arguments.seed), broken(arguments.seed) or "nothing broken", sep="\n")
    elif arguments.seeds is not None:
        sys.exit(bool(seeds(arguments.seeds)))
    else:
        print(f"{CALLS:,} requests, {arguments.network} latency: 429s · time to the last one")
        found = figures(arguments.network, headers=arguments.headers)
        print(*lines(found), sep="\n")
        best = promised(DOCUMENTED, CALLS) / 3600
        print(f"best under the limits as written ({', '.join(AS_PROMISED)}): {best:.2f} h")
        for limits in (DOCUMENTED, DOCUMENTED[:1]):
            scene = Scene("sliding log", arguments.network, limits=tuple(limits))
            rate = long_run(scene.run(partial(Ours, policy="window"), CALLS), limits)
            print(f"ours, policy='window', limits {limits}: {rate:.2%} of the long-run rate")
        if arguments.svg:
            arguments.svg.write_text(picture(found), "utf-8")


if __name__ == "__main__":
    main()
