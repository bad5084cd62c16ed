"""The facilitator's client against one that misbehaves in every way the contract's failure table names."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from headgate.model.errors import FacilitatorUncertain, FacilitatorUnreachable
from headgate.x402 import wire
from headgate.x402.answers import ANSWER_BYTES, Refused, Settled, Unverified, Verified
from headgate.x402.breaker import (
    ATTEMPT_US,
    CLOSED,
    FIRST_PAUSE_US,
    LONGEST_PAUSE_US,
    THRESHOLD,
    Breakers,
    Refusals,
)
from headgate.x402.facilitator import FacilitatorClient, GuardedFacilitator, InProcessFacilitator
from headgate.x402.offer import requirements
from tests.x402 import buyer
from tests.x402.buyer import PAYER, SEPOLIA, SETTLER, URL, offer
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

TERMS = requirements(offer())
OTHER = "0x000000000000000000000000000000000000bEEF"


@pytest.fixture
def payment(exact_header: bytes) -> dict[str, Any]:
    signed = wire.decode(exact_header)
    return wire.facilitator_payload(signed, offer(), url=URL, mime_type="application/json")


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedFacilitator]:
    async with ScriptedFacilitator() as facilitator:
        yield facilitator


@pytest.fixture
async def client(scripted: ScriptedFacilitator) -> AsyncIterator[FacilitatorClient]:
    client = FacilitatorClient(
        scripted.url + "/", headers={"X-Api-Key": "k"}, verify_timeout_ms=300, settle_timeout_ms=300
    )
    yield client
    await client.close()


async def test_a_good_payment_is_verified_and_settled(
    client: FacilitatorClient, scripted: ScriptedFacilitator, payment: dict[str, Any]
) -> None:
    assert await client.verify(payment, TERMS) == Verified()
    assert await client.settle(payment, TERMS) == Settled(
        "0x" + "1".rjust(64, "0"), SEPOLIA, bytes.fromhex(PAYER.address[2:]), 100_000
    )
    question = {"x402Version": 2, "paymentPayload": payment, "paymentRequirements": TERMS}
    assert scripted.asked == [("verify", question), ("settle", question)]
    assert scripted.connections == 1
    assert {each["x-api-key"] for each in scripted.headers} == {"k"}


async def test_an_upto_payment_settles_what_was_used(client: FacilitatorClient, upto_header: bytes) -> None:
    made = offer(buyer.VARIABLE)
    signed = wire.decode(upto_header)
    upto = wire.facilitator_payload(signed, made, url=URL, mime_type="application/json")
    settled = await client.settle(upto, requirements(made, 1234))
    assert isinstance(settled, Settled)
    assert settled.amount_micros == 1234


async def test_an_upto_of_nothing_settles_without_a_transaction(
    client: FacilitatorClient, upto_header: bytes
) -> None:
    made = offer(buyer.VARIABLE)
    upto = wire.facilitator_payload(wire.decode(upto_header), made, url=URL, mime_type="a/b")
    settled = await client.settle(upto, requirements(made, 0))
    assert isinstance(settled, Settled)
    assert (settled.transaction, settled.amount_micros) == ("", 0)


async def test_what_is_supported_is_read_with_its_upto_account(client: FacilitatorClient) -> None:
    supported = await client.supported()
    assert supported.takes("exact", SEPOLIA)
    assert not supported.takes("exact", "eip155:1")
    assert supported.upto_address(SEPOLIA) == SETTLER
    assert supported.upto_address("eip155:1") is None


def by_name(rows: list[tuple[str, Step, str]]) -> list[Any]:
    return [pytest.param(step, expected, id=name) for name, step, expected in rows]


VERIFY_ROWS: list[tuple[str, Step, str]] = [
    ("says no", refusing("insufficient_funds"), "insufficient_funds"),
    ("says no with 400", refusing("insufficient_funds", 400), "insufficient_funds"),
    ("says no in prose", refusing("Error: no funds at 0x12"), "payment_refused"),
    ("says no without a reason", answering({"isValid": False}), "payment_refused"),
    ("failed inside", refusing("unexpected_verify_error"), "UNREACHABLE"),
    ("yes with 400", answering({"isValid": True}, 400), "UNREACHABLE"),
    ("yes, of another payer", answering({"isValid": True, "payer": OTHER}), "UNREACHABLE"),
    ("yes, of nobody", answering({"isValid": True, "payer": "me"}), "UNREACHABLE"),
    ("a word for a truth", answering({"isValid": "yes"}), "UNREACHABLE"),
    ("401", answering({"error": "no key"}, 401), "UNREACHABLE"),
    ("429", answering(b"slow down", 429), "UNREACHABLE"),
    ("500", answering({"isValid": False, "invalidReason": "x_y_z"}, 500), "UNREACHABLE"),
    ("503", answering(b"<html>", 503), "UNREACHABLE"),
    ("redirect", answering(b"", 307, "Location: /elsewhere\r\n"), "UNREACHABLE"),
    ("not JSON", answering(b"<html>hello</html>"), "UNREACHABLE"),
    ("empty", answering(b""), "UNREACHABLE"),
    ("a list", answering([]), "UNREACHABLE"),
    ("other JSON", answering({"valid": True}), "UNREACHABLE"),
    ("bytes that are no text", answering(b'{"isValid":true,"payer":"\xff"}'), "UNREACHABLE"),
    ("too deep", answering(b'{"isValid":' + b"[" * 60_000), "UNREACHABLE"),
    ("too long", answering(b" " * ANSWER_BYTES + b'{"isValid":true}'), "UNREACHABLE"),
    ("not HTTP", raw(b"SSH-2.0-OpenSSH_9.6\r\n"), "UNREACHABLE"),
    ("cut short", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), "UNREACHABLE"),
    ("hangs", hang, "UNREACHABLE"),
    ("too slow", late(1.0), "UNREACHABLE"),
    ("drops", drop, "ok"),  # once: verifying is asked again over a new connection
    ("a bit slow", late(0.05), "ok"),
]


@pytest.mark.parametrize(
    ("step", "expected"), [row[1:] for row in VERIFY_ROWS], ids=[row[0] for row in VERIFY_ROWS]
)
async def test_what_verify_may_answer(
    step: Step,
    expected: str,
    client: FacilitatorClient,
    scripted: ScriptedFacilitator,
    payment: dict[str, Any],
) -> None:
    scripted.script.verify.append(step)
    if expected == "UNREACHABLE":
        with pytest.raises(FacilitatorUnreachable):
            await client.verify(payment, TERMS)
    else:
        wanted = Verified() if expected == "ok" else Refused(expected)
        assert await client.verify(payment, TERMS) == wanted
    assert await client.verify(payment, TERMS) == Verified()  # the payment is still good


async def test_a_facilitator_that_drops_every_connection_is_unreachable_for_verify(
    client: FacilitatorClient, scripted: ScriptedFacilitator, payment: dict[str, Any]
) -> None:
    scripted.script.verify.extend([drop, drop])
    with pytest.raises(FacilitatorUnreachable):
        await client.verify(payment, TERMS)
    assert scripted.count("verify") == 2


SETTLE_ROWS: list[tuple[str, Step, str]] = [
    ("says no", refusing("insufficient_funds"), "insufficient_funds"),
    ("says no with 402", refusing("insufficient_funds", 402), "insufficient_funds"),
    ("says no in prose", refusing("Traceback (most recent call last)"), "DOUBTFUL"),
    ("says no and not why", answering({"success": False, "transaction": "", "network": ""}), "DOUBTFUL"),
    *(
        (code, refusing(code), "DOUBTFUL")
        for code in (
            "settle_exact_node_failure",
            "settle_exact_failed_onchain",
            "settle_exact_evm_transaction_confirmation_timed_out",
            "unknown_error",
            "unknown_settlement_error",
            "invalid_transaction_state",
            "invalid_exact_evm_transaction_failed",
            "invalid_upto_evm_transaction_failed",
            "invalid_exact_evm_transfer_event_mismatch",
            "invalid_exact_evm_verification_failed",
            "invalid_exact_evm_failed_to_execute_transfer",
            "invalid_upto_evm_failed_to_get_receipt",
            "failed_to_broadcast",
        )
    ),
    *(
        (code, refusing(code), code)
        for code in (
            "insufficient_balance",
            "invalid_exact_evm_insufficient_balance",
            "invalid_exact_evm_payload_authorization_valid_before",
            "invalid_exact_evm_payload_signature",
            "invalid_exact_evm_transaction_simulation_failed",
            "invalid_exact_evm_failed_to_verify_signature",
            "invalid_exact_evm_failed_to_get_network_config",
            "invalid_permit2_recipient_mismatch",
            "invalid_payload",
            "permit2_allowance_required",
            "permit2_deadline_expired",
            "permit2_simulation_failed",
            "smart_wallet_deployment_failed",
            "erc20_approval_broadcast_failed",
            "unsupported_scheme",
            "blocked_by_policy",
        )
    ),
    ("failed, broadcast", refusing("transaction_failed", transaction="0x" + "Ab" * 32), "DOUBTFUL"),
    ("failed, perhaps after a broadcast", refusing("transaction_failed"), "DOUBTFUL"),
    ("no, and yet a broadcast", refusing("insufficient_funds", transaction="0x" + "ab" * 32), "DOUBTFUL"),
    ("broadcast, not seen yet", refusing("settlement_pending", transaction="0x" + "ab" * 32), "UNCERTAIN"),
    ("failed inside", refusing("unexpected_settle_error"), "UNCERTAIN"),
    ("500, no", refusing("insufficient_funds", 500), "UNCERTAIN"),
    ("500", answering(b"oops", 500), "UNCERTAIN"),
    ("400, nonsense", answering(b"oops", 400), "UNCERTAIN"),
    ("400, yes", answering({"success": True}, 400), "UNCERTAIN"),
    ("redirect", answering(b"", 308, "Location: /elsewhere\r\n"), "UNCERTAIN"),
    ("not JSON", answering(b"<html>"), "UNCERTAIN"),
    ("a word for a truth", answering({"success": "true"}), "UNCERTAIN"),
    ("too long", answering(b" " * ANSWER_BYTES + b'{"success":false}'), "UNCERTAIN"),
    ("hangs", hang, "UNCERTAIN"),
    ("too slow", late(1.0), "UNCERTAIN"),
    ("drops", drop, "UNCERTAIN"),
    ("settles and loses the answer", settle_and_lose, "UNCERTAIN"),
    ("cut short", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), "UNCERTAIN"),
    ("no transaction", lying(transaction=""), "LIES transaction"),
    ("transaction left out", lying(transaction=...), "LIES transaction"),
    ("a zero transaction", lying(transaction="0x" + "0" * 64), "LIES transaction"),
    ("a short transaction", lying(transaction="0xabc"), "LIES transaction"),
    ("another network", lying(network="eip155:1"), "LIES network"),
    ("no network", lying(network=...), "LIES network"),
    ("another payer", lying(payer=OTHER), "LIES payer"),
    ("a payer that is none", lying(payer="0x"), "LIES payer"),
    ("another amount", lying(amount="99999"), "LIES amount"),
    ("no payer, no amount", lying(payer=..., amount=None), "ok"),
    ("the amount as a number", lying(amount=100_000), "ok"),
    ("the payer in lower case", lying(payer=PAYER.address.lower()), "ok"),
]


@pytest.mark.parametrize(
    ("step", "expected"), [row[1:] for row in SETTLE_ROWS], ids=[row[0] for row in SETTLE_ROWS]
)
async def test_what_settle_may_answer(
    step: Step,
    expected: str,
    client: FacilitatorClient,
    scripted: ScriptedFacilitator,
    payment: dict[str, Any],
) -> None:
    scripted.script.settle.append(step)
    if expected == "UNCERTAIN":
        with pytest.raises(FacilitatorUncertain):
            await client.settle(payment, TERMS)
        assert scripted.count("settle") == 1  # never repeated blindly
        return
    result = await client.settle(payment, TERMS)
    if expected == "ok":
        assert isinstance(result, Settled)
    elif expected.startswith("LIES"):
        assert isinstance(result, Unverified)
        assert result.what == expected.split()[1]
    else:
        assert isinstance(result, Refused)
        assert result.doubtful is (expected == "DOUBTFUL")
        assert result.doubtful or result.reason == expected


async def test_a_facilitator_that_is_down_was_never_asked_and_is_used_again_when_back(
    client: FacilitatorClient, scripted: ScriptedFacilitator, payment: dict[str, Any]
) -> None:
    await scripted.go()
    for ask in (client.verify, client.settle):
        with pytest.raises(FacilitatorUnreachable):
            await ask(payment, TERMS)
    with pytest.raises(FacilitatorUnreachable):
        await client.supported()
    await scripted.come_back()
    assert isinstance(await client.settle(payment, TERMS), Settled)


async def test_a_name_that_does_not_resolve_was_never_asked(payment: dict[str, Any]) -> None:
    client = FacilitatorClient("http://facilitator.invalid", settle_timeout_ms=2000)
    with pytest.raises(FacilitatorUnreachable):
        await client.settle(payment, TERMS)
    await client.close()


async def test_many_at_once(
    client: FacilitatorClient, scripted: ScriptedFacilitator, payment: dict[str, Any]
) -> None:
    results = await asyncio.gather(*(client.verify(payment, TERMS) for _ in range(50)))
    assert results == [Verified()] * 50
    assert scripted.count("verify") == 50


async def test_its_words_are_logged_shortened_and_without_signatures_and_never_told(
    client: FacilitatorClient,
    scripted: ScriptedFacilitator,
    payment: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    signature = payment["payload"]["signature"]
    trace = f"Traceback: secret at /srv/app.py {signature} " + "x" * 5000
    scripted.script.settle.append(answering(trace.encode(), 500))
    scripted.script.verify.append(refusing(trace))
    with pytest.raises(FacilitatorUncertain) as caught:
        await client.settle(payment, TERMS)
    refused = await client.verify(payment, TERMS)
    assert "secret" not in str(caught.value) + repr(refused)
    assert caplog.text.count("secret at") == 2
    assert signature[10:60] not in caplog.text
    assert len(caplog.text) < 3000


def test_a_client_works_in_one_event_loop_after_another(payment: dict[str, Any]) -> None:
    client = FacilitatorClient("http://127.0.0.1:1")

    async def ask() -> None:
        with pytest.raises(FacilitatorUnreachable):
            await client.verify(payment, TERMS)
        await client.close()

    asyncio.run(ask())
    asyncio.run(ask())


# --- in the same process ---


class Embedded:
    """Answers as it was told to."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    async def verify(self, _payment: Any, _requirements: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    settle = verify

    async def supported(self) -> Any:
        return {"kinds": [{"x402Version": 2, "scheme": "exact", "network": SEPOLIA}]}


