"""What a run prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.contention import Contest
from benchmarks.figures import Figure
from benchmarks.report_scale import ReportSize
from benchmarks.rounds import Measurement
from benchmarks.sides import BASE, Side

_PEERS = ("sdk", "express")
_BUSY = 0.9


def machine(console: Console, notes: Mapping[str, Any]) -> None:
    """The machine, and what the harness itself can do on it."""
    packages = " ".join(f"{name} {found}" for name, found in notes["packages"].items())
    console.print(
        f"{notes['cores']} cores ({notes['processor']}), {notes['system']}, Python {notes['python']}, ",
        end="",
    )
    console.print(f"node {notes['node'] or 'absent'}", highlight=False)
    console.print(packages, highlight=False)
    fsync, ceiling = notes["fsync_us"], notes["ceiling"]
    console.print(
        f"fsync of the data directory: p50 {fsync['p50']:.0f} µs, p99 {fsync['p99']:.0f} µs. "
        f"Stub facilitator at 32 connections: {ceiling['supported']:,.0f} GET/s, "
        f"{ceiling['settle']:,.0f} settle/s. One worker per seller, default garbage collection.",
        highlight=False,
    )


def sides(
    console: Console, measurement: Measurement, measured: Sequence[Side], connections: Sequence[int]
) -> None:
    """One table for each number of connections."""
    for count in connections:
        table = Table(
            title=f"{count} connection{'s' if count > 1 else ''}, medians of the rounds", title_justify="left"
        )
        table.add_column("side")
        for heading in (
            "requests/s",
            "p50 ms",
            "p99 ms",
            "× bare",
            "× sdk",
            "× express",
            "CPU µs",
            "load busy",
        ):
            table.add_column(heading, justify="right")
        for side in measured:
            row = measurement.row(side.name, count)
            if row is None:
                continue
            table.add_row(
                side.name,
                f"{row.rate:,.0f}",
                f"{row.p50_us / 1000:.2f}",
                f"{row.p99_us / 1000:.2f}",
                _ratio(measurement.ratio(side.name, BASE, count)),
                *(_ratio(_to_peer(measurement, side, peer, count)) for peer in _PEERS),
                "" if row.seller_cpu_us is None else f"{row.seller_cpu_us:.0f}",
                f"{row.load_busy:.0%}" + (" !" if row.load_busy > _BUSY else ""),
            )
        console.print(table)
    console.print(
        "× is the median over rounds of the ratio within a round. “load busy”: CPU of the load generator."
    )


def _to_peer(measurement: Measurement, side: Side, peer: str, connections: int) -> float | None:
    if side.seller == peer or side.kind not in ("402", "paid"):
        return None
    return measurement.ratio(side.name, f"{peer}-{side.kind}", connections)


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def contests(console: Console, outcomes: Sequence[Contest]) -> None:
    """The contention scenario."""
    if not outcomes:
        return
    table = Table(title="2,000 requests at once by one customer with 1,000 units left", title_justify="left")
    for heading in (
        "beyond",
        "processes",
        "answers",
        "ledger units",
        "overshoot",
        "unused",
        "exact",
        "s",
        "p99 ms",
    ):
        table.add_column(
            heading, justify="left" if heading in ("beyond", "answers", "ledger units") else "right"
        )
    for contest in outcomes:
        table.add_row(
            contest.beyond,
            str(contest.processes),
            ", ".join(f"{count} × {status}" for status, count in sorted(contest.statuses.items())),
            ", ".join(f"{units} {channel}" for channel, units in sorted(contest.units.items())),
            str(contest.overshoot),
            str(contest.unused),
            "yes" if contest.exact else "NO",
            f"{contest.seconds:.2f}",
            f"{contest.p99_us / 1000:.0f}",
        )
    console.print(table)


def report_sizes(console: Console, sizes: Sequence[ReportSize]) -> None:
    """The report at scale."""
    for size in sizes:
        console.print(
            f"report over {size.events:,} events: {size.query_ms:.1f} ms, "
            f"{size.bytes_per_event:.0f} bytes an event"
        )


def figures(console: Console, judged: Sequence[Figure]) -> None:
    """Reached or not, one line each."""
    table = Table(title="Figures to reach", title_justify="left")
    for heading in ("figure", "target", "measured", ""):
        table.add_column(heading)
    words = {True: "[green]reached[/]", False: "[red]not reached[/]", None: "[yellow]–[/]"}
    for figure in judged:
        table.add_row(figure.name, figure.target, figure.measured, words[figure.reached])
    console.print(table)


def reasons(console: Console, word: str, reasons_by_name: Mapping[str, str]) -> None:
    """What did not run, and why."""
    for what, reason in reasons_by_name.items():
        console.print(f"{word} {what}: ", end="")
        console.print(reason, markup=False, highlight=False, soft_wrap=True)
