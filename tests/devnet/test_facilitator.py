"""The facilitator: the official client's payments in, an answer and moved money out."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from headgate.devnet import USDC_ADDRESS, DevChain, EmbeddedFacilitator, Wallet
from headgate.devnet.calls import encode_call
from tests.devnet.paying import (
    CANCEL_FIELDS,
    SELLER,
    Json,
    authorization,
    offer,
    pay,
    payload,
    poor,
    sign,
    vrs,
)


def nonce_of(payment: Json) -> str:
    return str(payment["payload"]["authorization"]["nonce"])


async def test_exact_end_to_end(chain: DevChain, facilitator: EmbeddedFacilitator, payer: Wallet) -> None:
    accepted = offer(100_000)
    payment = pay(payer, accepted)
    assert await facilitator.verify(payment, accepted) == {"isValid": True, "payer": payer.address}
    assert chain.balance_of(SELLER) == 0, "verify moves nothing"
    answer = await facilitator.settle(payment, accepted)
    found = chain.find_transfer(USDC_ADDRESS, payer.address, nonce_of(payment))
    assert found is not None
    assert (found.to, found.value) == (SELLER, 100_000)
    assert answer == {
        "success": True,
        "payer": payer.address,
        "transaction": found.transaction,
        "network": "eip155:84532",
    }
    assert chain.balance_of(SELLER) == 100_000
    assert chain.balance_of(payer.address) == 1_000_000_000_000 - 100_000


async def test_what_it_says_it_supports(facilitator: EmbeddedFacilitator, chain: DevChain) -> None:
    account = chain.facilitator.address
    kinds = [
        {"x402Version": 2, "scheme": "exact", "network": "eip155:84532"},
        {
            "x402Version": 2,
            "scheme": "upto",
            "network": "eip155:84532",
            "extra": {"facilitatorAddress": account},
        },
    ]
    assert await facilitator.supported() == {
        "kinds": kinds,
        "extensions": ["eip2612GasSponsoring"],
        "signers": {"eip155:*": [account]},
    }


async def test_a_spent_payment_does_not_verify(facilitator: EmbeddedFacilitator, payer: Wallet) -> None:
    accepted = offer()
    payment = pay(payer, accepted)
    await facilitator.settle(payment, accepted)
    answer = await facilitator.verify(payment, accepted)
    assert (answer["isValid"], answer["invalidReason"]) == (False, "invalid_exact_evm_nonce_already_used")


async def test_settling_again_answers_the_first_success_and_moves_nothing(
    chain: DevChain, facilitator: EmbeddedFacilitator, payer: Wallet
) -> None:
    accepted = offer()
    payment = pay(payer, accepted)
    answers = await asyncio.gather(*(facilitator.settle(payment, accepted) for _ in range(5)))
    assert answers[0]["success"] is True
    assert all(answer == answers[0] for answer in answers)
    assert chain.balance_of(SELLER) == 100_000
    assert len(chain.transfers()) == 1


async def test_without_idempotence_a_repeat_is_refused_as_the_sdk_refuses_it(chain: DevChain) -> None:
    accepted = offer()
    payment = pay(chain.wallets[0], accepted)
    with EmbeddedFacilitator(chain, idempotent=False) as facilitator:
        assert (await facilitator.settle(payment, accepted))["success"] is True
        again = await facilitator.settle(payment, accepted)
    assert (again["success"], again["errorReason"]) == (False, "invalid_exact_evm_nonce_already_used")
    assert again["transaction"] == ""
    assert chain.balance_of(SELLER) == 100_000


async def test_another_payment_with_the_same_nonce_is_refused(
    chain: DevChain, facilitator: EmbeddedFacilitator, payer: Wallet
) -> None:
    first = authorization(payer)
    await facilitator.settle(payload(first, sign(payer, first), offer()), offer())
    second = first | {"value": 50_000}
    again = await facilitator.settle(payload(second, sign(payer, second), offer(50_000)), offer(50_000))
    assert (again["success"], again["errorReason"]) == (False, "invalid_exact_evm_nonce_already_used")
    # A stranger who saw the nonce does not get the first success told as their own.
    forged = await facilitator.settle(payload(first, sign(chain.wallets[1], first), offer()), offer())
    assert (forged["success"], forged["errorReason"]) == (False, "invalid_exact_evm_payload_signature")
    assert chain.balance_of(SELLER) == 100_000


async def test_a_settlement_that_was_reorganised_away_settles_anew(
    chain: DevChain, facilitator: EmbeddedFacilitator, payer: Wallet
) -> None:
    accepted = offer()
    payment = pay(payer, accepted)
    before = chain.snapshot()
    await facilitator.settle(payment, accepted)
    chain.revert(before)
    assert chain.balance_of(SELLER) == 0
    assert (await facilitator.settle(payment, accepted))["success"] is True
    assert chain.balance_of(SELLER) == 100_000


NOW = int(time.time())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"validBefore": NOW - 60}, "invalid_exact_evm_payload_authorization_valid_before"),
        ({"validAfter": NOW + 86_400}, "invalid_exact_evm_payload_authorization_valid_after"),
        ({"to": "0x" + "22" * 20}, "invalid_exact_evm_payload_recipient_mismatch"),
        ({"value": 99_999}, "invalid_exact_evm_payload_authorization_value_mismatch"),
    ],
)
async def test_an_authorization_that_is_not_what_was_asked_for(
    chain: DevChain, facilitator: EmbeddedFacilitator, payer: Wallet, changes: Json, reason: str
) -> None:
    message = authorization(payer, **changes)
    payment = payload(message, sign(payer, message), offer())
    assert await facilitator.verify(payment, offer()) == {
        "isValid": False,
        "invalidReason": reason,
        "payer": payer.address,
    }
    settled = await facilitator.settle(payment, offer())
    assert (settled["success"], settled["errorReason"], settled["transaction"]) == (False, reason, "")
    assert chain.block_number() == 0


async def test_a_signature_by_somebody_else(
    chain: DevChain, facilitator: EmbeddedFacilitator, payer: Wallet
) -> None:
    message = authorization(payer)
    payment = payload(message, sign(chain.wallets[1], message), offer())
    verified, settled = await facilitator.verify(payment, offer()), await facilitator.settle(payment, offer())
    assert (verified["isValid"], verified["invalidReason"]) == (False, "invalid_exact_evm_payload_signature")
    assert (settled["success"], settled["errorReason"]) == (False, "invalid_exact_evm_payload_signature")
    assert chain.transfers() == []


@pytest.mark.parametrize(
    "changes", [{"name": "USD Coin"}, {"version": "1"}, {"chainId": 8453}, {"verifyingContract": SELLER}]
)
async def test_a_signature_for_another_domain(
    facilitator: EmbeddedFacilitator, payer: Wallet, changes: Json
) -> None:
    message = authorization(payer)
    payment = payload(message, sign(payer, message, **changes), offer())
    answer = await facilitator.verify(payment, offer())
    assert (answer["isValid"], answer["invalidReason"]) == (False, "invalid_exact_evm_payload_signature")


async def test_an_offer_with_the_wrong_domain_is_told_from_a_bad_signature(
    facilitator: EmbeddedFacilitator, payer: Wallet
) -> None:
    accepted = offer(extra={"name": "USD Coin", "version": "2"})
    answer = await facilitator.verify(pay(payer, accepted), accepted)
    assert answer["isValid"] is False
    assert answer["invalidReason"] == "invalid_exact_evm_payload_signature"


async def test_more_than_the_payer_has(chain: DevChain, facilitator: EmbeddedFacilitator) -> None:
    wallet = poor(chain, 99_999)
    payment = pay(wallet, offer())
    verified, settled = await facilitator.verify(payment, offer()), await facilitator.settle(payment, offer())
    assert (verified["isValid"], verified["invalidReason"]) == (
        False,
        "invalid_exact_evm_insufficient_balance",
    )
    assert (settled["success"], settled["errorReason"]) == (False, "invalid_exact_evm_insufficient_balance")
    assert chain.balance_of(wallet.address) == 99_999
    chain.fund(wallet.address, 1)
    assert (await facilitator.settle(payment, offer()))["success"] is True


async def test_a_payment_that_is_canceled_between_verify_and_settle(
    chain: DevChain, facilitator: EmbeddedFacilitator, payer: Wallet
) -> None:
    payment = pay(payer, offer())
    assert (await facilitator.verify(payment, offer()))["isValid"] is True
    cancel = {"authorizer": payer.address, "nonce": nonce_of(payment)}
    signature = sign(payer, cancel, kind="CancelAuthorization", fields=CANCEL_FIELDS)
    function = "cancelAuthorization(address,bytes32,uint8,bytes32,bytes32)"
    nonce = bytes.fromhex(nonce_of(payment)[2:])
    chain.send(payer, USDC_ADDRESS, encode_call(function, payer.address, nonce, *vrs(signature)))
    settled = await facilitator.settle(payment, offer())
    assert (settled["success"], settled["errorReason"]) == (False, "invalid_exact_evm_nonce_already_used")
    assert chain.authorization(USDC_ADDRESS, payer.address, nonce_of(payment)).state == "canceled"
    assert chain.balance_of(SELLER) == 0


@pytest.mark.parametrize(
    ("payment", "accepted", "reason"),
    [
        ({}, {}, "invalid_x402_version"),
        ({"x402Version": 1}, {}, "invalid_x402_version"),
        ({"x402Version": 9}, {}, "invalid_x402_version"),
        ({"x402Version": 2}, {}, "invalid_payload"),
        ({"x402Version": 2, "payload": [], "accepted": offer()}, offer(), "invalid_payload"),
        ({"x402Version": 2, "payload": {}, "accepted": offer()}, {}, "invalid_payment_requirements"),
        (
            {"x402Version": 2, "payload": {}, "accepted": offer(scheme="batch")},
            offer(scheme="batch"),
            "unsupported_scheme",
        ),
        (
            {"x402Version": 2, "payload": {}, "accepted": offer(network="eip155:137")},
            offer(network="eip155:137"),
            "invalid_network",
        ),
        ({"x402Version": 2, "payload": {}, "accepted": offer()}, offer(), None),
        ({"x402Version": 2, "payload": {"authorization": 7}, "accepted": offer()}, offer(), None),
        ({"x402Version": 2, "payload": {"permit2Authorization": {}}, "accepted": offer()}, offer(), None),
        (
            {"x402Version": 2, "payload": {}, "accepted": offer(scheme="upto")},
            offer(scheme="upto"),
            "unsupported_payload_type",
        ),
    ],
)
async def test_what_cannot_be_read_is_an_answer_not_an_exception(
    facilitator: EmbeddedFacilitator, payment: Json, accepted: Json, reason: str | None
) -> None:
    verified = await facilitator.verify(payment, accepted)
    settled = await facilitator.settle(payment, accepted)
    assert (verified["isValid"], settled["success"], settled["transaction"]) == (False, False, "")
    assert verified["invalidReason"] == settled["errorReason"]
    assert not verified["invalidReason"].startswith("unexpected")
    if reason is not None:
        assert verified["invalidReason"] == reason


@pytest.mark.parametrize("value", ["x", "-1", "1e5", "9" * 100, "9" * 5000, ""])
async def test_numbers_that_are_none(facilitator: EmbeddedFacilitator, payer: Wallet, value: str) -> None:
    payment = pay(payer, offer())
    payment["payload"]["authorization"]["value"] = value
    accepted = offer() | {"amount": value}
    for terms in (offer(), accepted):
        assert (await facilitator.verify(payment, terms))["isValid"] is False
        assert (await facilitator.settle(payment, terms))["success"] is False


async def test_the_event_loop_is_free_while_the_chain_works(
    facilitator: EmbeddedFacilitator, payer: Wallet, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    genuine = facilitator.chain.call

    def slow(*args: Any, **kwargs: Any) -> bytes:
        assert release.wait(timeout=10)
        return genuine(*args, **kwargs)

    monkeypatch.setattr(facilitator.chain, "call", slow)
    verifying = asyncio.create_task(facilitator.verify(pay(payer, offer()), offer()))
    assert len((await facilitator.supported())["kinds"]) == 2
    assert not verifying.done()
    release.set()
    assert (await verifying)["isValid"] is True