async def test_an_embedded_facilitator_is_judged_like_any_other(payment: dict[str, Any]) -> None:
    assert await InProcessFacilitator(Embedded({"isValid": True})).verify(payment, TERMS) == Verified()
    no = InProcessFacilitator(Embedded({"success": False, "errorReason": "insufficient_funds"}))
    assert await no.settle(payment, TERMS) == Refused("insufficient_funds")
    lies = InProcessFacilitator(Embedded({"success": True, "transaction": "", "network": SEPOLIA}))
    assert await lies.settle(payment, TERMS) == Unverified("transaction")
    assert (await lies.supported()).takes("exact", SEPOLIA)
    broken = InProcessFacilitator(Embedded(RuntimeError("boom")))
    with pytest.raises(FacilitatorUnreachable):
        await broken.verify(payment, TERMS)
    with pytest.raises(FacilitatorUncertain):
        await broken.settle(payment, TERMS)


# --- the circuit breaker ---


class Clock:
    def __init__(self) -> None:
        self.now_us = 1_000_000_000

    def __call__(self) -> int:
        return self.now_us


def by(payment: dict[str, Any], number: int) -> dict[str, Any]:
    """The same payment, as if another had signed it."""
    payload = payment["payload"]
    signed = payload["authorization"] | {"from": f"0x{number:040x}"}
    return {**payment, "payload": {**payload, "authorization": signed}}


