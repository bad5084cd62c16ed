"""`python -m benchmarks`: runs everything, prints tables and figures, writes JSON.

Nothing here asserts a time. The exit code is 1 only if a seller does not start or answers wrongly, or if
Headgate's ledger does not hold exactly what was served.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import contention, figures, machine, render, report_scale
from benchmarks.load import LoadGenerator, LoadJob, get_request
from benchmarks.payments import Signer
from benchmarks.ready import BrokenError, NotAvailableError, Running, python_module, start
from benchmarks.rounds import Measurement
from benchmarks.sides import SIDES, Sellers, Side, choose

_HERE = Path(__file__).parent
_SCENARIOS = ("contention", "report")


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    seconds: float
    rounds: int
    connections: tuple[int, ...]
    only: tuple[str, ...]
    events: int
    output: Path
    data: Path


@dataclass(slots=True)
class Outcome:
    """What a run found."""

    notes: dict[str, Any]
    measured: tuple[Side, ...] = ()
    measurement: Measurement = field(default_factory=Measurement)
    contests: list[contention.Contest] = field(default_factory=list)
    sizes: list[report_scale.ReportSize] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    ledger: dict[str, int] | None = None
    """Events in Headgate's ledger and answers it gave for them: must be equal."""


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    options = _options()
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)  # a log has no width; the tables need this much
    started = time.monotonic()
    try:
        outcome = _run(options, console)
    except BrokenError as error:
        render.reasons(console, "[red]stopped[/]", {"": str(error)})
        return 1
    judged = figures.judge(outcome.measurement, outcome.notes["fsync_us"], outcome.contests, outcome.sizes)
    render.machine(console, outcome.notes)
    render.sides(console, outcome.measurement, outcome.measured, options.connections)
    render.contests(console, outcome.contests)
    render.report_sizes(console, outcome.sizes)
    render.figures(console, judged)
    render.reasons(console, "[yellow]skipped[/]", outcome.skipped)
    render.reasons(console, "[red]broken[/]", outcome.broken)
    _write(options, outcome, judged)
    console.print(f"{time.monotonic() - started:.0f} s; written to {options.output}", highlight=False)
    return _exit_code(console, outcome)


def _run(options: Options, console: Console) -> Outcome:
    with ExitStack() as stack:
        options.data.mkdir(parents=True, exist_ok=True)
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="run-", dir=options.data)))
        generator = stack.enter_context(LoadGenerator())
        signer = stack.enter_context(Signer())
        facilitator = start("facilitator", python_module("benchmarks.facilitator"), directory)
        stack.callback(facilitator.stop)
        outcome = Outcome(machine.describe())
        outcome.notes["fsync_us"] = machine.fsync_us(directory)
        sellers = Sellers(directory, _HERE / ".cache", facilitator, signer)
        stack.callback(sellers.stop)
        scenarios = [name for name in _SCENARIOS if not options.only or name in options.only]
        chosen = choose(set(options.only) - set(_SCENARIOS)) if _wants_sides(options) else ()
        steps = len(chosen) * (1 + options.rounds * len(options.connections)) + 8 * len(scenarios)
        step = stack.enter_context(_progress(console, steps))
        step("starting the sellers")
        outcome.measured = sellers.start(chosen)
        outcome.skipped |= sellers.skipped
        outcome.broken |= sellers.broken
        outcome.notes["ceiling"] = _ceiling(generator, facilitator)
        outcome.measurement.run(
            sellers,
            generator,
            outcome.measured,
            connections=options.connections,
            rounds=options.rounds,
            seconds=options.seconds,
            step=step,
        )
        outcome.ledger = _ledger(sellers, outcome)
        sellers.stop()
        sellers.running.clear()
        for name in scenarios:
            try:
                if name == "contention":
                    outcome.contests = contention.run(directory, sellers.facilitator_url, generator, step)
                else:
                    outcome.sizes = report_scale.run(directory, sellers.facilitator_url, options.events, step)
            except NotAvailableError as reason:
                outcome.skipped[name] = str(reason)
            except BrokenError as reason:
                outcome.broken[name] = str(reason)
        return outcome


def _wants_sides(options: Options) -> bool:
    return not options.only or bool(set(options.only) - set(_SCENARIOS))


def _ceiling(generator: LoadGenerator, facilitator: Running) -> dict[str, float]:
    """What the load generator and the stub facilitator can do together; a seller near it is moot."""
    body = json.dumps(
        {"paymentPayload": {"payload": {"authorization": {"from": "0x0", "value": "1", "nonce": "0x0"}}}}
    )
    settle = f"POST /settle HTTP/1.1\r\nHost: stub\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    requests = {"supported": get_request("/supported", "stub"), "settle": settle}
    return {
        name: generator.run(
            LoadJob(
                ports=(facilitator.port,),
                connections=32,
                requests=(request,),
                repeat=True,
                expect=frozenset({200}),
                seconds=0.5,
            )
        ).rate
        for name, request in requests.items()
    }


