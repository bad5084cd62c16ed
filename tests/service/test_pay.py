"""Taking payments: names that payers give them, many at once, and what is asked of whom in which order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from eth_account import Account

from headgate.model.payment import State
from tests.web.shop import Row, Shop, client_of, opened_shop, paid, problem_of, unpacked
from tests.x402.buyer import PAYER, sealed
from tests.x402.scripted import Answer, ScriptedFacilitator

pytestmark = pytest.mark.timeout(60)
SOLD = Row("usage", "x402", 1, 100_000, None, PAYER.address.lower())
OTHER = Account.from_key("0x" + "22" * 32)
NAME = "order-2026-11-0001"


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with opened_shop(tmp_path) as opened:
        yield opened


@pytest.fixture
async def client(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(shop.app, "http") as opened:
        yield opened


async def named(client: httpx.AsyncClient, name: str, account: Any = PAYER) -> dict[str, str]:
    """A fresh payment under a name of the payer's."""
    payment = unpacked(paid(await client.get("/v1/doc"), account)["PAYMENT-SIGNATURE"])
    payment["extensions"] = {"payment-identifier": {"info": {"required": False, "id": name}}}
    return {"PAYMENT-SIGNATURE": sealed(payment).decode()}


# --- payment-identifier ---------------------------------------------------------------------------


async def test_the_offer_says_that_payments_may_be_named(client: httpx.AsyncClient) -> None:
    offered = (await client.get("/v1/doc")).json()
    assert offered["extensions"]["payment-identifier"]["info"] == {"required": False}


async def test_the_same_name_again_gives_the_same_answer(shop: Shop, client: httpx.AsyncClient) -> None:
    """Even with a fresh signature: the payer lost count, and is not charged again."""
    first = await client.get("/v1/doc", headers=await named(client, NAME))
    second = await client.get("/v1/doc", headers=await named(client, NAME))
    assert (first.status_code, second.status_code) == (200, 200)
    assert second.content == first.content
    assert second.headers["payment-response"] == first.headers["payment-response"]
    assert shop.calls.count == 1
    assert await shop.ledger() == [SOLD]
    assert len(shop.facilitator.settled) == 1


async def test_the_same_name_for_another_request(shop: Shop, client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/doc", headers=await named(client, NAME))).status_code == 200
    other = await client.get("/v1/doc?page=2", headers=await named(client, NAME))
    assert other.status_code == 409
    assert shop.calls.count == 1
    assert await shop.ledger() == [SOLD]


async def test_the_same_name_by_another_payer(shop: Shop, client: httpx.AsyncClient) -> None:
    """A name is not a bearer token: it is scoped to who signed (failure case 17)."""
    first = await client.get("/v1/doc", headers=await named(client, NAME))
    second = await client.get("/v1/doc", headers=await named(client, NAME, OTHER))
    assert second.status_code == 200
    assert second.content != first.content
    payers = [row.payer for row in await shop.ledger()]
    assert payers == [PAYER.address.lower(), OTHER.address.lower()]


async def test_another_name_is_another_payment(shop: Shop, client: httpx.AsyncClient) -> None:
    for number in range(2):
        answer = await client.get("/v1/doc", headers=await named(client, f"{NAME}-{number}"))
        assert answer.status_code == 200
    assert await shop.ledger() == [SOLD, SOLD]


async def test_a_name_is_free_again_if_its_payment_came_to_nothing(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    assert (await client.get("/v1/doc?status=500", headers=await named(client, NAME))).status_code == 500
    assert (await client.get("/v1/doc", headers=await named(client, NAME))).status_code == 200
    assert await shop.ledger() == [SOLD]


@pytest.mark.parametrize("name", ["short", "with spaces in its text", "x" * 129, 7])
async def test_names_that_are_none(name: Any, shop: Shop, client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/doc", headers=await named(client, name))
    assert (answer.status_code, problem_of(answer)) == (400, "invalid_payment_identifier")
    assert shop.asked == []


async def test_the_same_name_at_once(shop: Shop, client: httpx.AsyncClient) -> None:
    payments = [await named(client, NAME) for _ in range(8)]
    answers = await asyncio.gather(*(client.get("/v1/doc", headers=payment) for payment in payments))
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert shop.calls.count == 1
    assert await shop.ledger() == [SOLD]
    assert len(shop.facilitator.settled) == 1


# --- order and concurrency ------------------------------------------------------------------------


async def test_everything_is_durable_before_the_next_step(shop: Shop, client: httpx.AsyncClient) -> None:
    """Claimed before it is verified; intent and answer before it is settled (contract §4, steps 4 to 7)."""
    seen: list[tuple[str, str, int]] = []
    store = shop.gate.store
    assert store is not None

    def looking(facilitator: ScriptedFacilitator, endpoint: str, asked: dict[str, Any]) -> Answer:
        statement = "SELECT state, (SELECT COUNT(*) FROM answers) FROM payments"
        ((state, answers),) = store.driver._read(statement, ())  # type: ignore[attr-defined]
        seen.append((endpoint, State(state).name.lower(), answers))
        return facilitator.yes(endpoint, asked)

    shop.facilitator.script.verify.append(looking)
    shop.facilitator.script.settle.append(looking)
    assert (await client.get("/v1/doc", headers=paid(await client.get("/v1/doc")))).status_code == 200
    assert seen == [("verify", "claimed", 0), ("settle", "settling", 1)]


async def test_many_payments_at_once(shop: Shop, client: httpx.AsyncClient) -> None:
    """Each with three copies: every payment is worked for once, settled once, booked once."""
    payments = [paid(await client.get("/v1/doc")) for _ in range(20)]
    answers = await asyncio.gather(*(client.get("/v1/doc", headers=each) for each in payments * 3))
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(200) >= 20
    assert set(statuses) <= {200, 409}
    assert shop.calls.count == 20
    assert await shop.ledger() == [SOLD] * 20
    assert shop.asked.count("settle") == 20
    transactions = await shop.sql("SELECT DISTINCT tx FROM events")
    assert len(transactions) == 20


async def test_refusals_are_remembered_for_a_moment(shop: Shop, client: httpx.AsyncClient) -> None:
    """The same bad payment again asks nobody (failure case 32)."""
    from tests.x402.scripted import refusing

    shop.facilitator.script.verify.append(refusing("insufficient_funds"))
    payment = paid(await client.get("/v1/doc"))
    for _ in range(5):
        answer = await client.get("/v1/doc", headers=payment)
        assert (answer.status_code, answer.json()["error"]) == (402, "insufficient_funds")
    assert shop.asked == ["verify"]
    assert (await client.get("/v1/doc", headers=paid(await client.get("/v1/doc")))).status_code == 200