@pytest.mark.parametrize("failing", [drop, answering(b"", 503)], ids=["dropped", "503"])
async def test_a_facilitator_that_fails_is_left_alone_then_tried_once(
    failing: Step, client: FacilitatorClient, scripted: ScriptedFacilitator, payment: dict[str, Any]
) -> None:
    clock = Clock()
    guarded = GuardedFacilitator(client, clock)
    each = 2 if failing is drop else 1  # a dropped connection is tried again once
    scripted.script.verify.extend([failing] * (THRESHOLD + 1) * each)
    for number in range(THRESHOLD + 3):
        with pytest.raises(FacilitatorUnreachable):
            await guarded.verify(by(payment, number), TERMS)
    assert scripted.count("verify") == THRESHOLD * each
    assert guarded.wait_us(payment) == FIRST_PAUSE_US
    clock.now_us += FIRST_PAUSE_US  # one attempt, which fails: twice the pause
    with pytest.raises(FacilitatorUnreachable):
        await guarded.verify(payment, TERMS)
    assert scripted.count("verify") == (THRESHOLD + 1) * each
    assert guarded.wait_us(payment) == 2 * FIRST_PAUSE_US
    clock.now_us += 2 * FIRST_PAUSE_US  # one attempt, which succeeds
    assert await guarded.verify(payment, TERMS) == Verified()
    assert guarded.wait_us(payment) == 0


