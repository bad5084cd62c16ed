"""Payments and the chain (contract §4, failure cases 2, 9, 10): what the chain shows is what is booked.

A facilitator loses answers, lies and refuses; others settle, payers cancel, transfers vanish. In the end
every transfer to the seller is charged once, and nothing is charged that is not on the chain.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from eth_account.messages import encode_typed_data

from headgate.model.assets import Asset
from headgate.model.calendar import AccountingCalendar
from headgate.model.errors import ChainError, InputError
from headgate.model.payment import payment_text
from headgate.service.facilitators import Sweep, Witness
from headgate.service.resolve import resolve_payment
from headgate.service.verify import verify
from headgate.service.watch import Watcher
from headgate.x402.chain import Chain
from headgate.x402.rpc import InProcessNode
from tests.devnet.paying import AUTHORIZATION_FIELDS
from tests.torture.fakechain import ASSET, ChainFacilitator, FakeChain
from tests.web.shop import Clock, Row, Shop, client_of, opened_shop, paid, problem_of, unpacked, until
from tests.x402.buyer import PAY_TO, PAYER, SEPOLIA, sealed
from tests.x402.scripted import (
    ScriptedFacilitator,
    Step,
    answering,
    drop,
    lying,
    refusing,
    settle_and_lose,
)

pytestmark = pytest.mark.timeout(60)
AGENT = PAYER.address.lower()
SOLD = Row("usage", "x402", 1, 100_000, None, AGENT)
UNDONE = Row("reversal", "x402", -1, -100_000, None, AGENT)
SECOND, MINUTE, HOUR = 1_000_000, 60_000_000, 3_600_000_000
USED = refusing("invalid_exact_evm_nonce_already_used", 400)


@dataclass
class World:
    """A shop whose background work the test does, and the chain it is paid on."""

    shop: Shop
    client: httpx.AsyncClient
    chain: FakeChain

    @property
    def script(self) -> Any:
        return self.shop.facilitator.script

    async def payment(self) -> dict[str, str]:
        return paid(await self.client.get("/v1/doc"))

    async def buy(self, payment: dict[str, str]) -> httpx.Response:
        return await self.client.get("/v1/doc", headers=payment)

    async def buying(self, *steps: Step) -> tuple[dict[str, str], httpx.Response]:
        """One purchase, with what the facilitator does at settle."""
        payment = await self.payment()
        self.script.settle.extend(steps)
        return payment, await self.buy(payment)

    async def buy_while(self, payment: dict[str, str], happens: Callable[[], Any]) -> httpx.Response:
        """Buy, and let something happen on the chain while the work is done."""
        self.shop.calls.gate = asyncio.Event()
        before = self.shop.calls.count
        buying = asyncio.create_task(self.buy(payment))
        await until(lambda: self.shop.calls.count > before)
        happens()
        self.shop.calls.gate.set()
        self.shop.calls.gate = None
        return await buying

    async def later(self, us: int) -> None:
        """Time passes, and the background work is done."""
        self.shop.clock.ahead_us += us
        assert self.shop.gate._recovery is not None
        assert self.shop.gate._watcher is not None
        await self.shop.gate._watcher.run_once()
        await self.shop.gate._recovery.run_once()

    async def books_agree(self) -> None:
        """Σ charged = Σ transfers to the seller; chains, totals and payments verify."""
        charged = sum(row.charged for row in await self.shop.ledger())
        assert charged == sum(entry.value for entry in self.chain.entries.values() if entry.to)
        assert self.shop.gate.store is not None
        found = await verify(self.shop.gate.store.driver, calendar=AccountingCalendar("UTC"))
        assert found.differences == ()


def authorization(payment: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = unpacked(payment["PAYMENT-SIGNATURE"])["payload"]["authorization"]
    return found


def nonce(payment: dict[str, str]) -> str:
    return str(authorization(payment)["nonce"])


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = Clock()
    chain = FakeChain(clock)
    witness = Witness(Chain(InProcessNode(chain.answer)), ASSET)
    async with (
        ChainFacilitator(chain) as facilitator,
        opened_shop(
            tmp_path,
            facilitator=facilitator,
            clock=clock,
            settle_timeout_ms=300,
            chains={SEPOLIA: witness},
        ) as shop,
        client_of(shop.app, "http") as client,
    ):
        for task in shop.gate._background:
            task.cancel()
        yield World(shop, client, chain)


# --- open payments --------------------------------------------------------------------------------


async def test_settled_and_the_answer_lost_then_refused_for_ever(world: World) -> None:
    """Case 2: every retry says "nonce already used"; the chain shows that it was us."""
    payment, answer = await world.buying(settle_and_lose, *[USED] * 50)
    assert problem_of(answer) == "payment_pending"
    asked = world.shop.facilitator.count("settle")
    await world.later(SECOND)
    assert world.shop.facilitator.count("settle") == asked  # the chain is asked first
    assert await world.shop.payments() == ["settled"]
    again = await world.buy(payment)
    assert again.status_code == 200
    transaction = unpacked(again.headers["payment-response"])["transaction"]
    assert transaction == world.chain.entries[nonce(payment)].transaction
    assert await world.shop.ledger() == [SOLD]
    await world.books_agree()


async def test_somebody_else_settles_it_first(world: World) -> None:
    """Case 10: the facilitator is refused, but the seller has been paid: the answer is due."""
    payment = await world.payment()
    world.script.settle.append(USED)
    answer = await world.buy_while(payment, lambda: world.chain.pay(authorization(payment)))
    assert answer.status_code == 200
    (transfer,) = world.chain.entries.values()
    assert unpacked(answer.headers["payment-response"])["transaction"] == transfer.transaction
    assert await world.shop.ledger() == [SOLD]
    await world.books_agree()


async def test_used_it_says_and_the_chain_does_not_tell(world: World) -> None:
    """Neither believed nor served: the payer is asked to wait, not to sign again."""
    world.chain.broken = True
    payment, answer = await world.buying(settle_and_lose, *[USED] * 50)
    assert problem_of(answer) == "payment_pending"
    await world.later(SECOND)
    assert await world.shop.payments() == ["unknown"]
    other, refused = await world.buying()
    assert (refused.status_code, problem_of(refused)) == (503, "payment_pending")
    assert "payment-required" not in refused.headers
    world.chain.pay(authorization(other))
    world.chain.broken = False
    await world.later(MINUTE)
    assert await world.shop.payments() == ["settled", "settled"]
    assert [(await world.buy(each)).status_code for each in (payment, other)] == [200, 200]
    await world.books_agree()


async def test_the_payer_cancels_while_the_work_is_done(world: World) -> None:
    payment = await world.payment()
    answer = await world.buy_while(payment, lambda: world.chain.cancel(authorization(payment)))
    assert answer.status_code == 402
    assert await world.shop.payments() == ["failed"]
    await world.later(HOUR)
    assert await world.shop.payments() == ["failed"]
    assert await world.shop.ledger() == []
    await world.books_agree()


async def test_the_payer_cancels_while_the_outcome_is_unknown(world: World) -> None:
    payment, answer = await world.buying(drop)
    assert problem_of(answer) == "payment_pending"
    world.chain.cancel(authorization(payment))
    await world.later(SECOND)
    assert await world.shop.payments() == ["failed"]
    refused = await world.buy(payment)
    assert (refused.status_code, refused.json()["error"]) == (402, "authorization_canceled")
    await world.books_agree()


async def test_expired_is_final_by_the_chains_time(world: World) -> None:
    """Our clock says nothing: only a final block past its validity, with the nonce unused, ends it."""
    world.chain.final_lag = 900
    payment, _ = await world.buying(*[drop] * 50)
    await world.later(10 * MINUTE)
    settles = world.shop.facilitator.count("settle")
    for _ in range(3):
        await world.later(2 * MINUTE)
    assert await world.shop.payments() == ["unknown"]
    assert world.shop.facilitator.count("settle") == settles  # nobody can settle it now
    assert problem_of(await world.buy(payment)) == "payment_pending"
    world.chain.final_lag = 10
    await world.later(2 * MINUTE)
    assert await world.shop.payments() == ["failed"]
    assert await world.shop.ledger() == []


@pytest.mark.parametrize("lie", [lying(transaction=""), lying(network="eip155:1"), lying(amount="1")])
async def test_a_success_that_cannot_be_believed_is_looked_up(lie: Step, world: World) -> None:
    """Case 9: 502, and then the chain's own transaction is booked; the liar is not asked again."""
    payment, answer = await world.buying(lie, *[answering({}, 500)] * 50)
    assert (answer.status_code, problem_of(answer)) == (502, "settlement_unverified")
    await world.later(SECOND)
    assert world.shop.facilitator.count("settle") == 1
    assert (await world.buy(payment)).status_code == 200
    assert await world.shop.ledger() == [SOLD]
    await world.books_agree()


