"""Payments as sellers read them: listed, found, shown; the signature never."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from headgate.model.errors import InputError, NotFound
from headgate.model.event import event_id
from headgate.model.payment import State, payment_text
from headgate.service.payments import find_payments, list_payments, show_payment
from tests.ledgers import ALICE, BOB, SIGNATURE, Shop


async def three(shop: Shop) -> dict[str, str]:
    """One settled, one failed, one still claimed; their ids by state."""
    settled = await shop.pay(ALICE, 1, at="2026-04-01")
    shop.now_us += 1
    failed = await shop.serve(await shop.claim(ALICE, 2))
    await shop.move(failed, State.FAILED, "insufficient_funds")
    shop.now_us += 1
    claimed = await shop.claim(BOB, 3)
    assert settled.payment is not None
    return {
        "settled": payment_text(settled.payment),
        "failed": payment_text(failed.id),
        "claimed": payment_text(claimed.id),
    }


async def test_listed_by_state_the_last_changed_first(shop: Shop) -> None:
    ids = await three(shop)
    found = await list_payments(shop.driver)
    assert [(one.payment_id, one.state) for one in found] == [
        (ids["claimed"], "claimed"),
        (ids["failed"], "failed"),
        (ids["settled"], "settled"),
    ]
    assert [one.payment_id for one in await list_payments(shop.driver, state="failed")] == [ids["failed"]]
    assert await list_payments(shop.driver, state="unknown") == ()


async def test_pages_meet_without_gap_or_overlap(shop: Shop) -> None:
    for nonce in range(5):
        await shop.claim(ALICE, nonce)  # all at the same instant
    whole = [one.payment_id for one in await list_payments(shop.driver)]
    pages: list[str] = []
    while page := await list_payments(shop.driver, limit=2, after=pages[-1] if pages else None):
        pages += [one.payment_id for one in page]
    assert pages == whole
    assert len(set(pages)) == 5


async def test_found_by_transaction_payer_or_request(shop: Shop) -> None:
    ids = await three(shop)
    settled = await show_payment(shop.driver, ids["settled"])
    assert settled.transaction is not None
    assert await find_payments(shop.driver, tx=settled.transaction) == await list_payments(
        shop.driver, state="settled"
    )
    of_alice = await find_payments(shop.driver, payer="0x" + ALICE.hex())
    assert [one.payment_id for one in of_alice] == [ids["settled"], ids["failed"]]
    claimed = (await find_payments(shop.driver, payer="0x" + BOB.hex()))[0]
    assert await find_payments(shop.driver, request=claimed.request_id) == (claimed,)
    assert await find_payments(shop.driver, tx="0x" + "00" * 32) == ()


async def test_shown_with_its_timeline_and_event(shop: Shop) -> None:
    event = await shop.pay(ALICE, 1, at="2026-04-01")
    assert event.payment is not None
    shown = await show_payment(shop.driver, payment_text(event.payment).upper())
    assert [step.state for step in shown.timeline] == ["claimed", "verified", "settling", "settled"]
    assert shown.event_id == event_id(event.booked_us, event.slot, event.seq)
    assert (shown.action, shown.route, shown.units) == ("doc", "POST /doc", 1)
    assert (shown.charged_amount, shown.authorized_amount) == ("0.100000", "0.100000")
    assert shown.valid_before == "2033-05-18T03:33:20.000000Z"


async def test_a_failed_payment_says_why(shop: Shop) -> None:
    shown = await show_payment(shop.driver, (await three(shop))["failed"])
    assert (shown.state, shown.reason, shown.event_id) == ("failed", "insufficient_funds", None)
    assert shown.timeline[-1].note == "insufficient_funds"


async def test_the_signature_is_never_shown(shop: Shop) -> None:
    ids = await three(shop)
    kept = await shop.driver.rows_sql(
        "SELECT authorization_json FROM payments WHERE authorization_json <> ''"
    )
    assert kept
    assert SIGNATURE in str(kept[0][0])
    for identifier in ids.values():
        assert SIGNATURE not in str(asdict(await show_payment(shop.driver, identifier)))


async def test_a_payment_that_is_valid_for_ever(shop: Shop) -> None:
    row = await shop.claim(ALICE, 1)
    await shop.write_sql("UPDATE payments SET valid_before_s = ?", (2**62,))
    assert (await show_payment(shop.driver, payment_text(row.id))).valid_before == "never"


async def test_questions_that_cannot_be_answered(shop: Shop) -> None:
    for identifier in ("pay_12", "pay_" + "0" * 32, "x"):
        with pytest.raises(NotFound):
            await show_payment(shop.driver, identifier)
    with pytest.raises(InputError, match="not a payment's state"):
        await list_payments(shop.driver, state="paid")
    with pytest.raises(InputError, match="one of"):
        await find_payments(shop.driver)
    with pytest.raises(InputError, match="one of"):
        await find_payments(shop.driver, tx="0x" + "00" * 32, payer="0x" + ALICE.hex())
    with pytest.raises(InputError, match="64 hexadecimal digits"):
        await find_payments(shop.driver, tx="0x12")
    with pytest.raises(InputError, match="at once"):
        await list_payments(shop.driver, limit=0)
