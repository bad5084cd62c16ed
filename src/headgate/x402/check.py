"""What can be said of a payment without asking anybody: its terms, its time, its payer, its signature.

Signed messages are EIP-712: `keccak(0x19 0x01 ‖ domain separator ‖ struct hash)`. Type hashes and domain
separators never change and are kept; a check costs three or five native hashes and one native public-key
recovery. A signature of 65 bytes is an ordinary account's and is judged here as the token contract would
(`r ‖ s ‖ v`, low `s`, `v` 27 or 28); any other length is a smart wallet's and is left to the facilitator.
"""

from __future__ import annotations

from collections.abc import Container
from functools import lru_cache
from typing import Final

from coincurve import PublicKey
from Crypto.Hash import keccak as _keccak

from headgate.model.assets import Asset
from headgate.model.offer import Offer, Reason, SignedPayment, Transfer, address_bytes

PERMIT2: Final = "0x000000000022D473030F116dDEE9F6B43aC78BA3"
EXACT_PROXY: Final = "0x402085c248EeA27D92E8b30b2C58ed07f9E20001"
UPTO_PROXY: Final = "0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002"
LONGEST_VALIDITY_S: Final = 2 * 86_400
"""Twice what an offer may ask for at most: clients that add something of their own still pay."""
HALF_ORDER: Final = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0

_UPTO_PROXY_ADDRESS = address_bytes(UPTO_PROXY)
_PAD = bytes(12)


def keccak256(data: bytes) -> bytes:
    """Ethereum's hash."""
    return _keccak.new(digest_bits=256, data=data).digest()


def check_locally(
    payment: SignedPayment,
    offer: Offer,
    *,
    now_s: int,
    min_validity_s: int,
    skew_s: int = 0,
    blocked: Container[bytes] = (),
) -> Reason | None:
    """Why this payment cannot be good for this offer, or None if it may be (contract §4 step 3).

    Precedence: scheme and kind of message, network, token, spender, who settles, recipient, amount, not yet
    valid, too little validity left, too much of it, blocked payer, signature; the cheapest first.
    `min_validity_s` must be left for the work and its settlement; `skew_s` is how far in our future a payment
    may begin, for buyers whose clock is ahead. `blocked` holds payers' 20 bytes.
    """
    return (
        _check_terms(payment, offer)
        or _check_time(payment, now_s, min_validity_s, skew_s)
        or (Reason.PAYER_BLOCKED if payment.payer in blocked else None)
        or (None if payment.needs_facilitator else _check_signature(payment, offer))
    )


def _check_terms(payment: SignedPayment, offer: Offer) -> Reason | None:
    permit2 = payment.transfer is Transfer.PERMIT2
    if payment.scheme != offer.scheme or payment.transfer is not offer.transfer:
        return Reason.UNSUPPORTED_SCHEME
    if payment.network != offer.network:
        return Reason.NETWORK
    if payment.asset != offer.asset_address:
        return Reason.ASSET
    if permit2:
        if payment.token != offer.asset_address:
            return Reason.PERMIT2_TOKEN
        if payment.spender != _UPTO_PROXY_ADDRESS:
            return Reason.PERMIT2_SPENDER
        if payment.witness_facilitator != offer.facilitator:
            return Reason.FACILITATOR
    if payment.pay_to != offer.pay_to_address:
        return Reason.PERMIT2_RECIPIENT if permit2 else Reason.RECIPIENT
    if payment.amount != offer.amount_micros:
        return Reason.PERMIT2_AMOUNT if permit2 else Reason.AMOUNT
    return None


def _check_time(payment: SignedPayment, now_s: int, min_validity_s: int, skew_s: int) -> Reason | None:
    permit2 = payment.transfer is Transfer.PERMIT2
    if payment.valid_after_s > now_s + skew_s:
        return Reason.PERMIT2_NOT_YET_VALID if permit2 else Reason.NOT_YET_VALID
    if payment.valid_before_s <= now_s + min_validity_s:
        return Reason.PERMIT2_EXPIRED if permit2 else Reason.EXPIRED
    if payment.valid_before_s > now_s + skew_s + LONGEST_VALIDITY_S:
        return Reason.VALID_TOO_LONG  # its outcome could stay open for as long
    return None


def _check_signature(payment: SignedPayment, offer: Offer) -> Reason | None:
    permit2 = payment.transfer is Transfer.PERMIT2
    digest = permit2_digest(payment) if permit2 else eip3009_digest(payment, offer.asset)
    if recover(digest, payment.signature) == payment.payer:
        return None
    return Reason.PERMIT2_SIGNATURE if permit2 else Reason.SIGNATURE