# --- after a payment was closed -------------------------------------------------------------------


async def test_refused_and_settled_by_somebody_later(world: World) -> None:
    """A failed payment is final only by chain time: money that arrives is booked, and its answer is due."""
    payment, answer = await world.buying(refusing("insufficient_funds"))
    assert (answer.status_code, answer.json()["error"]) == (402, "insufficient_funds")
    world.chain.pay(authorization(payment))
    await world.later(20 * SECOND)
    assert await world.shop.payments() == ["settled"]
    assert (await world.buy(payment)).status_code == 200
    assert world.shop.calls.count == 1
    await world.books_agree()


async def test_settled_when_its_answer_is_no_longer_kept(world: World) -> None:
    """Found late, the payer still gets what it paid for: the work is done once more, uncharged."""
    payment, _ = await world.buying(refusing("insufficient_funds"))
    world.chain.pay(authorization(payment))
    world.shop.clock.ahead_us += 20 * MINUTE
    await world.shop.forget()
    await world.later(SECOND)
    assert await world.shop.payments() == ["reopened"]
    served = await world.buy(payment)
    assert (served.status_code, served.json()["call"]) == (200, 2)
    assert await world.shop.payments() == ["settled"]
    assert await world.shop.ledger() == [SOLD]
    await world.books_agree()


