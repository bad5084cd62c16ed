"""The failure table of contract §4 over real HTTP, with a facilitator that obeys the test.

Whatever it does: never two events, never a settled payment without one, and the payer is not invited to sign
again while its payment may have been made.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from headgate.service.publish import publish_catalog
from headgate.service.recover import Recovery
from tests.web.shop import Row, Shop, client_of, opened_shop, paid, problem_of, unpacked, until
from tests.x402.buyer import PAYER, changed, opened, sealed
from tests.x402.scripted import (
    ScriptedFacilitator,
    Step,
    answering,
    drop,
    hang,
    late,
    lying,
    raw,
    refusing,
    settle_and_lose,
)

pytestmark = pytest.mark.timeout(60)
SOLD = Row("usage", "x402", 1, 100_000, None, PAYER.address.lower())
SECRET = "Traceback (most recent call last): password=hunter2"
HOUR_US = 3_600_000_000
WALLET = ("payload.signature", "0x" + "ab" * 96)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with opened_shop(tmp_path, verify_timeout_ms=300, settle_timeout_ms=300) as opened:
        yield opened


async def recover(shop: Shop, rounds: int = 1) -> None:
    """What the background worker does, without waiting for it."""
    recovery = shop.gate._recovery
    assert isinstance(recovery, Recovery)
    for _ in range(rounds):
        shop.clock.ahead_us += 61_000_000
        await recovery.run_once()


async def settled(shop: Shop) -> bool:
    return await shop.payments() == ["settled"]


def says_nothing_of_it(answer: httpx.Response) -> None:
    """Not a word of the facilitator's, nor an invitation to sign again."""
    assert "hunter2" not in answer.text
    assert "Traceback" not in answer.text
    assert "payment-required" not in answer.headers


AT_VERIFY: dict[str, Step] = {
    "closes the connection": drop,
    "never answers": hang,
    "500": answering({"error": SECRET}, 500),
    "503 with a body that says yes": answering({"isValid": True, "payer": PAYER.address}, 503),
    "not JSON": answering(SECRET.encode()),
    "JSON, but no answer": answering({"hello": 1}),
    "a list": answering([]),
    "empty": answering(b""),
    "yes for somebody else": answering({"isValid": True, "payer": "0x" + "99" * 20}),
    "not even HTTP": raw(b"SSH-2.0-x\r\n"),
    "endless": answering(b"{" + b" " * 300_000 + b"}"),
    "redirects": answering({}, 302, "Location: http://127.0.0.1:1/\r\n"),
    "its own fault": refusing("unexpected_verify_error", invalidMessage=SECRET),
}


@pytest.mark.parametrize("fault", AT_VERIFY, ids=lambda name: name)
async def test_no_usable_answer_at_verify(fault: str, shop: Shop, client: httpx.AsyncClient) -> None:
    payment = paid(await client.get("/v1/doc"))
    shop.facilitator.script.verify.extend([AT_VERIFY[fault]] * 2)  # a dropped connection is tried once more
    answer = await client.get("/v1/doc", headers=payment)
    assert (answer.status_code, problem_of(answer)) == (503, "facilitator_unavailable")
    assert answer.headers["retry-after"].isdigit()
    says_nothing_of_it(answer)
    assert shop.calls.count == 0
    assert shop.facilitator.settled == {}
    assert await shop.payments() == ["released"]
    shop.facilitator.script.verify.clear()
    again = await client.get("/v1/doc", headers=payment)  # the same payment is good
    assert again.status_code == 200
    assert await shop.ledger() == [SOLD]


async def test_a_facilitator_that_is_not_there(shop: Shop, client: httpx.AsyncClient) -> None:
    """Down at start and later: the rest of the application works, customers too; back again, all is well."""
    payment = paid(await client.get("/v1/doc"))
    await shop.facilitator.go()
    answer = await client.get("/v1/doc", headers=payment)
    assert (answer.status_code, problem_of(answer)) == (503, "facilitator_unavailable")
    assert (await client.get("/unlisted")).status_code == 200
    key = await shop.customer("ada", "team")
    assert (await client.get("/v1/doc", headers={"X-API-Key": key})).status_code == 200
    assert (await client.get("/v1/doc")).status_code in (402, 503)
    await shop.facilitator.come_back()
    assert (await client.get("/v1/doc", headers=payment)).status_code == 200
    assert (await shop.ledger())[1:] == [SOLD]


