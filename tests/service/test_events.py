"""Events as they are read: the object of contract §6, filters, order over slots, bounded pages."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.model.errors import InputError, NotFound
from headgate.model.event import event_id, place_of
from headgate.service import events as reading
from headgate.service.event_object import as_line
from headgate.service.events import EventQuery, events
from tests.ledgers import ALICE, ASSET, NETWORK, PAY_TO, Shop, april
from tests.registries import us


async def read(shop: Shop, **query: str) -> list[dict[str, Any]]:
    return [event async for event in events(shop.driver, shop.registry, EventQuery(**query))]


async def test_a_customers_row(shop: Shop) -> None:
    await april(shop)
    row = (await read(shop))[3]
    chain = {name: row.pop(name) for name in ("prev_hash", "row_hash", "row", "request_id")}
    assert row == {
        "event_id": event_id(us("2026-04-03"), 1, 4),
        "kind": "usage",
        "v": 1,
        "channel": "overage",
        "action": "doc",
        "route": "POST /doc",
        "units": 2,
        "written_off": 0,
        "unit_price": "0.100000",
        "per": 1,
        "prior": 500,
        "catalog_version": 1,
        "plan": "team",
        "list_amount": "0.200000",
        "charged_amount": "0.200000",
        "currency": "USD",
        "customer": "acme",
        "subscription": "sub_1",
        "seat_id": "ben",
        "key_id": None,
        "payer": None,
        "pay_to": None,
        "network": None,
        "asset": None,
        "scheme": None,
        "authorized_amount": None,
        "transaction": None,
        "payment_id": None,
        "occurred_at": "2026-04-03T00:00:00.000000Z",
        "booked_at": "2026-04-03T00:00:00.000000Z",
        "month": "2026-04",
        "late_for": None,
        "billing_period": "2026-04-01T00:00:00.000000Z",
        "corrects": None,
        "reason": None,
        "slot": 1,
        "seq": 4,
    }
    assert chain["prev_hash"] == (await read(shop))[2]["row_hash"]
    assert len(chain["row"]) == 33


async def test_a_payers_row_and_its_reversal(shop: Shop) -> None:
    rows = await april(shop)
    paid = rows[6]
    await shop.reverse(paid, "chain reorganised")
    shown = {event["event_id"]: event for event in await read(shop, channel="x402")}
    first = shown[event_id(paid.booked_us, paid.slot, paid.seq)]
    assert paid.tx is not None
    assert {
        name: first[name]
        for name in ("payer", "network", "asset", "pay_to", "scheme", "transaction", "customer")
    } == {
        "payer": "0x" + ALICE.hex(),
        "network": NETWORK,
        "asset": ASSET,
        "pay_to": PAY_TO,
        "scheme": "exact",
        "transaction": "0x" + paid.tx.hex(),
        "customer": None,
    }
    gone = list(shown.values())[-1]
    assert (gone["kind"], gone["units"], gone["charged_amount"]) == ("reversal", -1, "-0.100000")
    assert (gone["corrects"], gone["reason"]) == (first["event_id"], "chain reorganised")


@pytest.mark.parametrize(
    ("query", "seqs"),
    [
        ({}, list(range(1, 13))),
        ({"channel": "overage"}, [4]),
        ({"customer": "acme"}, [1, 2, 3, 4, 9]),
        ({"payer": "0x" + ALICE.hex()}, [7, 11, 12]),
        ({"payer": "0x" + ALICE.hex().upper(), "month": "2026-05"}, [12]),
        ({"month": "2026-03"}, [1]),
        ({"month": "2026-05"}, [12]),
        ({"month": "2026-07"}, []),
        ({"key": "key_7"}, [9]),
        ({"customer": "acme", "month": "2026-04", "channel": "seat"}, [2, 3, 9]),
    ],
)
async def test_filters(shop: Shop, query: dict[str, str], seqs: list[int]) -> None:
    await april(shop)
    assert [event["seq"] for event in await read(shop, **query)] == seqs


async def test_rows_of_one_request(shop: Shop) -> None:
    await april(shop)
    both = (await read(shop, customer="acme"))[2:4]
    assert both[0]["request_id"] == both[1]["request_id"]
    assert [event["seq"] for event in await read(shop, request=both[0]["request_id"])] == [3, 4]


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"channel": "wholesale"}, InputError),
        ({"customer": "nobody"}, NotFound),
        ({"payer": "0x12"}, InputError),
        ({"payer": "0x" + "g" * 40}, InputError),
        ({"month": "May"}, InputError),
        ({"request": "7"}, InputError),
        ({"key": "sub_7"}, NotFound),
    ],
)
async def test_a_filter_that_cannot_be(shop: Shop, query: dict[str, str], error: type[Exception]) -> None:
    with pytest.raises(error):
        await read(shop, **query)


async def test_slots_are_merged_by_time_page_by_page(
    shop: Shop, second: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_PAGE", 2)
    first = shop
    assert first.ledger.slot != second.ledger.slot
    await first.customer("acme", "team")
    for minute in range(12):
        writer = first if minute % 3 else second
        await writer.use("acme", 1, at=f"2026-04-16T10:{minute:02d}")
    found = await read(first)
    assert [event["occurred_at"][14:16] for event in found] == [f"{minute:02d}" for minute in range(12)]
    assert [event["slot"] for event in found[:3]] == [second.ledger.slot, *[first.ledger.slot] * 2]
    assert len({(event["slot"], event["seq"]) for event in found}) == 12
    assert len(await read(first, month="2026-04")) == 12


async def test_what_is_booked_meanwhile_is_not_part_of_the_stream(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_PAGE", 2)
    await april(shop)
    seen = 0
    async for _ in events(shop.driver, shop.registry, EventQuery()):
        seen += 1
        await shop.use("acme", 1)
    assert seen == 12


async def test_ids_lead_back_to_their_place(shop: Shop) -> None:
    await april(shop)
    for event in await read(shop):
        assert place_of(event["event_id"]) == (event["slot"], event["seq"])
        assert "\n" not in as_line(event)