async def test_the_answer_of_an_unknown_payment_waits_for_it(world: World) -> None:
    """However long it takes: what is kept is kept from when the payment was resolved."""
    world.chain.broken = True
    payment, _ = await world.buying(settle_and_lose, *[drop] * 50)
    world.shop.clock.ahead_us += HOUR
    await world.shop.forget()
    world.chain.broken = False
    await world.later(SECOND)
    served = await world.buy(payment)
    assert (served.status_code, served.json()["call"]) == (200, 1)


async def test_a_failed_payment_is_final_once_its_time_is_over(world: World) -> None:
    await world.buying(refusing("insufficient_funds"))
    for _ in range(10):
        await world.later(MINUTE)
    asked = world.chain.asked
    await world.later(30 * MINUTE)
    assert world.chain.asked == asked
    assert await world.shop.payments() == ["failed"]


async def test_a_transfer_that_is_reorganised_away(world: World) -> None:
    """A reversal and an open payment, then settled anew in an event of its own; the books net out."""
    payment, answer = await world.buying()
    assert answer.status_code == 200
    first = unpacked(answer.headers["payment-response"])["transaction"]
    world.chain.vanish(nonce(payment))
    await world.later(20 * SECOND)  # no final block is past it yet: the node may only lag behind
    assert await world.shop.payments() == ["settled"]
    await world.later(2 * MINUTE)
    assert await world.shop.payments() == ["settled"]
    assert await world.shop.ledger() == [SOLD, UNDONE, SOLD]
    second = world.chain.entries[nonce(payment)].transaction
    assert second != first
    (row,) = await world.shop.sql("SELECT tx FROM payments")
    assert "0x" + row[0].hex() == second
    notes = [note for (note,) in await world.shop.sql("SELECT note FROM payment_steps ORDER BY n")]
    assert any("reorganised" in (note or "") for note in notes)
    again = await world.buy(payment)
    assert (again.status_code, again.json()["call"]) == (200, 1)
    await world.books_agree()
    await world.later(10 * MINUTE)
    assert len(await world.shop.ledger()) == 3


async def test_the_watcher_finds_it_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody calls it: what was reorganised away is reversed and settled anew in the background."""
    monkeypatch.setattr("headgate.service.watch.RESOLVE_EVERY_S", 0.005)
    clock = Clock()
    chain = FakeChain(clock)
    chains = {SEPOLIA: Witness(Chain(InProcessNode(chain.answer)), ASSET)}
    async with (
        ChainFacilitator(chain) as facilitator,
        opened_shop(tmp_path, facilitator=facilitator, clock=clock, chains=chains) as shop,
        client_of(shop.app, "http") as client,
    ):
        world = World(shop, client, chain)
        payment, answer = await world.buying()
        assert answer.status_code == 200
        chain.vanish(nonce(payment))
        clock.ahead_us += 2 * MINUTE + 20 * SECOND

        async def settled_anew() -> bool:
            return await shop.ledger() == [SOLD, UNDONE, SOLD]

        await until(settled_anew)
        assert await shop.payments() == ["settled"]
        await world.books_agree()


async def test_reorganised_away_for_good(world: World) -> None:
    """It cannot be settled any more: unpaid work, and the seller's books say so."""
    payment, _ = await world.buying()
    await world.later(20 * SECOND)
    world.chain.vanish(nonce(payment))
    world.shop.facilitator.script.settle.extend([drop] * 50)
    for _ in range(10):
        await world.later(MINUTE)
    assert await world.shop.payments() == ["failed"]
    assert await world.shop.ledger() == [SOLD, UNDONE]
    await world.books_agree()


async def test_final_transfers_are_not_looked_at_again(world: World) -> None:
    await world.buying()
    for _ in range(4):
        await world.later(2 * MINUTE)
    asked = world.chain.asked
    for _ in range(4):
        await world.later(10 * MINUTE)
    assert world.chain.asked == asked
    assert await world.shop.ledger() == [SOLD]


async def test_another_transaction_paid_than_the_facilitator_said(world: World) -> None:
    """A well-formed lie: the row that names it is taken back, and the true transfer is booked."""
    payment, answer = await world.buying(lying(transaction="0x" + "ab" * 32))
    assert answer.status_code == 200
    await world.later(2 * MINUTE)  # by then it should be among the final transfers
    assert await world.shop.ledger() == [SOLD, UNDONE, SOLD]
    (row,) = await world.shop.sql("SELECT tx FROM payments")
    assert "0x" + row[0].hex() == world.chain.entries[nonce(payment)].transaction
    await world.books_agree()


async def test_a_lie_about_a_transfer_that_never_was(world: World) -> None:
    def says_so(_facilitator: Any, _endpoint: str, asked: dict[str, Any]) -> Any:
        body = {
            "success": True,
            "transaction": "0x" + "cd" * 32,
            "network": SEPOLIA,
            "payer": asked["paymentPayload"]["payload"]["authorization"]["from"],
        }
        return answering(body)(_facilitator, _endpoint, asked)

    payment, answer = await world.buying(says_so)
    assert answer.status_code == 200
    await world.later(3 * MINUTE)
    assert await world.shop.ledger() == [SOLD, UNDONE, SOLD]  # found out, and then really settled
    assert world.chain.entries[nonce(payment)].value == 100_000
    await world.books_agree()


