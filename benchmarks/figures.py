"""The figures the project set itself: what is measured, against what, and whether it is reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks import garbage
from benchmarks.contention import Contest
from benchmarks.report_scale import ReportSize
from benchmarks.rounds import Measurement

_LOADED = (32, 64)


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: `reached` is None where it was not measured, and `measured` then says why."""

    name: str
    target: str
    measured: str
    reached: bool | None


_RATIOS = (
    ("seat path, event on disk ÷ bare", "headgate-seat", "bare-starlette", 0.5),
    ("unpaid 402 ÷ bare", "headgate-402", "bare-starlette", 0.9),
    ("unpaid 402 ÷ @x402/express", "headgate-402", "express-402", 3.0),
    ("garbage header ÷ unpaid 402", "headgate-garbage", "headgate-402", 1.0),
    *(
        (f"the same, {kind}", f"headgate-garbage-{number}", "headgate-402", 0.5)
        for number, kind in enumerate(garbage.LARGE, 1)
    ),
    ("paid ÷ x402 SDK's FastAPI middleware", "headgate-paid", "sdk-paid", 5.0),
    ("paid ÷ @x402/express", "headgate-paid", "express-paid", 1.2),
)


def judge(
    measurement: Measurement,
    fsync_us: Mapping[str, float],
    contests: Sequence[Contest],
    sizes: Sequence[ReportSize],
) -> list[Figure]:
    """All figures, in the order in which they were set."""
    ratios = [_ratio(measurement, *row) for row in _RATIOS]
    latency = _latency(measurement, fsync_us)
    return [ratios[0], latency, *ratios[1:], _contention(contests), *_report(sizes)]


def _ratio(measurement: Measurement, name: str, side: str, other: str, target: float) -> Figure:
    found = {
        connections: ratio
        for connections in _LOADED
        if (ratio := measurement.ratio(side, other, connections)) is not None
    }
    text = ", ".join(f"{ratio:.2f} at {connections}" for connections, ratio in found.items())
    reached = all(ratio >= target for ratio in found.values()) if found else None
    return Figure(name, f"≥ {target:g} ×", text or "not measured", reached)


def _latency(measurement: Measurement, fsync_us: Mapping[str, float]) -> Figure:
    name, limit = "seat path, added median latency at 1 connection", 2 * fsync_us["p50"]
    added = measurement.added_latency_us("headgate-seat", "bare-starlette", 1)
    target = f"< 2 fsyncs = {limit:.0f} µs"
    if added is None:
        return Figure(name, target, "not measured", None)
    return Figure(name, target, f"{added:.0f} µs", added < limit)


def _contention(contests: Sequence[Contest]) -> Figure:
    name, target = "2,000 at once, 1,000 units left", "exactly 1,000 seat units, 6 of 6"
    if not contests:
        return Figure(name, target, "not measured", None)
    exact = sum(contest.exact for contest in contests)
    overshoot = sum(contest.overshoot for contest in contests)
    return Figure(
        name, target, f"{exact} of {len(contests)} exact, overshoot {overshoot}", exact == len(contests)
    )


def _report(sizes: Sequence[ReportSize]) -> list[Figure]:
    if len(sizes) < 2:
        return [
            Figure(name, target, "not measured", None)
            for name, target in (
                ("report, query time", "< 100 ms"),
                ("report, ten times the events", "no slower"),
                ("bytes an event, indexes included", "≤ 250"),
            )
        ]
    small, large = sizes[0], sizes[-1]
    slack_ms = max(2.0, small.query_ms * 0.25)  # below that, two runs of the same query differ as much
    return [
        Figure(
            f"report over {small.events:,} events, query time",
            "< 100 ms",
            f"{small.query_ms:.1f} ms",
            small.query_ms < 100,
        ),
        Figure(
            f"report over {large.events:,} events",
            "no slower",
            f"{large.query_ms:.1f} ms",
            large.query_ms <= small.query_ms + slack_ms,
        ),
        Figure(
            "bytes an event, indexes included",
            "≤ 250",
            f"{large.bytes_per_event:.0f}",
            large.bytes_per_event <= 250,
        ),
    ]