def recover(digest: bytes, signature: bytes) -> bytes | None:
    """The 20 bytes of who signed, or None where the token contract would refuse the signature outright."""
    if len(signature) != 65 or signature[64] not in (27, 28):
        return None
    if int.from_bytes(signature[32:64], "big") > HALF_ORDER:
        return None
    compact = signature[:64] + bytes((signature[64] - 27,))
    try:
        key = PublicKey.from_signature_and_message(compact, digest, hasher=None)
    except Exception:  # noqa: BLE001 - coincurve raises bare Exception for a signature of no point
        return None
    return keccak256(key.format(compressed=False)[1:])[12:]


def chain_id(network: str) -> int:
    """The number in a CAIP-2 id of an EVM chain, such as `eip155:137`."""
    return int(network.removeprefix("eip155:"))


_DOMAIN = keccak256(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
_DOMAIN_UNVERSIONED = keccak256(b"EIP712Domain(string name,uint256 chainId,address verifyingContract)")
_TRANSFER_WITH_AUTHORIZATION = keccak256(
    b"TransferWithAuthorization(address from,address to,uint256 value,"
    b"uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
_TOKEN_PERMISSIONS_TYPE = b"TokenPermissions(address token,uint256 amount)"
_TOKEN_PERMISSIONS = keccak256(_TOKEN_PERMISSIONS_TYPE)
_UPTO_WITNESS_TYPE = b"Witness(address to,address facilitator,uint256 validAfter)"
_UPTO_WITNESS = keccak256(_UPTO_WITNESS_TYPE)
_EXACT_WITNESS_TYPE = b"Witness(address to,uint256 validAfter)"
_EXACT_WITNESS = keccak256(_EXACT_WITNESS_TYPE)
_PERMIT_WITNESS = (
    b"PermitWitnessTransferFrom(TokenPermissions permitted,address spender,"
    b"uint256 nonce,uint256 deadline,Witness witness)" + _TOKEN_PERMISSIONS_TYPE
)
_UPTO_PERMIT = keccak256(_PERMIT_WITNESS + _UPTO_WITNESS_TYPE)
_EXACT_PERMIT = keccak256(_PERMIT_WITNESS + _EXACT_WITNESS_TYPE)


@lru_cache(maxsize=64)
def token_domain(asset: Asset) -> bytes:
    """The EIP-712 domain separator the token's contract must have for its payments to be valid."""
    return keccak256(
        _DOMAIN
        + keccak256(asset.name.encode())
        + keccak256(asset.version.encode())
        + _word(chain_id(asset.network))
        + _PAD
        + address_bytes(asset.address)
    )


@lru_cache(maxsize=64)
def permit2_domain(network: str) -> bytes:
    """Permit2's EIP-712 domain separator on a network."""
    name, contract = keccak256(b"Permit2"), address_bytes(PERMIT2)
    return keccak256(_DOMAIN_UNVERSIONED + name + _word(chain_id(network)) + _PAD + contract)


def eip3009_digest(payment: SignedPayment, asset: Asset) -> bytes:
    """What the payer of an EIP-3009 payment signed, if it was made for this token."""
    struct = keccak256(
        b"".join(
            (
                _TRANSFER_WITH_AUTHORIZATION,
                _PAD,
                payment.payer,
                _PAD,
                payment.pay_to,
                _word(payment.amount),
                _word(payment.valid_after_s),
                _word(payment.valid_before_s),
                payment.nonce,
            )
        )
    )
    return keccak256(b"\x19\x01" + token_domain(asset) + struct)


def permit2_digest(payment: SignedPayment) -> bytes:
    """What the payer of a Permit2 payment signed; the witness decides between `exact` and `upto`."""
    token, spender = payment.token or b"", payment.spender or b""
    permitted = keccak256(_TOKEN_PERMISSIONS + _PAD + token + _word(payment.amount))
    after = _word(payment.valid_after_s)
    if payment.witness_facilitator is None:
        permit, witness = _EXACT_PERMIT, keccak256(_EXACT_WITNESS + _PAD + payment.pay_to + after)
    else:
        settled_by = _PAD + payment.witness_facilitator
        permit = _UPTO_PERMIT
        witness = keccak256(_UPTO_WITNESS + _PAD + payment.pay_to + settled_by + after)
    struct = keccak256(
        b"".join(
            (permit, permitted, _PAD, spender, payment.nonce, _word(payment.valid_before_s), witness),
        )
    )
    return keccak256(b"\x19\x01" + permit2_domain(payment.network) + struct)


def _word(number: int) -> bytes:
    return number.to_bytes(32, "big")