async def test_down_at_start(tmp_path: Path) -> None:
    scripted = ScriptedFacilitator()
    async with scripted:
        await scripted.go()
        async with opened_shop(tmp_path, facilitator=scripted) as shop, client_of(shop.app, "http") as client:
            assert (await client.get("/unlisted")).status_code == 200
            offer = await client.get("/v1/doc")
            assert offer.status_code in (402, 503)
            assert shop.calls.count == 0
            await scripted.come_back()
            payment = paid(await client.get("/v1/doc"))
            assert (await client.get("/v1/doc", headers=payment)).status_code == 200


async def test_what_it_supports_is_never_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 14: the start waits for nothing, and only what needs its account (`upto`) is not offered yet."""
    monkeypatch.setattr("headgate.app._FOLLOW_EVERY_S", 0.005)
    async with ScriptedFacilitator() as scripted, asyncio.timeout(45):
        scripted.script.supported.append(hang)
        async with (
            opened_shop(tmp_path, facilitator=scripted, verify_timeout_ms=600_000) as shop,
            client_of(shop.app, "http") as client,
        ):
            await until(lambda: scripted.count("supported"))
            seat = {"X-API-Key": await shop.customer("ada", "team", seat="ada.1")}
            assert (await client.get("/v1/doc", headers=seat)).status_code == 200
            assert (await client.post("/v1/words?h-headgate-units=7", headers=seat)).status_code == 200
            late = await client.post("/v1/words")
            assert (late.status_code, problem_of(late)) == (503, "offers_not_ready")
            assert late.headers["retry-after"].isdigit()
            assert (await client.get("/v1/doc", headers=paid(await client.get("/v1/doc")))).status_code == 200
            await dearer(shop, client)
            assert scripted.count("supported") == 1  # and it still has not answered
            assert [row.channel for row in await shop.ledger()] == ["seat", "seat", "x402"]


async def dearer(shop: Shop, client: httpx.AsyncClient) -> None:
    """A new price is published, and sold at by who follows the catalog in the background."""
    catalog = shop.gate.config.catalog
    action = replace(catalog.actions["doc.read"], price_micros=250_000)
    changed = replace(catalog, actions={**catalog.actions, "doc.read": action})
    assert shop.gate.store is not None
    await publish_catalog(shop.gate.store.registry, changed, now_us=shop.clock())

    async def is_offered() -> bool:
        return bool((await client.get("/v1/doc")).json()["accepts"][0]["amount"] == "250000")

    await until(is_offered)


async def test_after_some_failures_nobody_is_asked_for_a_while(shop: Shop, client: httpx.AsyncClient) -> None:
    shop.facilitator.script.verify.extend([answering({}, 500)] * 5)
    for _ in range(5):
        payment = paid(await client.get("/v1/doc"))
        assert (await client.get("/v1/doc", headers=payment)).status_code == 503
    asked = len(shop.asked)
    assert (await client.get("/v1/doc", headers=payment)).status_code == 503
    assert len(shop.asked) == asked
    shop.clock.ahead_us += 2_000_000
    assert (await client.get("/v1/doc", headers=payment)).status_code == 200


async def bought_by(client: httpx.AsyncClient, address: str) -> httpx.Response:
    """A purchase by a client at an address, as a proxy tells it."""
    where = {"X-Forwarded-For": address}
    return await client.get("/v1/doc", headers=where | paid(await client.get("/v1/doc", headers=where)))


async def test_what_fails_for_one_client_holds_up_no_other(shop: Shop, client: httpx.AsyncClient) -> None:
    shop.facilitator.script.verify.extend([answering({}, 500)] * 5)
    for _ in range(5):
        assert (await bought_by(client, "203.0.113.1")).status_code == 503
    asked = len(shop.asked)
    assert problem_of(await bought_by(client, "203.0.113.1")) == "facilitator_unavailable"
    assert len(shop.asked) == asked
    assert (await bought_by(client, "203.0.113.2")).status_code == 200


async def test_what_fails_for_five_clients_holds_up_all(shop: Shop, client: httpx.AsyncClient) -> None:
    shop.facilitator.script.verify.extend([answering({}, 500)] * 5)
    for number in range(5):
        assert (await bought_by(client, f"203.0.113.{number}")).status_code == 503
    asked = len(shop.asked)
    assert problem_of(await bought_by(client, "203.0.113.9")) == "facilitator_unavailable"
    assert len(shop.asked) == asked
    shop.clock.ahead_us += 2_000_000
    assert (await bought_by(client, "203.0.113.9")).status_code == 200


async def test_a_facilitator_that_is_not_reached_holds_up_all(shop: Shop, client: httpx.AsyncClient) -> None:
    """Nobody's doing, so each time counts, whoever asks."""
    await shop.facilitator.go()
    for _ in range(5):
        assert (await bought_by(client, "203.0.113.1")).status_code == 503
    await shop.facilitator.come_back()
    assert problem_of(await bought_by(client, "203.0.113.2")) == "facilitator_unavailable"
    assert "verify" not in shop.asked
    shop.clock.ahead_us += 2_000_000
    assert (await bought_by(client, "203.0.113.2")).status_code == 200