async def test_one_that_verifies_everything_and_settles_nothing_gets_no_new_work(
    client: FacilitatorClient, scripted: ScriptedFacilitator, payment: dict[str, Any]
) -> None:
    clock = Clock()
    guarded = GuardedFacilitator(client, clock)
    scripted.script.settle.extend([refusing("transaction_failed")] * THRESHOLD)
    for number in range(THRESHOLD):
        assert await guarded.verify(by(payment, number), TERMS) == Verified()
        assert isinstance(await guarded.settle(by(payment, number), TERMS), Refused)
    with pytest.raises(FacilitatorUnreachable):
        await guarded.verify(payment, TERMS)
    assert isinstance(await guarded.settle(payment, TERMS), Settled)  # what is due is always tried
    assert await guarded.verify(payment, TERMS) == Verified()


async def test_who_fails_again_and_again_waits_by_itself(
    client: FacilitatorClient, scripted: ScriptedFacilitator, payment: dict[str, Any]
) -> None:
    """A wallet that is emptied before each settlement: its payer is held off, and nobody else."""
    clock = Clock()
    guarded = GuardedFacilitator(client, clock)
    scripted.script.settle.extend([refusing("transaction_failed")] * (THRESHOLD + 1))
    bad, good = by(payment, 1), by(payment, 2)
    for _ in range(THRESHOLD):
        await guarded.verify(bad, TERMS)
        await guarded.settle(bad, TERMS)
    with pytest.raises(FacilitatorUnreachable):
        await guarded.verify(bad, TERMS)
    assert await guarded.verify(good, TERMS) == Verified()
    clock.now_us += FIRST_PAUSE_US
    await guarded.verify(bad, TERMS)
    await guarded.settle(bad, TERMS)
    assert (guarded.wait_us(bad), guarded.wait_us(good)) == (2 * FIRST_PAUSE_US, 0)
    clock.now_us += 2 * FIRST_PAUSE_US
    await guarded.verify(bad, TERMS)
    assert isinstance(await guarded.settle(bad, TERMS), Settled)
    assert guarded.wait_us(bad) == 0


