"""The report read against the small ledger that stands in `tests.ledgers.april`."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import pytest

from headgate.model.errors import InputError
from headgate.model.payment import State
from headgate.model.report import (
    BY,
    Report,
    Span,
    Sums,
    memo_lines,
    parse_by,
    to_csv,
    to_json,
    to_table,
)
from headgate.service import report as reporting
from headgate.service.report import report
from headgate.store.driver import Driver
from headgate.store.operations import MovePayment
from headgate.store.registry import Registry
from headgate.store.reports import Source, source_of
from tests.ledgers import ALICE, BOB, NETWORK, Shop, april
from tests.registries import us

APRIL = Span.of_month("2026-04")
A, B = "0x" + ALICE.hex(), "0x" + BOB.hex()


async def read(shop: Shop, *by: str, span: Span = APRIL) -> Report:
    return await report(shop.driver, shop.registry, calendar=shop.calendar, span=span, by=by)


def lines(found: Report, *columns: str) -> list[tuple[object, ...]]:
    """Labels after the month, then the columns asked for."""
    return [(*row.labels[1:], *(row.sums.shown()[column] for column in columns)) for row in found.rows]


async def test_the_default_report_to_the_byte(shop: Shop) -> None:
    await april(shop)
    assert to_csv(await read(shop, "channel", "action")) == (
        "month,channel,action,events,units,list_amount,charged_amount,adjusted_amount,refunded_amount,"
        "net_amount,settled_amount\r\n"
        "2026-04,seat,chat,1,1500,0.003000,0.000000,0.000000,0.000000,0.000000,0.000000\r\n"
        "2026-04,seat,doc,5,511,51.100000,0.000000,0.000000,0.000000,0.000000,0.000000\r\n"
        "2026-04,overage,doc,1,2,0.200000,0.200000,0.000000,0.000000,0.200000,0.000000\r\n"
        "2026-04,x402,doc,3,3,0.300000,0.300000,0.000000,0.000000,0.300000,0.300000\r\n"
    )


async def test_by_customer_and_payer(shop: Shop) -> None:
    await april(shop)
    assert lines(await read(shop, "customer", "payer"), "units", "net_amount", "settled_amount") == [
        ("seat", "acme", "", 2000, "0.000000", "0.000000"),
        ("seat", "globex", "", 4, "0.000000", "0.000000"),
        ("seat", "trial", "", 7, "0.000000", "0.000000"),
        ("overage", "acme", "", 2, "0.200000", "0.000000"),
        ("x402", "", A, 2, "0.200000", "0.200000"),
        ("x402", "", B, 1, "0.100000", "0.100000"),
    ]


async def test_by_seat_names_the_customer_where_it_is_no_column(shop: Shop) -> None:
    await april(shop)
    await shop.use("globex", 1, at="2026-04-22", seat="ann")
    seats = [line for line in lines(await read(shop, "seat"), "units") if line[1]]
    assert seats == [
        ("seat", "acme/ann", 499),
        ("seat", "acme/ben", 1),
        ("seat", "globex/ann", 1),
        ("overage", "acme/ben", 2),
    ]
    beside = [line for line in lines(await read(shop, "seat", "customer"), "units") if line[1]]
    assert beside[:2] == [("seat", "ann", "acme", 499), ("seat", "ann", "globex", 1)]


async def test_by_plan_is_the_plan_in_force_at_the_use(shop: Shop) -> None:
    await april(shop)
    assert lines(await read(shop, "plan", "network", "key"), "events", "units") == [
        ("seat", "", "", "", 1, 5),  # trial, before its contract
        ("seat", "open", "", "", 1, 4),
        ("seat", "team", "", "", 3, 502),
        ("seat", "team", "", "key_7", 1, 1500),
        ("overage", "team", "", "", 1, 2),
        ("x402", "", NETWORK, "", 3, 3),
    ]


async def test_some_days_only(shop: Shop) -> None:
    await april(shop)
    span = Span.of_days("2026-04-03", "2026-04-05")
    expected = [
        ("seat", "2026-04-03", 2, 5),
        ("seat", "2026-04-04", 1, 5),
        ("overage", "2026-04-03", 1, 2),
        ("x402", "2026-04-05", 2, 2),
    ]
    assert lines(await read(shop, "day", span=span), "events", "units") == expected
    # parts of months by customer come from the events, and agree
    by_customer = await read(shop, "customer", span=span)
    assert by_customer.total == (await read(shop, span=span)).total
    assert by_customer.memo.unassigned_events == 1
    assert (await read(shop, span=Span.of_days("2026-04-05", "2026-04-30"))).memo.unassigned_events == 0


async def test_a_span_over_months_has_a_row_for_each(shop: Shop) -> None:
    await april(shop)
    found = await read(shop, span=Span.of_days("2026-03-01", "2026-05-31"))
    assert [(row.labels, row.sums.events) for row in found.rows] == [
        (("2026-03", "seat"), 1),
        (("2026-04", "seat"), 6),
        (("2026-04", "overage"), 1),
        (("2026-04", "x402"), 3),
        (("2026-05", "x402"), 1),
    ]


async def test_every_combination_of_columns_adds_up_to_the_same(shop: Shop) -> None:
    """Whatever is read (totals, totals by party, events): the same rows are in it, reversals too."""
    rows = await april(shop)
    for place in (1, 3, 5):
        await shop.reverse(rows[place])
    plain = await read(shop)
    total = plain.total
    assert total.adjusted_micros < 0
    sources = set()
    for number in (1, 2, 3):
        for by in combinations([column for column in BY if column != "channel"], number):
            found = await read(shop, *by)
            assert found.total == total, by
            assert found.columns[:2] == ("month", "channel")
            assert found.by[2:] == by
            assert found.ledger_head == plain.ledger_head
            sources.add(source_of(by, APRIL))
    assert sources == set(Source)


@pytest.mark.parametrize("by", [("action", "network", "day"), ("action", "network", "customer", "payer")])
async def test_kept_totals_and_events_tell_the_same(shop: Shop, by: tuple[str, ...]) -> None:
    rows = await april(shop)
    await shop.reverse(rows[6])
    kept = await read(shop, *by)
    assert source_of(kept.by, APRIL) is not Source.EVENTS
    from_events: dict[tuple[str, ...], Sums] = {}
    for row in (await read(shop, *by, "key")).rows:  # `key` is in no kept total
        labels = row.labels[:-1]
        from_events[labels] = from_events.get(labels, Sums()).plus(row.sums)
    assert from_events == {row.labels: row.sums for row in kept.rows}


async def test_the_default_report_reads_no_event(shop: Shop) -> None:
    await april(shop)
    await shop.write_sql("DELETE FROM events")
    found = await read(shop, "channel", "action", "network", "day")
    assert found.total.events == 10


async def test_months_are_the_sellers(driver: Driver, registry: Registry) -> None:
    berlin = await Shop(driver, registry, "Europe/Berlin").open()
    await berlin.customer("acme", "team")
    await berlin.use("acme", 1, at="2026-03-31T21:59")
    await berlin.use("acme", 2, at="2026-03-31T22:00")  # midnight in Berlin
    for by in (("day",), ("day", "key")):
        found = await read(berlin, *by)
        assert lines(found, "units")[0][:2] == ("seat", "2026-04-01")
        assert found.total.units == 2
    assert found.time_zone == "Europe/Berlin"


async def test_a_late_event_counts_where_it_was_booked(shop: Shop) -> None:
    await shop.customer("acme", "team")
    await shop.write_sql("INSERT INTO months (month, closed_us) VALUES (202603, 0)")
    await shop.write_sql("UPDATE registry SET generation = generation + 1")
    found = await shop.registry.customer("acme")
    assert found is not None
    clock = shop.now_us
    shop.now_us = us("2026-03-20")
    late = shop.use("acme", 9)
    shop.ledger._now_us = lambda: clock  # it occurred in March and is booked on 16 April
    assert (await late)[0].late_for == 202603
    assert lines(await read(shop, "day"), "units") == [("seat", "2026-04-16", 9)]
    assert lines(await read(shop, "day", "key"), "units") == [("seat", "2026-04-16", "", 9)]
    assert lines(await read(shop, "day", "key", span=Span.of_month("2026-03")), "units") == []


async def test_the_memo_hides_nothing_open(shop: Shop) -> None:
    await april(shop)
    shop.now_us = us("2026-04-25")
    await shop.claim(ALICE, 10, micros=200_000)
    failed = await shop.serve(await shop.claim(ALICE, 11))
    await shop.move(failed, State.FAILED)
    unknown = await shop.serve(await shop.claim(BOB, 12))
    await shop.move(unknown, State.UNKNOWN)
    for nonce in (13, 14):
        payment = (await shop.pay(BOB, nonce)).payment
        assert payment is not None
        await shop.ledger.submit(MovePayment(payment, State.SETTLED, State.REOPENED, "not done"))
    await shop.ledger.submit(MovePayment(payment, State.REOPENED, State.REPEATING, "again"))
    await shop.customer("stranger")
    await shop.use("stranger", 7)
    found = await read(shop)
    assert json.loads(to_json(found))["memo"] == {
        "seat_fees": {
            "billing_periods": 2,
            "seats": 3,
            "amount": "147.000000",
        },  # acme 1, trial 2; open is free
        "payments_pending": {"payments": 2, "authorized_amount": "0.300000"},
        "unpaid_work": {"payments": 1, "amount": "0.100000"},
        "owed_work": {"payments": 2, "amount": "0.200000"},
        "refunds_due": {"amount": "0.000000"},
        "unassigned_use": {"events": 2, "units": 12, "list_amount": "1.200000"},  # trial 5, stranger 7
        "written_off": {
            "events": 0,
            "list_amount": "0.000000",
            "unmeasured_events": 0,
            "unmeasured_list_amount": "0.000000",
        },
    }
    may = (await read(shop, span=Span.of_month("2026-05"))).memo
    assert (may.pending_payments, may.unpaid_payments, may.owed_payments) == (0, 0, 0)
    assert may.unassigned_events == 0
    assert (may.seat_periods, may.seat_seats) == (2, 3)
    assert ("Unpaid work", "1 payments failed, 0.100000 USD") in memo_lines(found)
    assert ("Owed work", "2 payments taken, 0.200000 USD") in memo_lines(found)


async def test_a_reversed_unassigned_use_is_gone_from_the_memo(shop: Shop) -> None:
    await shop.customer("trial")
    await shop.customer("later")
    rows = [*await shop.use("trial", 5, at="2026-04-04"), *await shop.use("later", 3, at="2026-04-04")]
    await shop.subscribe("later", "team", start="2026-04-20")
    for row in rows:
        await shop.reverse(row)
    memo = (await read(shop)).memo
    assert (memo.unassigned_events, memo.unassigned_units, memo.unassigned_list_micros) == (4, 0, 0)


async def test_the_head_follows_every_row_and_nothing_else(shop: Shop) -> None:
    empty = await read(shop)
    assert empty.rows == ()
    await april(shop)
    first = await read(shop)
    assert first.ledger_head != empty.ledger_head
    await shop.customer("other", "open")
    assert (await read(shop, "plan")).ledger_head == first.ledger_head
    await shop.use("other", 1)
    assert (await read(shop)).ledger_head != first.ledger_head


async def test_numbers_and_head_are_of_one_moment(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    await april(shop)
    before = await read(shop)
    grouped = reporting.grouped

    async def while_use_is_booked(*arguments: Any) -> Any:
        await shop.use("acme", 1, at="2026-04-29")
        return await grouped(*arguments)

    monkeypatch.setattr(reporting, "grouped", while_use_is_booked)
    during = await read(shop)
    assert (during.rows, during.ledger_head) == (before.rows, before.ledger_head)
    monkeypatch.undo()
    assert (await read(shop)).total.events == before.total.events + 1


async def test_totals_stand_in_the_table_only(shop: Shop) -> None:
    await april(shop)
    table = to_table(await read(shop, "action"))
    assert table[0][:4] == ["month", "channel", "action", "events"]
    assert table[-1] == [
        *("total", "", "", "10", "", "51.603000"),  # documents and tokens do not add up
        *("0.500000", "0.000000", "0.000000", "0.500000", "0.300000"),
    ]
    await shop.pay(BOB, 9, at="2026-06-01")
    one_action = to_table(await read(shop, "action", span=Span.of_month("2026-06")))
    assert one_action[-1][4] == "1"


async def test_a_customer_id_is_no_formula_in_csv_and_untouched_in_json(shop: Shop) -> None:
    for ref in ("=2+3", "@sum", 'a "b", c'):
        await shop.customer(ref)
        await shop.use(ref, 1)
    found = await read(shop, "customer")
    cells = [line.split(",seat,")[1] for line in to_csv(found).splitlines()[1:]]
    assert cells[0].startswith('"\'=2+3",1,')
    assert cells[1].startswith('"\'@sum",1,')
    assert cells[2].startswith('"a ""b"", c",1,')
    assert {row["customer"] for row in json.loads(to_json(found))["rows"]} == {"=2+3", "@sum", 'a "b", c'}


@pytest.mark.parametrize("text", ["channel,colour", "events", "month"])
def test_an_unknown_column_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no column"):
        parse_by(text)


def test_columns_as_written() -> None:
    assert parse_by(" payer, channel ,payer") == ("payer", "channel")


@pytest.mark.parametrize("text", ["2026-13", "202604", "2026-4", "april", "0000-01"])
def test_no_month(text: str) -> None:
    with pytest.raises(InputError, match="is not a month"):
        Span.of_month(text)


@pytest.mark.parametrize(
    ("first", "last", "whole"),
    [
        ("2026-02-01", "2026-02-28", True),
        ("2028-02-01", "2028-02-28", False),
        ("2026-12-01", "2027-01-31", True),
        ("2026-12-02", "2026-12-31", False),
    ],
)
def test_whole_months(first: str, last: str, whole: bool) -> None:
    assert Span.of_days(first, last).whole_months is whole


@pytest.mark.parametrize(
    "days", [("2026-02-30", "2026-03-01"), ("20260401", "2026-04-02"), ("2026-04-02", "2026-04-01")]
)
def test_no_span_of_days(days: tuple[str, str]) -> None:
    with pytest.raises(InputError):
        Span.of_days(*days)
