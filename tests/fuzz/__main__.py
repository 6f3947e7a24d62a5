"""`nox -s fuzz -- --seconds N`: the decoders against naive readings, on inputs from dice.

Prints the seed and how often each check ran; a finding is written to tests/wire, where the suite
plays it again.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.fuzz.run import fuzz, keep


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9)
    asked = parser.parse_args()
    print(f"seed {asked.seed}, {asked.seconds:g} s", flush=True)
    executions, findings = fuzz(asked.seed, asked.seconds)
    for name, count in executions.items():
        print(f"{name:6s} {count:>12,} executions")
    for path, (_, _, complaint) in zip(keep(findings), findings, strict=True):
        print(f"{path}: {complaint[:300]}")
    print(f"{len(findings)} differences")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