# --- at settle ------------------------------------------------------------------------------------

UNKNOWN: dict[str, Step] = {
    "closes the connection": drop,
    "never answers": hang,
    "too late": late(1.0),
    "settles, and loses the answer": settle_and_lose,
    "500": answering({"success": False, "errorReason": SECRET}, 500),
    "502 from a proxy": answering(b"<html>Bad gateway</html>", 502),
    "not JSON": answering(SECRET.encode()),
    "empty": answering(b""),
    "success without a word more": answering({"hello": 1}),
    "not decided": refusing("settlement_pending"),
}


@pytest.mark.parametrize("fault", UNKNOWN, ids=lambda name: name)
async def test_an_unknown_outcome_of_settling(fault: str, shop: Shop, client: httpx.AsyncClient) -> None:
    payment = paid(await client.get("/v1/doc"))
    shop.facilitator.script.settle.append(UNKNOWN[fault])
    answer = await client.get("/v1/doc", headers=payment)
    assert (answer.status_code, problem_of(answer)) == (503, "payment_pending")
    assert answer.headers["retry-after"].isdigit()
    says_nothing_of_it(answer)
    assert await shop.payments() == ["unknown"]
    assert await shop.ledger() == []

    again = await client.get("/v1/doc", headers=payment)
    assert (again.status_code, problem_of(again)) == (503, "payment_pending")
    other = await client.get("/v1/doc?other=1", headers=payment)
    assert problem_of(other) == "payment_bound_elsewhere"
    shop.clock.ahead_us += 10 * 60_000_000  # the authorization has expired meanwhile
    expired = await client.get("/v1/doc", headers=payment)
    assert (expired.status_code, problem_of(expired)) == (503, "payment_pending")

    await recover(shop)
    assert await shop.payments() == ["settled"]
    assert await shop.ledger() == [SOLD]
    served = await client.get("/v1/doc", headers=payment)
    assert (served.status_code, served.json()["call"]) == (200, 1)
    assert "payment-response" in served.headers
    assert shop.calls.count == 1
    assert len(shop.facilitator.settled) == 1
    await recover(shop, 2)
    assert await shop.ledger() == [SOLD]


