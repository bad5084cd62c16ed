"""`make torture`: the run in full. ARGS="--requests 5000 --seed 7" chooses; the printed seed replays."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.torture.run import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--kills", type=int, help="how often the seller is killed (one in 2,000 requests)")
    parser.add_argument("--vanish", type=int, help="how many transfers the chain takes back (one in 5,000)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    given = parser.parse_args()
    kills = given.requests // 2000 if given.kills is None else given.kills
    vanish = given.requests // 5000 if given.vanish is None else given.vanish
    console = Console(stderr=True)
    told = f"{given.requests} requests, {kills} kills, {vanish} reorganisations, seed {given.seed}"
    sys.stdout.write(f"torture: {told}\n")
    sys.stdout.flush()
    began = time.monotonic()
    columns = (TextColumn("requests"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with tempfile.TemporaryDirectory() as folder, Progress(*columns, console=console) as bar:
        task = bar.add_task("requests", total=given.requests)

        def made(done: int) -> None:
            bar.update(task, completed=done)
            if not console.is_terminal and done % max(1, given.requests // 10) == 0:
                sys.stderr.write(f"  {done} of {given.requests} requests, {time.monotonic() - began:.0f} s\n")

        def tell(step: str) -> None:
            console.print(f"  {time.monotonic() - began:.0f} s  {step}", highlight=False)

        outcome = asyncio.run(
            run(
                Path(folder),
                seed=given.seed,
                requests=given.requests,
                kills=kills,
                vanish=vanish,
                progress=made,
                tell=tell,
            )
        )
    for what, count in sorted(outcome.answers.items()):
        sys.stdout.write(f"  {count:>8}  {what}\n")
    taken = f"{time.monotonic() - began:.0f} s"
    sys.stdout.write(f"5xx on purpose {dict(outcome.codes)}, events {dict(outcome.events)}\n")
    sys.stdout.write(f"transfers {outcome.transfers}, payments by state {outcome.states}, {taken}\n")
    for fault in outcome.faults:
        sys.stdout.write(f"WRONG: {fault}\n")
    again = f"ARGS='--seed {given.seed} --requests {given.requests} --kills {kills} --vanish {vanish}'"
    sys.stdout.write("nothing is wrong\n" if not outcome.faults else f"again: make torture {again}\n")
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