@pytest.mark.parametrize("failing", [answering(b"Traceback", 500), drop, hang], ids=["500", "drop", "hang"])
async def test_a_client_whose_questions_get_no_usable_answer_waits_by_itself(
    failing: Step, client: FacilitatorClient, scripted: ScriptedFacilitator, payment: dict[str, Any]
) -> None:
    """Keys are free: a hundred of one client's, each with a payment that the facilitator stumbles over."""
    guarded = GuardedFacilitator(client, Clock())
    each = 2 if failing is drop else 1  # a dropped connection is tried again once
    scripted.script.verify.extend([failing] * THRESHOLD * each)
    for number in range(100):
        with pytest.raises(FacilitatorUnreachable):
            await guarded.verify(by(payment, number), TERMS, f"2001:db8::{number:x}")
    assert scripted.count("verify") == THRESHOLD * each
    assert await guarded.verify(payment, TERMS, "192.0.2.7") == Verified()


async def test_a_facilitator_that_is_not_there_is_nobody_s_fault(payment: dict[str, Any]) -> None:
    async with ScriptedFacilitator() as gone:
        url = gone.url
    guarded = GuardedFacilitator(FacilitatorClient(url), Clock())
    for _ in range(THRESHOLD):
        with pytest.raises(FacilitatorUnreachable):
            await guarded.verify(payment, TERMS, "203.0.113.9")
    assert guarded.wait_us(payment, "192.0.2.7") == FIRST_PAUSE_US
    await guarded.close()


async def test_who_closed_the_shop_does_not_keep_it_closed(
    client: FacilitatorClient, scripted: ScriptedFacilitator, payment: dict[str, Any]
) -> None:
    """Settlements that were under way change nothing, and the same payer's attempt lengthens no pause."""
    clock = Clock()
    guarded = GuardedFacilitator(client, clock)
    scripted.script.settle.extend([refusing("transaction_failed")] * 100)
    for number in range(THRESHOLD + 20):
        await guarded.verify(by(payment, number), TERMS)
    for number in range(THRESHOLD + 20):
        await guarded.settle(by(payment, number), TERMS)
    assert guarded.wait_us(payment) == FIRST_PAUSE_US
    for _ in range(3):
        clock.now_us += FIRST_PAUSE_US
        await guarded.verify(by(payment, 1), TERMS)
        await guarded.settle(by(payment, 1), TERMS)
        assert guarded.wait_us(payment) == FIRST_PAUSE_US
    clock.now_us += FIRST_PAUSE_US
    scripted.script.settle.clear()
    await guarded.verify(payment, TERMS)
    await guarded.settle(payment, TERMS)
    assert guarded.wait_us(by(payment, 999)) == 0