async def test_the_worker_finds_it_by_itself(shop: Shop, client: httpx.AsyncClient) -> None:
    """Nobody calls the recovery: it runs in the background of every process."""
    payment = paid(await client.get("/v1/doc"))
    shop.facilitator.script.settle.append(drop)
    assert (await client.get("/v1/doc", headers=payment)).status_code == 503
    await until(lambda: settled(shop))
    assert (await client.get("/v1/doc", headers=payment)).status_code == 200
    assert await shop.ledger() == [SOLD]


async def test_unknown_until_the_facilitator_is_back(shop: Shop, client: httpx.AsyncClient) -> None:
    payment = paid(await client.get("/v1/doc"))
    shop.facilitator.script.settle.append(settle_and_lose)
    await client.get("/v1/doc", headers=payment)
    await shop.facilitator.go()
    await recover(shop, 3)
    assert await shop.payments() == ["unknown"]
    await shop.facilitator.come_back()
    await recover(shop)
    assert await shop.payments() == ["settled"]
    assert await shop.ledger() == [SOLD]


LIES: dict[str, Step] = {
    "an empty hash": lying(transaction=""),
    "no hash": lying(transaction=...),
    "a short hash": lying(transaction="0x1234"),
    "a hash of zeros": lying(transaction="0x" + "0" * 64),
    "another network": lying(network="eip155:1"),
    "another payer": lying(payer="0x" + "77" * 20),
    "another amount": lying(amount="1"),
}


@pytest.mark.parametrize("lie", LIES, ids=lambda name: name)
async def test_a_success_that_is_not_what_was_asked(lie: str, shop: Shop, client: httpx.AsyncClient) -> None:
    payment = paid(await client.get("/v1/doc"))
    shop.facilitator.script.settle.append(LIES[lie])
    answer = await client.get("/v1/doc", headers=payment)
    assert (answer.status_code, problem_of(answer)) == (502, "settlement_unverified")
    assert "payment-response" not in answer.headers
    says_nothing_of_it(answer)
    assert await shop.payments() == ["unknown"]
    assert await shop.ledger() == []
    again = await client.get("/v1/doc", headers=payment)
    assert again.status_code in (502, 503)
    await recover(shop)  # asked again, it tells the truth
    assert await shop.payments() == ["settled"]
    assert await shop.ledger() == [SOLD]
    assert (await client.get("/v1/doc", headers=payment)).status_code == 200
    assert shop.calls.count == 1


@pytest.mark.parametrize(
    ("step", "status", "state"),
    [
        (settle_and_lose, 503, "unknown"),
        (lying(transaction=""), 502, "unknown"),
        (refusing("insufficient_funds"), 402, "failed"),
    ],
)
async def test_whoever_may_have_paid_can_read_what_becomes_of_it(
    step: Step, status: int, state: str, shop: Shop, client: httpx.AsyncClient
) -> None:
    payment = paid(await client.get("/v1/doc"))
    shop.facilitator.script.settle.append(step)
    answer = await client.get("/v1/doc", headers=payment)
    assert answer.status_code == status
    assert "Headgate-Receipt" in answer.headers["access-control-expose-headers"]
    receipt = (await client.get(httpx.URL(answer.headers["headgate-receipt"]).path)).json()
    assert (receipt["state"], receipt["charged_amount"]) == (state, "0.000000")
    assert [step["state"] for step in receipt["timeline"]][-2:] == ["settling", state]
    again = await client.get("/v1/doc", headers=payment)
    assert again.headers["headgate-receipt"] == answer.headers["headgate-receipt"]


async def test_a_receipt_is_for_whoever_signed(shop: Shop, client: httpx.AsyncClient) -> None:
    """A contract's signature cannot be judged here: only the one that was taken opens the receipt."""
    shop.facilitator.script.settle.append(settle_and_lose)
    payment = changed(opened(paid(await client.get("/v1/doc"))["PAYMENT-SIGNATURE"].encode()), *WALLET)
    forged = changed(payment, WALLET[0], "0x" + "cd" * 96)
    header, other = ({"PAYMENT-SIGNATURE": sealed(each).decode()} for each in (payment, forged))
    assert "headgate-receipt" in (await client.get("/v1/doc", headers=header)).headers
    answer = await client.get("/v1/doc", headers=other)
    assert (answer.status_code, problem_of(answer)) == (503, "payment_pending")
    assert "headgate-receipt" not in answer.headers


