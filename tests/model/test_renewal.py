"""When contracts end, renew and overlap."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from headgate.model.catalog import Plan
from headgate.model.errors import InputError, NotFound
from headgate.model.negotiated import Negotiated, negotiated_from_json, negotiated_to_json
from headgate.model.periods import parse_instant
from headgate.model.public_ids import read_id, write_id
from headgate.model.renewal import first_end_us, overlaps, renewal_us, renewed_end_us
from headgate.model.subscription import NO_CAP, Price, Subscription, Terms

PLAN = Plan("team", "Team")


def us(text: str) -> int:
    moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def contract(start: str, end: str | None, canceled: str | None = None) -> Subscription:
    terms = Terms(us(start), 1, PLAN, 1)
    return Subscription(
        1, 1, us(start), end and us(end), canceled and us(canceled), "UTC", "anniversary", (terms,)  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("start", "term", "now", "end"),
    [
        ("2026-01-31", 12, "2026-02-01", "2027-01-31"),
        ("2026-01-31", 1, "2026-01-31", "2026-02-28"),
        ("2026-01-31", 1, "2026-02-28", "2026-03-31"),  # over by now: renewed, and anchored at the start
        ("2023-01-31", 12, "2026-02-01", "2027-01-31"),
        ("2027-01-31", 12, "2026-02-01", "2028-01-31"),
        ("2026-01-31", None, "2026-02-01", None),
    ],
)
def test_the_first_end(start: str, term: int | None, now: str, end: str | None) -> None:
    found = first_end_us(us(start), term, "UTC", now_us=us(now))
    assert found == (end and us(end))


@pytest.mark.parametrize(
    ("start", "end", "now", "term", "renews", "then_ends"),
    [
        ("2026-01-31", "2026-02-28", "2026-02-10", 1, "2026-02-28", "2026-03-31"),  # no drift
        ("2026-01-31", "2027-01-31", "2026-02-10", 12, "2027-01-31", "2028-01-31"),
        ("2026-01-31", "2027-01-31", "2027-02-03", 12, "2027-02-03", "2028-01-31"),  # signed late
        ("2023-01-31", "2024-01-31", "2026-02-03", 12, "2026-02-03", "2027-01-31"),  # years late
        ("2026-01-31", "2026-07-04", "2026-02-10", 12, "2026-07-04", "2027-07-04"),  # an end of its own
        ("2026-01-31", "2027-01-31", "2026-02-10", None, "2027-01-31", None),
        ("2026-01-31", None, "2026-02-10", None, "2026-02-28", None),  # open-ended: with the next period
        ("2026-01-31", None, "2026-02-10", 12, "2026-02-28", "2027-02-28"),
        ("2026-01-31", None, "2026-01-10", None, "2026-01-31", None),
    ],
)
def test_renewal(
    start: str, end: str | None, now: str, term: int | None, renews: str, then_ends: str | None
) -> None:
    one = contract(start, end)
    assert renewal_us(one, us(now)) == us(renews)
    assert renewed_end_us(one, term, us(now)) == (then_ends and us(then_ends))


@pytest.mark.parametrize(
    ("end", "canceled", "start", "until", "expected"),
    [
        ("2027-01-01", None, "2027-01-01", "2028-01-01", False),  # half-open: one ends, the next starts
        ("2027-01-01", None, "2026-12-31", "2028-01-01", True),
        ("2027-01-01", None, "2025-01-01", "2026-01-01", False),
        ("2027-01-01", None, "2025-01-01", "2026-01-02", True),
        ("2027-01-01", None, "2025-01-01", None, True),
        (None, None, "2030-01-01", None, True),
        (None, "2026-06-01", "2026-06-01", None, False),
        (None, "2026-06-01", "2026-05-31", None, True),
        (None, "2026-01-01", "2026-01-01", None, False),  # never in force
        (None, "2025-06-01", "2025-01-01", None, False),
    ],
)
def test_overlaps(
    end: str | None, canceled: str | None, start: str, until: str | None, expected: bool
) -> None:
    one = contract("2026-01-01", end, canceled)
    assert overlaps(one, us(start), until and us(until)) is expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2026-01-31", "UTC", "2026-01-31"),
        ("2026-01-31", "America/New_York", "2026-01-31T05:00"),
        (" 2026-01-31T09:30 ", "Europe/Berlin", "2026-01-31T08:30"),
        ("2026-07-31 09:30:15.25", "Europe/Berlin", "2026-07-31T07:30:15.25"),
        ("2026-01-31T09:30:00Z", "Europe/Berlin", "2026-01-31T09:30"),
        ("2026-01-31T09:30-08:00", "Europe/Berlin", "2026-01-31T17:30"),
    ],
)
def test_dates_as_people_write_them(text: str, zone: str, expected: str) -> None:
    assert parse_instant(text, zone) == us(expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "31.01.2026",
        "2026-02-30",
        "20260131",
        "2026-W05-6",
        "2026-01-31T25:00",
        "1066-10-14",
        "2026-1-3",
        "2026-01-31T09:30+99:00",
        "9999-01-01",
        "1066-10-14T00:00Z",
        "2026-01-31T09",
    ],
)
def test_what_is_no_date(text: str) -> None:
    with pytest.raises(InputError):
        parse_instant(text, "UTC")


def test_public_ids() -> None:
    assert write_id("key", 12) == "key_12"
    assert read_id("key", " key_12") == 12
    for text in ("", "key", "12", "sub_12", "key_", "key_0", "key_-1", "key_1x", "key_²", "key_" + "9" * 30):
        with pytest.raises(NotFound, match="API key"):
            read_id("key", text)


@pytest.mark.parametrize(
    ("own", "text"),
    [
        (Negotiated(), "{}"),
        (Negotiated({"b": 1, "a": 0}), '{"allowance":{"a":0,"b":1}}'),
        (
            Negotiated({}, {"a": Price(80, 1000)}, NO_CAP),
            '{"overage_cap":-1,"overage_price":{"a":[80,1000]}}',
        ),
    ],
)
def test_negotiated_terms_as_text(own: Negotiated, text: str) -> None:
    assert negotiated_to_json(own) == text
    assert negotiated_from_json(text) == replace(own)