async def test_payers_who_cannot_pay_do_not_open_the_breaker(
    client: FacilitatorClient, scripted: ScriptedFacilitator, payment: dict[str, Any]
) -> None:
    guarded = GuardedFacilitator(client, Clock())
    scripted.script.settle.extend([refusing("insufficient_funds")] * 3 * THRESHOLD)
    for number in range(3 * THRESHOLD):
        await guarded.settle(by(payment, number), TERMS)
    assert await guarded.verify(payment, TERMS) == Verified()


async def test_a_refused_attempt_leaves_the_next_payment_the_chance(
    client: FacilitatorClient, scripted: ScriptedFacilitator, payment: dict[str, Any]
) -> None:
    clock = Clock()
    guarded = GuardedFacilitator(client, clock)
    scripted.script.settle.extend([drop] * THRESHOLD)
    for number in range(THRESHOLD):
        with pytest.raises(FacilitatorUncertain):
            await guarded.settle(by(payment, number), TERMS)
    clock.now_us += FIRST_PAUSE_US
    scripted.script.verify.append(refusing("insufficient_funds"))
    assert await guarded.verify(payment, TERMS) == Refused("insufficient_funds")
    assert await guarded.verify(payment, TERMS) == Verified()
    with pytest.raises(FacilitatorUnreachable):  # until that attempt's settlement is known
        await guarded.verify(payment, TERMS)
    await guarded.settle(payment, TERMS)
    assert await guarded.verify(payment, TERMS) == Verified()


def test_the_pause_grows_to_its_longest_and_an_attempt_that_never_ended_is_forgotten() -> None:
    breaker = CLOSED
    now_us = 0
    pauses = []
    for number in range(THRESHOLD + 12):
        breaker = breaker.attempted(b"%d" % number, now_us).failed(now_us, b"%d" % number)
        pauses.append(breaker.wait_us(now_us))
        now_us += pauses[-1]
    assert pauses[: THRESHOLD - 1] == [0] * (THRESHOLD - 1)
    assert pauses[THRESHOLD - 1 : THRESHOLD + 1] == [FIRST_PAUSE_US, 2 * FIRST_PAUSE_US]
    assert pauses[-1] == LONGEST_PAUSE_US
    trying = breaker.attempted(b"one", now_us)
    assert trying.wait_us(now_us) == ATTEMPT_US
    assert trying.wait_us(now_us + ATTEMPT_US) == 0
    assert trying.given_up(b"another", now_us) == trying
    assert trying.given_up(b"one", now_us).wait_us(now_us) == 0
    assert breaker.succeeded() == CLOSED


def test_those_whose_questions_failed_are_remembered_up_to_a_bound() -> None:
    breakers = Breakers(capacity=2)
    for asker in (b"one", b"two", b"three"):
        for _ in range(THRESHOLD):
            breakers.failed(asker, 0, whoever_asks=False)
    assert [breakers.wait_us(asker, 0) > 0 for asker in (b"one", b"two", b"three")] == [False, True, True]


# --- refusals remembered ---


def test_a_refusal_is_remembered_for_exactly_that_payment_and_not_for_long(exact: buyer.Json) -> None:
    refusals = Refusals(capacity=2, ttl_us=100)
    first = wire.decode(buyer.sealed(exact))
    resigned = wire.decode(buyer.sealed(buyer.changed(exact, "payload.signature", "0x" + "11" * 65)))
    refusals.remember(first, "insufficient_funds", 0)
    assert refusals.reason(first, 99) == "insufficient_funds"
    assert refusals.reason(resigned, 99) is None
    assert refusals.reason(first, 100) is None
    for number in range(3):
        nonce = f"0x{number:064x}"
        other = wire.decode(buyer.sealed(buyer.changed(exact, "payload.authorization.nonce", nonce)))
        refusals.remember(other, "no", 0)
    assert len(refusals._known) == 2
