"""Whatever is changed behind the ledger's back, verification finds it and says where; on line and off."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from headgate.model.booking import Hold
from headgate.model.event import Event
from headgate.model.payment import PaymentRow, State, payment_text
from headgate.model.report import Span
from headgate.model.subscription import standing
from headgate.service import verify as verification
from headgate.service.event_object import as_line
from headgate.service.events import EventQuery, events
from headgate.service.report import report
from headgate.service.verify import Difference, Verification, verify
from headgate.service.verify_export import verify_export
from tests.ledgers import ALICE, Shop, april
from tests.registries import GRACE


async def check(shop: Shop) -> Verification:
    return await verify(shop.driver, calendar=shop.calendar)


async def places(shop: Shop) -> list[str]:
    """Where something differs, without the event ids that are named beside a place."""
    return [difference.where.partition(" (event")[0] for difference in (await check(shop)).differences]


async def test_an_untouched_ledger_is_verified(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "_PAGE", 3)
    rows = await april(shop)
    await shop.reverse(rows[3])
    await shop.reverse(rows[6], "reorganised")
    await shop.write_sql("UPDATE payments SET state = 7 WHERE id = ?", (rows[6].payment,))
    steps: list[tuple[int, int]] = []
    found = await verify(
        shop.driver, calendar=shop.calendar, progress=lambda done, total: steps.append((done, total))
    )
    assert found.differences == ()
    assert found.verified
    assert (found.events, found.slots) == (14, 1)
    assert steps == [(3, 14), (6, 14), (9, 14), (12, 14), (14, 14)]
    seen = await report(shop.driver, shop.registry, calendar=shop.calendar, span=Span.of_month("2026-04"))
    assert found.ledger_head == seen.ledger_head


async def test_an_empty_ledger_is_verified(shop: Shop) -> None:
    assert (await check(shop)).verified


async def test_several_slots_and_a_running_hold(shop: Shop, second: Shop) -> None:
    number = await shop.customer("globex", "open")
    for process in (shop, second, shop):
        await process.use("globex", 2)
    stands = standing(
        await shop.registry.subscriptions(number),
        number,
        "doc",
        shop.now_us,
        catalog=await shop.registry.catalog_at(shop.now_us),
        seller_zone="UTC",
        grace_us=GRACE,
    )
    assert await second.ledger.submit(Hold(stands, await shop.names.action("doc"), 3, 3))
    found = await check(shop)
    assert (found.differences, found.events, found.slots) == ((), 3, 2)
    await shop.write_sql("UPDATE held SET units = 4")
    (difference,) = (await check(shop)).differences
    assert difference.what == "held is kept as 3, the slots hold 4"


@pytest.mark.parametrize("field", [name for name in Event._fields if name not in ("slot", "seq", "row_hash")])
async def test_no_field_can_be_changed_unseen(shop: Shop, field: str) -> None:
    await april(shop)
    for seq in (4, 7):  # a customer's row and a payment's
        value = (await shop.driver.rows_sql(f"SELECT {field} FROM events WHERE seq = ?", (seq,)))[0][0]
        if isinstance(value, bytes):
            changed: object = bytes([value[0] ^ 1]) + value[1:]
        else:
            changed = "because" if field == "reason" else (value or 0) + 1
        assert await shop.write_sql(f"UPDATE events SET {field} = ? WHERE seq = ?", (changed, seq)) == 1
        assert f"slot 1, seq {seq}" in await places(shop)
        await shop.write_sql(f"UPDATE events SET {field} = ? WHERE seq = ?", (value, seq))
    assert (await check(shop)).verified


async def test_a_changed_row_is_the_only_one_reported(shop: Shop) -> None:
    await april(shop)
    await shop.write_sql("UPDATE events SET seat = 77 WHERE seq = 5")  # a field that nothing is summed by
    assert await places(shop) == ["slot 1, seq 5"]


@pytest.mark.parametrize("field", ["units", "occurred_us", "kind", "row_hash", "payer", "month"])
async def test_a_field_that_holds_nonsense_stops_nothing(shop: Shop, field: str) -> None:
    await april(shop)
    await shop.write_sql(f"UPDATE events SET {field} = 'nonsense' WHERE seq = 5")
    await shop.write_sql("UPDATE events SET occurred_us = ? WHERE seq = 2", (2**62,))
    found = await places(shop)
    assert "slot 1, seq 5" in found
    assert "slot 1, seq 2" in found


async def test_a_row_changed_with_its_hash_breaks_the_next(shop: Shop) -> None:
    rows = await april(shop)
    forged = rows[4]._replace(seat=77)
    digest = verification.chain_hash(rows[3].row_hash, tuple(forged)[:-1])
    await shop.write_sql("UPDATE events SET seat = 77, row_hash = ? WHERE seq = 5", (digest,))
    assert await places(shop) == ["slot 1, seq 6"]


async def test_a_missing_row_is_named(shop: Shop) -> None:
    rows = await april(shop)
    await shop.write_sql("DELETE FROM events WHERE seq = 6")
    found = await check(shop)
    assert found.differences[0] == Difference("slot 1, seq 6", "the row is missing")
    assert "counter of customer #3, sub_0, action #1" in found.differences[-1].where
    assert found.differences[-1].what == f"used is kept as {rows[5].units}, opening and rows make 0"


async def test_missing_rows_at_both_ends(shop: Shop) -> None:
    await april(shop)
    await shop.write_sql("DELETE FROM events WHERE seq <= 2 OR seq >= 11")
    found = [difference.where for difference in (await check(shop)).differences]
    assert found[:2] == ["slot 1, seq 1 to 2", "slot 1, seq 11 to 12"]


async def test_an_inserted_row(shop: Shop) -> None:
    await april(shop)
    fields = ", ".join(Event._fields[2:])
    for slot, seq in ((1, 13), (9, 1)):
        await shop.write_sql(
            f"INSERT INTO events (slot, seq, {fields})"
            f" SELECT ?, ?, {fields} FROM events WHERE slot = 1 AND seq = 9",
            (slot, seq),
        )
    found = (await check(shop)).differences
    assert found == (
        Difference("slot 1, seq 13 to 13", "rows after the end of the slot's chain: inserted"),
        Difference("slot 9", "rows of a slot that does not exist: inserted"),
    )
    await shop.write_sql("UPDATE slots SET seq = 13")  # who hides it there breaks the chain
    assert "slot 1, seq 13" in await places(shop)


async def test_a_row_pushed_into_the_middle(shop: Shop) -> None:
    await april(shop)
    for seq in range(12, 4, -1):
        await shop.write_sql("UPDATE events SET seq = seq + 1 WHERE seq = ?", (seq,))
    fields = ", ".join(Event._fields[2:])
    await shop.write_sql(
        f"INSERT INTO events (slot, seq, {fields}) SELECT 1, 5, {fields} FROM events WHERE seq = 4"
    )
    await shop.write_sql("UPDATE slots SET seq = 13")
    assert "slot 1, seq 5" in await places(shop)


@pytest.mark.parametrize(
    ("sql", "where"),
    [
        ("UPDATE slots SET head = x'00'", "slot 1, seq 12"),
        ("UPDATE totals SET units = units + 1 WHERE month = 202605", "totals of month 202605, day 1, x402"),
        ("DELETE FROM totals WHERE month = 202603", "totals of month 202603, day 31, seat"),
        ("UPDATE party_totals SET settled_micros = 0 WHERE month = 202605", "totals of payer 0xa1a1"),
        ("UPDATE party_totals SET list_micros = 0 WHERE customer = 2", "totals of customer #2"),
        ("UPDATE counters SET overage = overage + 1 WHERE customer = 2", "counter of customer #2, sub_2"),
        ("UPDATE counters SET used = used + 1 WHERE customer = 2", "counter of customer #2, sub_2"),
        ("UPDATE counters SET granted = 499 WHERE customer = 1", "counter of customer #1, sub_1"),
        ("UPDATE counters SET opening = 1 WHERE customer = 2", "counter of customer #2, sub_2"),
        ("DELETE FROM counters WHERE customer = 2", "counter of customer #2, sub_2"),
    ],
)
async def test_what_is_kept_beside_the_rows(shop: Shop, sql: str, where: str) -> None:
    await april(shop)
    assert await shop.write_sql(sql)
    found = await places(shop)
    assert found
    assert all(place.startswith(where) for place in found), found


async def test_more_seat_units_than_granted(shop: Shop) -> None:
    await april(shop)
    await shop.write_sql("UPDATE counters SET granted = 499 WHERE customer = 1 AND used = 502")
    (difference,) = (await check(shop)).differences
    assert difference.what == "500 seat units are booked, 499 granted with 0 used before"


async def test_a_settled_payment_without_its_row_and_a_row_without_its_payment(shop: Shop) -> None:
    rows = await april(shop)
    first, second = rows[6].payment, rows[7].payment
    assert first is not None
    assert second is not None
    await shop.write_sql("UPDATE payments SET event_seq = 9 WHERE id = ?", (first,))
    found = (await check(shop)).differences
    assert found == (
        Difference("slot 1, seq 7", "an x402 row whose payment is not settled by this row"),
        Difference(payment_text(first), "settled, but slot 1, seq 9 is not its use"),
    )
    await shop.write_sql("UPDATE payments SET event_seq = 7 WHERE id = ?", (first,))
    await shop.write_sql("UPDATE payments SET state = ? WHERE id = ?", (State.UNKNOWN.value, second))
    assert await places(shop) == ["slot 1, seq 8"]
    await shop.write_sql("UPDATE payments SET state = 5, charged_micros = 99999 WHERE id = ?", (second,))
    assert await places(shop) == [payment_text(second)]


async def test_two_rows_for_one_payment(shop: Shop) -> None:
    first = (await april(shop))[6]
    assert first.payment is not None
    await shop.write_sql("UPDATE payments SET state = 6 WHERE id = ?", (first.payment,))
    row = (await shop.driver.rows("payment_read", (first.payment,)))[0]
    again = shop.now_us
    await shop.settle(PaymentRow._make(row))
    assert shop.now_us == again
    assert await places(shop) == ["slot 1, seq 7"]  # the payment names its second row


async def test_a_ledger_verified_while_it_grows(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "_PAGE", 2)
    await april(shop)
    walk = shop.driver.rows_slow

    async def busy(name: str, params: Any = ()) -> Any:
        await shop.use("acme", 1)
        await shop.pay(ALICE, 1000 + shop._requests)
        return await walk(name, params)

    monkeypatch.setattr(shop.driver, "rows_slow", busy)
    found = await check(shop)
    assert (found.events, found.differences) == (12, ())


# --- offline ---------------------------------------------------------------------------------------------


async def export(shop: Shop, **query: str) -> list[str]:
    return [as_line(event) async for event in events(shop.driver, shop.registry, EventQuery(**query))]


async def test_an_export_is_verified_offline(shop: Shop) -> None:
    rows = await april(shop)
    await shop.reverse(rows[3])
    found = verify_export([*await export(shop), "\n"], head=(await check(shop)).ledger_head)
    assert found.differences == ()
    assert (found.events, found.slots) == (13, 1)
    assert found.ledger_head == (await check(shop)).ledger_head


async def test_a_filtered_export_is_verified_row_by_row(shop: Shop) -> None:
    await april(shop)
    lines = await export(shop, channel="x402")
    assert verify_export(lines, complete=False).verified
    complete = verify_export(lines)
    assert complete.differences[0] == Difference("line 1, slot 1, seq 7", "6 rows are missing before it")


CHANGES: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("charged_amount", lambda row: row.update(charged_amount="0.000000")),
    ("units", lambda row: row.update(units=1)),
    ("event_id", lambda row: row.update(event_id="019d55ca-1400-7000-8000-400000000009")),
    ("occurred_at", lambda row: row.update(occurred_at="2026-04-04T00:00:00.000000Z")),
    ("action", lambda row: row.update(action="chat")),
    ("customer", lambda row: row.update(customer="globex")),
    ("seat_id", lambda row: row.update(seat_id="ann")),
    ("network", lambda row: row.update(network="eip155:1")),
    ("corrects", lambda row: row.update(corrects=row["event_id"])),
    ("hash", lambda row: row["row"].__setitem__(7, 3)),
    ("hash", lambda row: row.update(prev_hash="00" * 32)),
    ("not a line", lambda row: row.pop("row")),
    ("not a line", lambda row: row["row"].pop()),
    ("not a line", lambda row: row["row"].__setitem__(1, "4")),
    ("not a line", lambda row: row["row"].__setitem__(20, "xyz")),
    ("never writes", lambda row: row["row"].__setitem__(3, 9)),
]


@pytest.mark.parametrize(("what", "change"), CHANGES)
async def test_no_line_can_be_changed_unseen(
    shop: Shop, what: str, change: Callable[[dict[str, Any]], object]
) -> None:
    await april(shop)
    lines = await export(shop)
    row = json.loads(lines[3])
    change(row)
    lines[3] = json.dumps(row)
    found = verify_export(lines)
    assert any(
        difference.where.startswith("line 4") and what in difference.what for difference in found.differences
    )


async def test_lines_taken_out_put_in_or_cut_off(shop: Shop) -> None:
    await april(shop)
    lines = await export(shop)
    head = (await check(shop)).ledger_head
    (gap,) = verify_export([*lines[:4], *lines[5:]]).differences
    assert gap == Difference("line 5, slot 1, seq 6", "1 row is missing before it")
    (twice,) = verify_export([*lines[:4], *lines[3:]]).differences
    assert twice.where == "line 5, slot 1, seq 4"
    assert verify_export(lines[:-1]).verified  # cannot be seen,
    (end,) = verify_export(lines[:-1], head=head).differences  # but against a head noted elsewhere
    assert end.where == "the end"
    (cut,) = verify_export([*lines[:-1], lines[-1][:50]]).differences
    assert cut.where == "line 12"