async def test_a_node_on_another_chain_is_not_believed(world: World) -> None:
    """It knows of no payment at all; nothing is undone on its word."""
    world.chain.chain_id = 1
    payment, _ = await world.buying()
    world.chain.entries.clear()
    for _ in range(3):
        await world.later(3 * MINUTE)
    assert await world.shop.ledger() == [SOLD]
    assert (await world.buy(payment)).status_code == 200


async def test_the_embedded_chain_is_asked_and_a_restart_undoes_nothing(tmp_path: Path) -> None:
    """Play money is gone when its process stops; what was sold with it stays sold."""
    from headgate import Headgate
    from tests.web.shop import Calls, application, configured

    clock = Clock()
    for restart in range(2):
        gate = Headgate(configured(tmp_path, "embedded"), now_us=clock)
        inner = application(Calls())
        app = gate.middleware(inner)
        await gate.open(inner)
        try:
            assert set(gate._chains) == {SEPOLIA}
            if restart == 0:
                async with client_of(app, "asgi") as client:
                    offer = await client.get("/v1/doc")
                    (facilitator,) = gate._facilitators.values()
                    chain = facilitator.unguarded._embedded.chain  # type: ignore[attr-defined]
                    chain.fund(PAYER.address, 1_000_000)
                    assert (await client.get("/v1/doc", headers=paid(offer))).status_code == 200
            clock.ahead_us += 5 * MINUTE
            assert gate._watcher is not None
            assert await gate._watcher.run_once() == 0
            assert gate.store is not None
            assert await gate.store.driver.rows_sql("SELECT state FROM payments") == [(5,)]
        finally:
            await gate.close()


async def test_settled_before_it_was_shown_it_paid_for_something_else(world: World) -> None:
    """A settled authorization is public: whoever shows it again, at another shop, pays nothing.

    Not where the facilitator says so at verify, and not where it only finds out at settle (Permit2's nonces).
    """
    payment = await world.payment()
    world.chain.pay(authorization(payment))
    world.shop.clock.ahead_us += MINUTE
    assert (await world.buy(payment)).status_code == 402
    assert world.shop.calls.count == 0
    world.shop.clock.ahead_us += 10 * SECOND
    world.script.verify.append(ScriptedFacilitator.yes)
    world.script.settle.append(USED)
    refused = await world.buy(payment)
    assert (refused.status_code, world.shop.calls.count) == (402, 1)
    assert (await world.shop.payments(), await world.shop.ledger()) == (["failed"], [])
    for _ in range(5):
        await world.later(MINUTE)
    assert (await world.shop.payments(), await world.shop.ledger()) == (["failed"], [])


@pytest.mark.parametrize("reason", ["invalid_exact_evm_nonce_already_used", "permit2_invalid_nonce"])
async def test_used_and_a_node_that_lags_is_in_doubt(reason: str, world: World) -> None:
    """The facilitator's node is ahead of ours: "unused" there proves nothing yet."""
    payment, answer = await world.buying(refusing(reason))
    assert problem_of(answer) == "payment_pending"
    assert await world.shop.payments() == ["unknown"]
    world.chain.pay(authorization(payment))
    await world.later(2 * SECOND)
    assert (await world.buy(payment)).status_code == 200
    await world.books_agree()


async def test_an_upto_that_was_settled_for_less_than_was_used_opens_nothing(world: World) -> None:
    """A public facilitator settles what it is asked to, for whoever asks: the payer asks for 1."""
    while (offer := await world.client.post("/v1/words")).status_code == 503:
        networks = world.shop.gate._networks
        assert networks is not None
        if await networks.refresh():
            world.shop.gate._stock(world.shop.gate.desk.directory)
        world.shop.clock.ahead_us += 5 * SECOND  # the fixture may have cut the first round off
    payment = paid(offer)
    permit = unpacked(payment["PAYMENT-SIGNATURE"])["payload"]["permit2Authorization"]
    world.shop.calls.gate = asyncio.Event()
    buying = asyncio.create_task(world.client.post("/v1/words?h-headgate-units=50", headers=payment))
    await until(lambda: world.shop.calls.count == 1)
    world.chain.pay_permit(permit, 1)
    world.script.settle.append(refusing("permit2_invalid_nonce"))
    world.shop.calls.gate.set()
    answer = await buying
    assert answer.status_code == 402
    for _ in range(5):
        await world.later(MINUTE)
    assert (await world.shop.payments(), await world.shop.ledger()) == (["failed"], [])


async def test_spent_on_something_else_before_it_was_shown(world: World) -> None:
    payment = await world.payment()
    world.chain.pay(authorization(payment), value=1)
    refused = await world.buy(payment)
    assert (refused.status_code, refused.json()["error"]) == (402, "invalid_exact_evm_nonce_already_used")
    assert (await world.shop.payments(), world.shop.calls.count) == (["released"], 0)