@pytest.mark.parametrize(
    "step", [refusing("No! " + SECRET), answering({"success": False}), refusing("settle_exact_node_failure")]
)
async def test_refused_without_a_reason_that_excludes_a_transfer(
    step: Step, shop: Shop, client: httpx.AsyncClient
) -> None:
    """An exception's own words, nothing, or a failure at an unknown point: nobody is told to sign again."""
    payment = paid(await client.get("/v1/doc"))
    shop.facilitator.script.settle.append(step)
    answer = await client.get("/v1/doc", headers=payment)
    assert (answer.status_code, problem_of(answer)) == (503, "payment_pending")
    assert "payment-required" not in answer.headers
    assert "hunter2" not in answer.text
    assert await shop.payments() == ["unknown"]


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (refusing("insufficient_funds"), "insufficient_funds"),
        (refusing("insufficient_balance", 400), "insufficient_balance"),
        (refusing("blocked_by_policy"), "blocked_by_policy"),
    ],
)
async def test_refused_after_the_work(step: Step, reason: str, shop: Shop, client: httpx.AsyncClient) -> None:
    payment = paid(await client.get("/v1/doc"))
    shop.facilitator.script.settle.append(step)
    answer = await client.get("/v1/doc", headers=payment)
    assert (answer.status_code, answer.json()["error"]) == (402, reason)
    assert "hunter2" not in answer.text
    assert "call" not in answer.text
    assert unpacked(answer.headers["payment-required"])["error"] == reason
    told = unpacked(answer.headers["payment-response"])
    assert (told["success"], told["errorReason"], told["transaction"]) == (False, reason, "")
    assert await shop.payments() == ["failed"]
    assert await shop.ledger() == []
    again = await client.get("/v1/doc", headers=payment)
    assert (again.status_code, again.json()["error"]) == (402, reason)
    assert shop.calls.count == 1
    fresh = paid(await client.get("/v1/doc"))
    assert (await client.get("/v1/doc", headers=fresh)).status_code == 200
    assert await shop.ledger() == [SOLD]


async def test_the_payer_hangs_up_while_it_is_settled(shop: Shop) -> None:
    """What was begun is finished: settled, booked, and the answer kept for when the payer asks again."""
    from tests.web.shop import serving
    from tests.web.test_not_billed import hang_up

    asked = asyncio.Event()

    def slowly(facilitator: ScriptedFacilitator, endpoint: str, question: dict[str, Any]) -> Any:
        asked.set()
        return late(0.1)(facilitator, endpoint, question)

    async with serving(shop.app) as url, httpx.AsyncClient(base_url=url) as client:
        payment = paid(await client.get("/v1/doc"))
        shop.facilitator.script.settle.append(slowly)
        await hang_up(url, payment, asked)
        await until(lambda: settled(shop))
        again = await client.get("/v1/doc", headers=payment)
        assert again.status_code == 200
    assert await shop.ledger() == [SOLD]
    assert shop.calls.count == 1


async def test_a_cancelled_request_is_settled_to_its_end(shop: Shop) -> None:
    from tests.web.shop import Wire, scope

    wire = Wire()
    await shop.app(scope(), wire.receive, wire.send)
    payment = paid(httpx.Response(402, headers=wire.sent[0]["headers"]))
    asked = asyncio.Event()

    def slowly(facilitator: ScriptedFacilitator, endpoint: str, question: dict[str, Any]) -> Any:
        asked.set()
        return late(0.1)(facilitator, endpoint, question)

    shop.facilitator.script.settle.append(slowly)
    wire = Wire()
    task = asyncio.create_task(shop.app(scope(headers=payment), wire.receive, wire.send))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: settled(shop))
    assert await shop.ledger() == [SOLD]
