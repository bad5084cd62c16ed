"""Local checks: each reason, in its order, and the digests against the reference implementations."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import _hash_eip191_message, encode_typed_data
from x402.mechanisms.evm.constants import (
    PERMIT2_ADDRESS,
    PERMIT2_WITNESS_TYPES,
    UPTO_PERMIT2_WITNESS_TYPES,
    X402_EXACT_PERMIT2_PROXY_ADDRESS,
    X402_UPTO_PERMIT2_PROXY_ADDRESS,
)
from x402.mechanisms.evm.eip712 import hash_eip3009_authorization
from x402.mechanisms.evm.types import ExactEIP3009Payload

from headgate.model.assets import KNOWN_ASSETS
from headgate.model.offer import Offer, Reason, SignedPayment
from headgate.x402 import check, wire
from tests.x402 import buyer
from tests.x402.buyer import PAYER, POLYGON, offer

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
EXACT, UPTO = offer(buyer.FIXED), offer(buyer.VARIABLE)
OTHER_BYTES = b"\xee" * 20


@pytest.fixture
def paid(exact_header: bytes) -> SignedPayment:
    return wire.decode(exact_header)


@pytest.fixture
def ceiling(upto_header: bytes) -> SignedPayment:
    return wire.decode(upto_header)


def reason(payment: SignedPayment, made: Offer, **how: Any) -> Reason | None:
    facts = {"now_s": int(time.time()), "min_validity_s": 30, **how}
    return check.check_locally(payment, made, **facts)


def test_what_the_official_client_signs_is_good(paid: SignedPayment, ceiling: SignedPayment) -> None:
    assert reason(paid, EXACT) is None
    assert reason(ceiling, UPTO) is None


@pytest.mark.parametrize("network", sorted(KNOWN_ASSETS))
def test_on_every_known_network(network: str) -> None:
    for action in (buyer.FIXED, buyer.VARIABLE):
        made = offer(action, network)
        assert reason(wire.decode(buyer.signed(made)), made) is None


# Each row breaks one term; a signature over the broken term would not help, so terms come before signatures.
BROKEN_EXACT: list[tuple[dict[str, Any], Reason]] = [
    ({"pay_to": OTHER_BYTES}, Reason.RECIPIENT),
    ({"amount": 99_999}, Reason.AMOUNT),
    ({"amount": 100_001}, Reason.AMOUNT),
    ({"valid_after_s": 1 << 40}, Reason.NOT_YET_VALID),
    ({"valid_before_s": 0}, Reason.EXPIRED),
    ({"payer": OTHER_BYTES}, Reason.SIGNATURE),
    ({"nonce": bytes(32)}, Reason.SIGNATURE),
    ({"valid_after_s": 1}, Reason.SIGNATURE),
    ({"signature": bytes(65)}, Reason.SIGNATURE),
    ({"signature": b"\xff" * 64 + b"\x1b"}, Reason.SIGNATURE),
    ({"signature": bytes(64) + b"\x1b"}, Reason.SIGNATURE),
]
BROKEN_UPTO: list[tuple[dict[str, Any], Reason]] = [
    ({"token": OTHER_BYTES}, Reason.PERMIT2_TOKEN),
    ({"spender": OTHER_BYTES}, Reason.PERMIT2_SPENDER),
    ({"spender": bytes.fromhex(check.EXACT_PROXY[2:])}, Reason.PERMIT2_SPENDER),
    ({"witness_facilitator": OTHER_BYTES}, Reason.FACILITATOR),
    ({"witness_facilitator": None}, Reason.FACILITATOR),
    ({"pay_to": OTHER_BYTES}, Reason.PERMIT2_RECIPIENT),
    ({"amount": 50_001}, Reason.PERMIT2_AMOUNT),
    ({"valid_after_s": 1 << 40}, Reason.PERMIT2_NOT_YET_VALID),
    ({"valid_before_s": 0}, Reason.PERMIT2_EXPIRED),
    ({"payer": OTHER_BYTES}, Reason.PERMIT2_SIGNATURE),
    ({"nonce": bytes(32)}, Reason.PERMIT2_SIGNATURE),
    ({"valid_after_s": 1}, Reason.PERMIT2_SIGNATURE),
]


@pytest.mark.parametrize(("broken", "expected"), BROKEN_EXACT, ids=repr)
def test_an_exact_payment_that_differs(broken: dict[str, Any], expected: Reason, paid: SignedPayment) -> None:
    assert reason(replace(paid, **broken), EXACT) is expected


@pytest.mark.parametrize(("broken", "expected"), BROKEN_UPTO, ids=repr)
def test_an_upto_payment_that_differs(
    broken: dict[str, Any], expected: Reason, ceiling: SignedPayment
) -> None:
    assert reason(replace(ceiling, **broken), UPTO) is expected


def test_reasons_come_in_the_documented_order(paid: SignedPayment) -> None:
    now_s = int(time.time())
    payment = replace(paid, signature=bytes(65), pay_to=OTHER_BYTES, amount=1, valid_before_s=0)
    accepted = replace(paid.accepted, scheme="upto", network="eip155:1", asset=OTHER_BYTES)
    payment = replace(payment, accepted=accepted)
    mended: list[tuple[dict[str, Any], Reason]] = [
        ({"accepted": replace(accepted, scheme="exact")}, Reason.UNSUPPORTED_SCHEME),
        ({"accepted": replace(accepted, scheme="exact", network=EXACT.network)}, Reason.NETWORK),
        ({"accepted": paid.accepted}, Reason.ASSET),
        ({"pay_to": paid.pay_to}, Reason.RECIPIENT),
        ({"amount": paid.amount}, Reason.AMOUNT),
        ({"valid_before_s": paid.valid_before_s}, Reason.EXPIRED),
        ({}, Reason.PAYER_BLOCKED),
    ]
    for step, expected in mended:
        found = check.check_locally(
            payment, EXACT, now_s=now_s, min_validity_s=30, blocked=frozenset({paid.payer})
        )
        assert found is expected
        payment = replace(payment, **step)
    assert reason(payment, EXACT) is Reason.SIGNATURE


def test_a_payment_made_for_another_kind_of_message_is_unsupported(
    paid: SignedPayment, ceiling: SignedPayment
) -> None:
    as_exact = replace(ceiling, accepted=paid.accepted)
    assert reason(as_exact, EXACT) is Reason.UNSUPPORTED_SCHEME
    assert reason(paid, UPTO) is Reason.UNSUPPORTED_SCHEME


def test_a_signature_made_for_another_networks_token_is_worthless(paid: SignedPayment) -> None:
    polygon = offer(buyer.FIXED, POLYGON)
    moved = replace(paid.accepted, network=POLYGON, asset=polygon.asset_address)
    assert reason(replace(paid, accepted=moved), polygon) is Reason.SIGNATURE


@pytest.mark.parametrize(
    ("before", "expected"), [(1030, Reason.EXPIRED), (1031, None), (999, Reason.EXPIRED)]
)
def test_enough_time_must_be_left_for_the_work(
    before: int, expected: Reason | None, paid: SignedPayment
) -> None:
    wallet = replace(paid, valid_before_s=before, signature=bytes(100))
    assert reason(wallet, EXACT, now_s=1000, min_validity_s=30) is expected


@pytest.mark.parametrize(
    ("after", "skew", "expected"), [(1000, 0, None), (1001, 0, "no"), (1005, 5, None), (1006, 5, "no")]
)
def test_a_clock_ahead_of_ours_is_tolerated_as_far_as_said(
    after: int, skew: int, expected: str | None, paid: SignedPayment
) -> None:
    wallet = replace(paid, valid_after_s=after, valid_before_s=2000, signature=bytes(100))
    found = reason(wallet, EXACT, now_s=1000, skew_s=skew)
    assert found is (Reason.NOT_YET_VALID if expected else None)


# --- signatures ---


def malleable(signature: bytes) -> bytes:
    """The other signature of the same message by the same key, with a high s."""
    s = ORDER - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes((55 - signature[64],))


def test_a_high_s_is_refused_as_the_token_refuses_it(paid: SignedPayment, ceiling: SignedPayment) -> None:
    assert reason(replace(paid, signature=malleable(paid.signature)), EXACT) is Reason.SIGNATURE
    assert reason(replace(ceiling, signature=malleable(ceiling.signature)), UPTO) is Reason.PERMIT2_SIGNATURE


@pytest.mark.parametrize("v", [0, 1, 26, 29, 255])
def test_v_is_27_or_28(v: int, paid: SignedPayment) -> None:
    assert reason(replace(paid, signature=paid.signature[:64] + bytes((v,))), EXACT) is Reason.SIGNATURE


def test_somebody_elses_signature_is_refused(paid: SignedPayment) -> None:
    stranger = wire.decode(buyer.signed(EXACT, Account.from_key("0x" + "22" * 32)))
    assert reason(stranger, EXACT) is None
    assert reason(replace(stranger, payer=paid.payer), EXACT) is Reason.SIGNATURE


@pytest.mark.parametrize("length", [0, 64, 66, 130, 1000])
def test_a_smart_wallets_signature_is_left_to_the_facilitator(length: int, paid: SignedPayment) -> None:
    wallet = replace(paid, signature=bytes(length))
    assert wallet.needs_facilitator
    assert reason(wallet, EXACT) is None
    assert not paid.needs_facilitator


def test_the_recovered_address_is_eth_accounts() -> None:
    for number in range(20):
        digest = check.keccak256(number.to_bytes(4, "big"))
        signature = PAYER.unsafe_sign_hash(digest).signature
        assert check.recover(digest, bytes(signature)) == bytes.fromhex(PAYER.address[2:])


# --- digests ---


@pytest.mark.parametrize("network", sorted(KNOWN_ASSETS))
def test_the_eip3009_digest_is_the_official_one(network: str, paid: SignedPayment) -> None:
    asset = KNOWN_ASSETS[network]
    message = ExactEIP3009Payload.from_dict(dict(paid.payload)).authorization
    chain = check.chain_id(network)
    official = hash_eip3009_authorization(message, chain, asset.address, asset.name, asset.version)
    assert check.eip3009_digest(paid, asset) == official


@pytest.mark.parametrize("scheme", ["upto", "exact"])
def test_the_permit2_digest_is_eth_accounts(scheme: str, upto: buyer.Json) -> None:
    signed = upto["payload"]["permit2Authorization"]
    if scheme == "exact":
        signed["spender"] = check.EXACT_PROXY
        del signed["witness"]["facilitator"]
    message = {name: value for name, value in signed.items() if name != "from"}
    types = UPTO_PERMIT2_WITNESS_TYPES if scheme == "upto" else PERMIT2_WITNESS_TYPES
    domain = {"name": "Permit2", "chainId": 84532, "verifyingContract": PERMIT2_ADDRESS}
    reference = encode_typed_data(domain, types, message)
    payment = wire.decode(buyer.sealed(upto))
    assert check.permit2_digest(payment) == _hash_eip191_message(reference)
    assert check.permit2_domain("eip155:84532") == reference.header


def test_the_contracts_are_the_official_ones() -> None:
    assert (check.PERMIT2, check.EXACT_PROXY) == (PERMIT2_ADDRESS, X402_EXACT_PERMIT2_PROXY_ADDRESS)
    assert check.UPTO_PROXY == X402_UPTO_PERMIT2_PROXY_ADDRESS