# --- less than was signed, or more than once ------------------------------------------------------


async def test_the_nonce_spent_on_less_opens_nothing(world: World) -> None:
    """The payer sends the seller 0.000001 USD under the payment's own nonce while the work is done."""
    payment = await world.payment()
    world.script.settle.append(USED)
    answer = await world.buy_while(payment, lambda: world.chain.pay(authorization(payment), value=1))
    assert answer.status_code == 402
    assert (await world.shop.payments(), await world.shop.ledger()) == (["failed"], [])
    for _ in range(5):
        await world.later(MINUTE)
    assert (await world.shop.payments(), await world.shop.ledger()) == (["failed"], [])
    assert (await world.buy(payment)).status_code == 402


async def test_the_nonce_spent_on_less_after_it_had_failed_opens_nothing(world: World) -> None:
    payment, _ = await world.buying(refusing("insufficient_funds"))
    world.chain.pay(authorization(payment), value=1)
    for _ in range(5):
        await world.later(MINUTE)
    assert (await world.shop.payments(), await world.shop.ledger()) == (["failed"], [])


@pytest.mark.parametrize("named", ["0x" + "ab" * 32, ""])
async def test_a_refusal_after_a_broadcast_never_invites_another_payment(named: str, world: World) -> None:
    """Case 1: `transaction_failed` is also said of a transfer that nobody waited for."""
    refused = refusing("transaction_failed", transaction=named, network=SEPOLIA)
    payment, answer = await world.buying(refused, *[refused] * 3)
    assert (answer.status_code, problem_of(answer)) == (503, "payment_pending")
    assert "payment-required" not in answer.headers
    world.chain.pay(authorization(payment))  # it is mined a little later
    await world.later(MINUTE)
    assert (await world.buy(payment)).status_code == 200
    assert await world.shop.ledger() == [SOLD]
    await world.books_agree()


async def test_a_nonce_signed_again_for_longer_is_waited_for_as_long(world: World) -> None:
    """Released, then signed anew with the same nonce: the second validity decides when it is over."""
    first = await world.payment()
    found = unpacked(first["PAYMENT-SIGNATURE"])
    await world.client.get("/v1/doc?status=500", headers=first)
    assert await world.shop.payments() == ["released"]
    longer = signed_again(found, validBefore=int(authorization(first)["validBefore"]) + 3000)
    world.script.settle.extend([drop] * 50)
    assert problem_of(await world.buy(longer)) == "payment_pending"
    await world.later(10 * MINUTE)  # the first one would be over by now
    assert await world.shop.payments() == ["unknown"]
    world.chain.pay(authorization(longer))
    await world.later(2 * MINUTE)
    assert await world.shop.ledger() == [SOLD]
    await world.books_agree()


def signed_again(found: dict[str, Any], **changes: Any) -> dict[str, str]:
    """The same authorization with changes, signed once more by its payer."""
    message = {**found["payload"]["authorization"], **changes}
    numbers = {name: int(message[name]) for name in ("value", "validAfter", "validBefore")}
    domain = {"name": "USDC", "version": "2", "chainId": 84532, "verifyingContract": ASSET.address}
    typed = encode_typed_data(
        domain, {"TransferWithAuthorization": AUTHORIZATION_FIELDS}, {**message, **numbers}
    )
    signature = "0x" + PAYER.sign_message(typed).signature.hex().removeprefix("0x")
    text = {name: str(value) for name, value in message.items()}
    changed = {**found, "payload": {"signature": signature, "authorization": text}}
    return {"PAYMENT-SIGNATURE": sealed(changed).decode()}


async def test_whoever_watches_next_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    """Two processes: the one that watched dies, and a transfer vanishes afterwards."""
    clock = Clock()
    chain = FakeChain(clock)
    witness = Witness(Chain(InProcessNode(chain.answer)), ASSET)
    async with ChainFacilitator(chain) as facilitator:
        given: Any = {"facilitator": facilitator, "clock": clock, "chains": {SEPOLIA: witness}}
        async with opened_shop(tmp_path, **given) as heir:
            async with opened_shop(tmp_path, **given) as leader, client_of(leader.app, "asgi") as client:
                for shop in (leader, heir):
                    for task in shop.gate._background:
                        task.cancel()
                assert leader.gate._watcher is not None
                assert heir.gate._watcher is not None
                payment = paid(await client.get("/v1/doc"))
                assert (await client.get("/v1/doc", headers=payment)).status_code == 200
                clock.ahead_us += 20 * SECOND
                await leader.gate._watcher.run_once()
                await heir.gate._watcher.run_once()
            chain.vanish(nonce(payment))
            clock.ahead_us += 4 * MINUTE
            assert await heir.gate._watcher.run_once() == 1
            assert await heir.payments() == ["unknown"]


