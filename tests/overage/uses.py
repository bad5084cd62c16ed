"""Rows as a receiver sees them, for the tests of sinks."""

from __future__ import annotations

from dataclasses import replace

from headgate.model.event import event_id
from headgate.overage.use import OverageUse
from tests.registries import NOW, us

USE = OverageUse(
    event_id=event_id(NOW, 3, 7),
    slot=3,
    seq=7,
    kind="usage",
    channel="overage",
    customer="acme",
    action="doc",
    units=2,
    charged_micros=160_000,
    list_micros=200_000,
    unit_micros=80_000,
    per=1,
    prior=500,
    catalog_version=1,
    subscription="sub_7",
    period_start_us=us("2026-04-01"),
    period_end_us=us("2026-05-01"),
    occurred_us=NOW - 1,
    booked_us=NOW,
    month=202604,
    late_for=None,
    request_id="00000000-0000-0000-0000-000000000000",
    references={"stripe": "cus_1"},
)


def uses(count: int) -> list[OverageUse]:
    """Consecutive rows of one slot."""
    return [replace(USE, seq=7 + n, event_id=event_id(NOW, 3, 7 + n)) for n in range(count)]