def _ledger(sellers: Sellers, outcome: Outcome) -> dict[str, int] | None:
    """How many events Headgate booked, beside how many answers the load generator counted."""
    if sellers.headgate is None or "headgate" not in sellers.running:
        return None
    answers = outcome.measurement.answers
    served = answers.get("headgate-seat", 0) + answers.get("headgate-paid", 0)
    return {"events": sellers.headgate.event_count(), "answers": served}


def _exit_code(console: Console, outcome: Outcome) -> int:
    """0 where everything answered as it must and the books agree, however slow."""
    agree = True
    if outcome.ledger is not None:
        events, answers = outcome.ledger["events"], outcome.ledger["answers"]
        agree = events == answers
        said = "" if agree else " [red]– they differ[/]"
        console.print(f"Headgate's ledger: {events:,} events for {answers:,} answers{said}", highlight=False)
    return 0 if agree and not outcome.broken and all(contest.exact for contest in outcome.contests) else 1


@contextmanager
def _progress(console: Console, steps: int) -> Iterator[Callable[[str], None]]:
    """A bar on a terminal, a line now and then elsewhere; redrawn rarely, for the cores are measured."""
    if console.is_terminal:
        columns = (BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn())
        with Progress(
            *columns, TextColumn("{task.description}"), console=console, refresh_per_second=2, transient=True
        ) as bar:
            task = bar.add_task("", total=steps)
            yield lambda what: bar.update(task, advance=1, description=what)
        return
    last = [""]

    def line(what: str) -> None:
        topic = what.rpartition(":")[0] or what
        if topic != last[0]:
            print(topic, file=sys.stderr, flush=True)
            last[0] = topic

    yield line


def _write(options: Options, outcome: Outcome, judged: Sequence[figures.Figure]) -> None:
    """The whole run as JSON; rates per second, times in microseconds unless named otherwise."""
    measurement = outcome.measurement
    rows = [
        row
        for connections in options.connections
        for side in outcome.measured
        if (row := measurement.row(side.name, connections)) is not None
    ]
    document = {
        "format": 1,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": outcome.notes,
        "options": {"seconds": options.seconds, "rounds": options.rounds, "connections": options.connections},
        "figures": [asdict(figure) for figure in judged],
        "summary": [asdict(row) for row in rows],
        "contention": [asdict(contest) | {"exact": contest.exact} for contest in outcome.contests],
        "report": [asdict(size) for size in outcome.sizes],
        "ledger": outcome.ledger,
        "skipped": outcome.skipped,
        "broken": outcome.broken,
        "slices": [asdict(slice_) for slice_ in measurement.slices],
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(document, indent=1) + "\n")


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Headgate beside its peers.")
    parser.add_argument("--quick", action="store_true", help="a rough answer in under 90 seconds")
    parser.add_argument("--seconds", type=float, help="length of one slice (1; quick: 0.5)")
    parser.add_argument(
        "--rounds", type=int, help="slices of each side and number of connections (6; quick: 3)"
    )
    parser.add_argument("--connections", type=_numbers, default=(1, 32, 64), help="default 1,32,64")
    names = sorted({*_SCENARIOS, *(word for side in SIDES for word in (side.name, side.seller, side.kind))})
    parser.add_argument("--only", default="", help=f"comma-separated, of: {', '.join(names)}")
    parser.add_argument(
        "--events", type=int, help="ledger of the report (1000000; quick: 100000), and ten times it"
    )

    parser.add_argument(
        "--json", type=Path, default=_HERE / "results" / "latest.json", help="where to write it all"
    )
    parser.add_argument(
        "--data", type=Path, default=_HERE / ".cache", help="where stores are put: the disk measured"
    )
    given = parser.parse_args()
    only = tuple(word for word in given.only.split(",") if word)
    if unknown := set(only) - set(names):
        parser.error(f"--only does not know {', '.join(sorted(unknown))}; it knows {', '.join(names)}")
    scale = 10 if given.quick else 1
    return Options(
        seconds=given.seconds or (0.5 if given.quick else 1.0),
        rounds=given.rounds or (3 if given.quick else 6),
        connections=given.connections,
        only=only,
        events=given.events or 1_000_000 // scale,
        output=given.json,
        data=given.data.resolve(),
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