async def test_many_settled_payments_cost_few_questions(world: World) -> None:
    """Finality is read off the logs of whole ranges of blocks, not payment by payment."""
    for _ in range(30):
        assert (await world.buy(await world.payment())).status_code == 200
    await world.later(2 * MINUTE)
    asked = world.chain.asked
    assert asked < 30
    watcher = world.shop.gate._watcher
    assert watcher is not None
    assert all(one.closed for one in watcher._watched.values())
    await world.later(MINUTE)
    assert world.chain.asked == asked


async def test_failed_payments_hold_up_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed ones can be many, and are looked at after what was served and vanished."""
    monkeypatch.setattr("headgate.service.watch.LOOKS_PER_PASS", 1)
    payment, _ = await world.buying()
    for _ in range(8):
        await world.buying(refusing("insufficient_funds"))
    world.chain.vanish(nonce(payment))
    world.shop.clock.ahead_us += 2 * MINUTE
    watcher = world.shop.gate._watcher
    assert watcher is not None
    await watcher.run_once()
    assert await world.shop.ledger() == [SOLD, UNDONE]


async def test_after_a_failure_the_oldest_are_not_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node fails at the first look; what settled before it is read off the logs all the same."""
    monkeypatch.setattr("headgate.x402.chain.BLOCKS_PER_STEP", 4)
    watcher = world.shop.gate._watcher
    assert watcher is not None
    for _ in range(20):
        assert (await world.buy(await world.payment())).status_code == 200
    world.shop.clock.ahead_us += 170 * SECOND
    assert (await world.buy(await world.payment())).status_code == 200
    world.shop.clock.ahead_us += 10 * SECOND
    world.chain.broken = True
    await watcher.run_once()  # those of before wait for their next look
    world.chain.broken = False
    world.shop.clock.ahead_us += 6 * SECOND
    await watcher.run_once()  # only the new one is due
    world.shop.clock.ahead_us += 5 * MINUTE
    asked = world.chain.asked
    await watcher.run_once()
    assert world.chain.asked - asked < 20


async def test_one_transfer_pays_one_payment(world: World) -> None:
    """A facilitator that names an old transaction: which of two payments it paid is asked of the chain."""
    first, _ = await world.buying()
    transaction = world.chain.entries[nonce(first)].transaction

    def stale(facilitator: ScriptedFacilitator, endpoint: str, asked: dict[str, Any]) -> Any:
        payer = asked["paymentPayload"]["payload"]["authorization"]["from"]
        body = {"success": True, "transaction": transaction, "network": SEPOLIA, "payer": payer}
        return answering(body)(facilitator, endpoint, asked)

    second, answer = await world.buying(stale)
    assert answer.status_code == 200
    for _ in range(5):
        await world.later(MINUTE)
    # The second is settled in truth by then: recovery asked for it.
    assert await world.shop.payments() == ["settled", "settled"]
    assert await world.shop.ledger() == [SOLD, SOLD, UNDONE, SOLD]
    assert set(world.chain.entries) == {nonce(first), nonce(second)}
    await world.books_agree()


async def test_two_payments_of_one_payer_in_one_transaction(world: World) -> None:
    """Settled together, as some facilitators do: as many transfers as payments, and both stand."""
    payments = [(await world.buying())[0] for _ in range(2)]
    one, other = (world.chain.entries[nonce(each)] for each in payments)
    assert world.shop.gate.store is not None
    with closing(sqlite3.connect(world.shop.gate.config.store.url.removeprefix("sqlite:///"))) as opened:
        opened.execute(f"UPDATE payments SET tx = x'{one.transaction[2:]}'")
        opened.commit()
    other.transaction = one.transaction
    world.shop.clock.ahead_us += 3 * MINUTE
    watcher = world.shop.gate._watcher
    assert watcher is not None
    asked = world.chain.asked
    await watcher.run_once()
    assert all(one.closed for one in watcher._watched.values())
    assert world.chain.asked - asked < 15
    assert await world.shop.ledger() == [SOLD, SOLD]


async def test_settled_for_less_than_the_facilitator_says(world: World) -> None:
    """`upto`: the payer had its permit settled for 1 during the work, and the facilitator goes by that."""
    while (offer := await world.client.post("/v1/words")).status_code == 503:
        if await world.shop.gate._networks.refresh():  # type: ignore[union-attr]
            world.shop.gate._stock(world.shop.gate.desk.directory)
        world.shop.clock.ahead_us += 5 * SECOND
    payment = paid(offer)
    permit = unpacked(payment["PAYMENT-SIGNATURE"])["payload"]["permit2Authorization"]

    def reconciled(facilitator: ScriptedFacilitator, endpoint: str, asked: dict[str, Any]) -> Any:
        entry = world.chain.pay_permit(permit, 1)
        body = {
            "success": True,
            "transaction": entry.transaction,
            "network": SEPOLIA,
            "payer": permit["from"],
        }
        body["amount"] = asked["paymentRequirements"]["amount"]
        return answering(body)(facilitator, endpoint, asked)

    world.script.settle.append(reconciled)
    answer = await world.client.post("/v1/words?h-headgate-units=50", headers=payment)
    assert answer.status_code == 200
    for _ in range(4):
        await world.later(MINUTE)
    assert await world.shop.payments() == ["failed"]
    sold, undone = await world.shop.ledger()
    assert (sold.charged, undone.kind, undone.charged) == (500_000, "reversal", -500_000)


