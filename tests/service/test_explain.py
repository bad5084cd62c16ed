"""One number for the auditor: decision, working, allowance, books, delivery, payment, chain."""

from __future__ import annotations

import pytest

from headgate.model.bookings import Posting
from headgate.model.errors import InputError, NotFound
from headgate.model.event import Event, event_id, request_id_text
from headgate.model.negotiated import Negotiated
from headgate.model.payment import payment_text
from headgate.model.subscription import Price
from headgate.service.customers import create_customer
from headgate.service.explain import Delivery, ExplainedEvent, explain
from headgate.service.subscribe import Agreement, create_subscription
from tests.ledgers import ALICE, Shop, april
from tests.registries import GRACE, us


def identity(event: Event) -> str:
    return event_id(event.booked_us, event.slot, event.seq)


async def one(shop: Shop, event: Event) -> ExplainedEvent:
    found = await explain(shop.driver, shop.registry, identity(event))
    assert len(found.events) == 1
    return found.events[0]


async def test_a_use_that_straddles_the_boundary(shop: Shop) -> None:
    rows = await april(shop)
    request = request_id_text(rows[2].request_id)
    inside, beyond = (await explain(shop.driver, shop.registry, request)).events
    assert inside.decision == (
        "Customer 'acme' on plan 'team' (sub_1) had used 499 units of 500 granted in the billing period that "
        "began 2026-04-01T00:00:00.000000Z: this use (1 unit of doc) is inside the allowance, charged 0."
    )
    assert "had used 500 units of 500 granted" in beyond.decision
    assert "(2 units of doc) is beyond the allowance" in beyond.decision
    assert inside.allowance is not None
    assert (inside.allowance.granted, inside.allowance.before, inside.allowance.after) == (500, 1, 0)
    assert inside.same_request == (identity(rows[3]),)
    assert beyond.same_request == (identity(rows[2]),)
    assert inside.sound
    assert beyond.sound
    assert beyond.books == (
        Posting("receivable:overage", 200_000, 0),
        Posting("revenue:overage", 0, 200_000),
    )


async def test_the_cumulative_formula_with_its_numbers(shop: Shop) -> None:
    await shop.customer("acme", "team")
    await shop.use("acme", 1250, "chat", at="2026-04-02")
    listed = (await one(shop, (await shop.use("acme", 250, "chat"))[0])).amounts[0]
    assert listed.name == "list_amount"
    assert listed.stored == "0.000500"
    assert listed.working == (
        "A(1500) = 1500 × 0.002000 ÷ 1000 = 0.003000",
        "A(1250) = 1250 × 0.002000 ÷ 1000 = 0.002500",
        "A(1500) − A(1250) = 0.000500",
    )
    assert listed.agrees


async def test_a_negotiated_price_shows_as_discount(shop: Shop) -> None:
    await create_customer(shop.registry, "big", now_us=us("2026-01-01"))
    own = Negotiated(overage_price={"doc": Price(60_000, 1)}, allowance={"doc": 0})
    agreement = Agreement("team", start_us=us("2026-01-01"), negotiated=own)
    await create_subscription(shop.registry, "big", agreement, now_us=shop.now_us, grace_us=GRACE)
    explained = await one(shop, (await shop.use("big", 3))[0])
    assert [amount.stored for amount in explained.amounts] == ["0.300000", "0.180000"]
    assert "3 × 0.060000 ÷ 1 = 0.180000" in explained.amounts[1].working[0]
    assert explained.sound
    assert Posting("discount:overage", 120_000, 0) in explained.books


async def test_the_catalog_of_that_version_in_words(shop: Shop) -> None:
    rows = await april(shop)
    assert (await one(shop, rows[1])).catalog == (
        "Catalog version 1, in force from 2026-01-01T00:00:00.000000Z: doc (Document) costs 0.100000 USD for "
        "1 document; plan team (Team) includes 0 for the customer and 500 per seat, beyond it: overage."
    )


async def test_a_payment_and_its_row_explain_each_other(shop: Shop) -> None:
    paid = (await april(shop))[6]
    assert paid.payment is not None
    by_payment = await explain(shop.driver, shop.registry, payment_text(paid.payment))
    explained = await one(shop, paid)
    assert by_payment.events == (explained,)
    assert explained.payment is not None
    assert explained.payment == by_payment.payment
    assert explained.payment.transaction == explained.event["transaction"]
    assert explained.decision.startswith(
        "A caller without an account, who must pay per use, paid 0.100000 USD"
    )
    assert explained.amounts[1].working == (
        "1 × 0.100000 ÷ 1, rounded half up, at least 0.000001 = 0.100000",
    )
    assert explained.sound


async def test_a_payment_that_has_no_row_yet(shop: Shop) -> None:
    row = await shop.claim(ALICE, 5)
    found = await explain(shop.driver, shop.registry, payment_text(row.id))
    assert found.events == ()
    assert found.payment is not None
    assert found.payment.state == "claimed"


async def test_unassigned_use(shop: Shop) -> None:
    explained = await one(shop, (await april(shop))[5])
    assert explained.decision.startswith("Customer 'trial' had no contract")
    assert explained.allowance is None


async def test_a_correction_names_what_it_corrects_and_is_named_by_it(shop: Shop) -> None:
    wrong = (await april(shop))[3]
    undone = await shop.reverse(wrong, "double")
    first, second = await one(shop, wrong), await one(shop, undone)
    assert first.corrected_by == (identity(undone),)
    assert second.decision == f"A reversal of {identity(wrong)}: double."
    assert second.amounts[1].working[-1] == "taken back: -0.200000"
    assert second.sound
    assert {p.account: (p.debit_micros, p.credit_micros) for p in first.books} == {
        p.account: (p.credit_micros, p.debit_micros) for p in second.books
    }


async def test_who_was_told(shop: Shop) -> None:
    rows = await april(shop)
    for name, seq in (("webhook", 4), ("biller", 3), ("fresh", None)):
        await shop.write_sql(
            "INSERT INTO exports (name, owner, lease_until_us, failures, retry_us) VALUES (?, '', 0, 0, 0)",
            (name,),
        )
        if seq is not None:
            await shop.write_sql("INSERT INTO cursors (export, slot, seq) VALUES (?, 1, ?)", (name, seq))
    assert (await one(shop, rows[3])).deliveries == (
        Delivery("biller", delivered=False),
        Delivery("fresh", delivered=False),
        Delivery("webhook", delivered=True),
    )


async def test_a_row_that_was_changed_is_not_sound(shop: Shop) -> None:
    rows = await april(shop)
    await shop.write_sql("UPDATE events SET charged_micros = 1 WHERE seq = 4")
    explained = await one(shop, rows[3])
    assert not explained.chain.recomputed
    assert not explained.amounts[1].agrees
    assert not explained.sound
    assert (await one(shop, rows[2])).sound


async def test_nothing_to_explain(shop: Shop) -> None:
    await april(shop)
    with pytest.raises(NotFound):
        await explain(shop.driver, shop.registry, event_id(us("2026-04-01"), 1, 99))
    with pytest.raises(NotFound):
        await explain(shop.driver, shop.registry, event_id(us("2020-01-01"), 1, 1))  # another time
    with pytest.raises(InputError):
        await explain(shop.driver, shop.registry, "what")