@pytest.mark.parametrize("happens", ["nothing", "the answer is lost", "the clock is set right"])
async def test_a_clock_that_is_ahead_of_the_chain_undoes_nothing(happens: str, tmp_path: Path) -> None:
    clock, ahead = Clock(), [200 * SECOND]
    chain = FakeChain(lambda: clock() - ahead[0])
    witness = Witness(Chain(InProcessNode(chain.answer)), ASSET)
    async with (
        ChainFacilitator(chain) as facilitator,
        opened_shop(
            tmp_path, facilitator=facilitator, clock=clock, settle_timeout_ms=300, chains={SEPOLIA: witness}
        ) as shop,
        client_of(shop.app, "http") as client,
    ):
        for task in shop.gate._background:
            task.cancel()
        world = World(shop, client, chain)
        lost = happens == "the answer is lost"
        payment, answer = await world.buying(*([settle_and_lose] if lost else []))
        assert answer.status_code == (503 if lost else 200)
        if happens == "the clock is set right":
            clock.ahead_us -= ahead.pop()
            ahead.append(0)
        for _ in range(25):
            await world.later(30 * SECOND)
        assert await shop.payments() == ["settled"]
        assert await shop.ledger() == [SOLD]
        assert (await world.buy(payment)).status_code == 200
        await world.books_agree()


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_clock_that_is_set_back_loses_sight_of_nothing(restarted: bool, world: World) -> None:
    """What is booked after that is older than what was booked before, and is watched all the same."""
    shop = world.shop
    payment = await world.payment()
    shop.clock.ahead_us += 4 * MINUTE
    assert (await world.buy(payment)).status_code == 200
    for _ in range(4):
        await world.later(30 * SECOND)
    shop.clock.ahead_us = 0
    assert shop.gate.ledger is not None
    shop.gate.ledger._last_us = 0  # as of a process that was started since
    if restarted:
        shop.gate._watcher = Watcher(shop.gate._cashier, shop.clock)  # type: ignore[arg-type]
    else:
        await world.later(SECOND)
    second, answer = await world.buying()
    assert answer.status_code == 200
    world.chain.vanish(nonce(second))
    for _ in range(8):
        await world.later(30 * SECOND)
    assert [row.kind for row in await shop.ledger()] == ["usage", "usage", "reversal", "usage"]
    await world.books_agree()


async def test_what_could_not_be_confirmed_for_hours_is_not_taken_as_confirmed(world: World) -> None:
    """The facilitator lies while the node is away, and the process is started anew in between."""

    def lie(facilitator: ScriptedFacilitator, endpoint: str, asked: dict[str, Any]) -> Any:
        payer = asked["paymentPayload"]["payload"]["authorization"]["from"]
        body = {"success": True, "transaction": "0x" + "cd" * 32, "network": SEPOLIA, "payer": payer}
        return answering(body)(facilitator, endpoint, asked)

    good, _ = await world.buying()
    await world.later(5 * MINUTE)  # seen final
    world.chain.broken = True
    valid_to = world.shop.clock() // SECOND + 300
    payment = signed_again(unpacked((await world.payment())["PAYMENT-SIGNATURE"]), validBefore=str(valid_to))
    world.script.settle.append(lie)
    assert (await world.buy(payment)).status_code == 200
    for _ in range(130):
        await world.later(MINUTE)
    gate = world.shop.gate
    gate._watcher = Watcher(gate._cashier, world.shop.clock)  # type: ignore[arg-type]
    world.chain.broken = False
    asked = world.chain.asked
    await world.later(MINUTE)
    assert [row.kind for row in await world.shop.ledger()][:3] == ["usage", "usage", "reversal"]
    assert await world.shop.payments() == ["settled", "failed"]
    assert world.chain.asked - asked < 40
    assert nonce(good) in world.chain.entries
    await world.books_agree()


async def test_a_failed_payment_is_watched_for_as_long_as_it_is_valid(world: World) -> None:
    """Valid for nearly two days, refused at once, settled by somebody else a day and a half later."""
    payment = await world.payment()
    valid_to = world.shop.clock() // SECOND + 47 * 3600
    payment = signed_again(unpacked(payment["PAYMENT-SIGNATURE"]), validBefore=str(valid_to))
    world.script.settle.append(refusing("insufficient_funds"))
    assert (await world.buy(payment)).status_code == 402
    for _ in range(36):
        await world.later(HOUR)
    world.chain.pay(authorization(payment))
    for _ in range(3):
        await world.later(10 * MINUTE)
    assert await world.shop.payments() == ["settled"]
    await world.books_agree()


async def test_a_node_that_bounds_its_answers_is_asked_for_less(world: World) -> None:
    """Many payments in few blocks: more logs than a node gives at once, and one transfer that is gone."""
    most = 0

    def bounded(question: dict[str, Any]) -> Any:
        nonlocal most
        answer = world.chain.answer(question)
        if question["method"] == "eth_getLogs" and len(answer["result"]) > 3:
            most = max(most, len(answer["result"]))
            error = {"code": -32005, "message": "query returned more than 3 results"}
            return {"jsonrpc": "2.0", "id": question["id"], "error": error}
        return answer

    bought = []
    for _ in range(4):
        bought += [await world.payment(), await world.payment()]
        for payment in bought[-2:]:
            assert (await world.buy(payment)).status_code == 200
        world.shop.clock.ahead_us += 10 * SECOND
    world.chain.vanish(nonce(bought[3]))
    world.shop.clock.ahead_us += 3 * MINUTE
    sweep, witness = Sweep(), Witness(Chain(InProcessNode(bounded)), ASSET)
    await witness.confirmed(sweep, [bytes.fromhex(PAY_TO[2:])], world.shop.clock() // 1_000_000 - 600)
    assert most == 7
    made = {bytes.fromhex(entry.transaction[2:]) for entry in world.chain.entries.values()}
    assert {key[:32] for key in sweep.found} == made


async def test_without_logs_what_is_late_is_looked_at_by_itself(world: World) -> None:
    """The node answers about one payment, and never about a range of blocks."""
    payment, _ = await world.buying()
    answering_all = world.chain.eth_getLogs

    def one_by_one(wanted: dict[str, Any]) -> Any:
        if wanted["topics"][1] is None:
            raise ChainError("the node gives no logs of all")
        return answering_all(wanted)

    world.chain.vanish(nonce(payment))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeChain, "eth_getLogs", lambda _self, wanted: one_by_one(wanted))
        world.shop.clock.ahead_us += 5 * MINUTE
        watcher = world.shop.gate._watcher
        assert watcher is not None
        await watcher.run_once()
    assert await world.shop.ledger() == [SOLD, UNDONE]


async def test_final_blocks_are_read_on_where_the_node_stopped(world: World) -> None:
    await world.buying()
    world.shop.clock.ahead_us += 3 * MINUTE
    read: list[tuple[int, int]] = []
    away = True

    class Stopping(Chain):
        async def transfers_to(
            self, asset: Asset, recipients: Sequence[bytes], first: int, last: int
        ) -> AsyncIterator[bytes]:
            if away and len(read) == 2:
                raise ChainError("the node is out of reach")
            read.append((first, last))
            async for found in super().transfers_to(asset, recipients, first, last):
                yield found

    witness, sweep = Witness(Stopping(InProcessNode(world.chain.answer)), ASSET), Sweep(span=10)
    since_s = world.shop.clock() // 1_000_000 - 300
    with pytest.raises(ChainError):
        await witness.confirmed(sweep, [bytes.fromhex(PAY_TO[2:])], since_s)
    assert sweep.next_block == read[1][1] + 1 == read[0][0] + 30
    away = False
    await witness.confirmed(sweep, [bytes.fromhex(PAY_TO[2:])], since_s)
    assert read[2][0] == read[1][1] + 1
    assert list(sweep.found.values()) == [1]


async def test_a_node_that_hangs_holds_no_other_look_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is watched is asked about at once, so one silence is waited for and not thirty."""
    for _ in range(20):
        _, refused = await world.buying(refusing("insufficient_funds"))
        assert refused.status_code == 402
    asked, release = 0, asyncio.Event()

    async def hang(*_given: Any) -> Any:
        nonlocal asked
        asked += 1
        await release.wait()
        raise ChainError("it took too long")

    witness = world.shop.gate._chains[SEPOLIA]
    monkeypatch.setattr(witness, "fate", hang)
    world.shop.clock.ahead_us += 20 * SECOND
    assert world.shop.gate._watcher is not None
    looking = asyncio.create_task(world.shop.gate._watcher.run_once())
    await until(lambda: asked == 20)
    release.set()
    assert await looking == 0


# --- by hand --------------------------------------------------------------------------------------


async def test_by_hand_it_is_as_the_chain_says(world: World) -> None:
    """A node that was out of reach is back before recovery asks it: the seller cannot say otherwise."""
    world.chain.broken = True
    payment, pending = await world.buying(settle_and_lose, *[USED] * 5)
    assert problem_of(pending) == "payment_pending"
    world.chain.broken = False
    store, config = world.shop.gate.store, world.shop.gate.config
    assert store is not None
    ((identifier,),) = await world.shop.sql("SELECT id FROM payments")

    async def say(tx: str | None) -> Any:
        return await resolve_payment(
            *(store, config, payment_text(identifier)),
            tx=tx,
            reason="so it is",
            now_us=world.shop.clock,
            chains=world.shop.gate._chains,
        )

    with pytest.raises(InputError, match="the chain shows that it was paid"):
        await say(None)
    with pytest.raises(InputError, match="it is resolved by what the chain shows"):
        await say("0x" + "9" * 64)
    assert (await say(world.chain.entries[nonce(payment)].transaction)).state == "settled"
    assert await world.shop.ledger() == [SOLD]
    assert (await world.buy(payment)).status_code == 200
    await world.books_agree()
