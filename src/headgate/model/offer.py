"""What a buyer is offered, what a buyer signed, and why the one may not fit the other.

An offer names one way to pay for one action: scheme, network, token, recipient, amount. A signed payment is
what a `PAYMENT-SIGNATURE` header says once it is decoded. Which offer a payment takes up is decided here, on
decoded values and on the seller's amounts; the x402 wire format is `headgate.x402`'s affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from headgate.model.assets import Asset
from headgate.model.errors import InputError
from headgate.model.payment import payment_id


class Scheme(StrEnum):
    """How an amount is agreed: fixed, or a ceiling of which the actual use is settled."""

    EXACT = "exact"
    UPTO = "upto"


class Transfer(StrEnum):
    """Which signed message moves the token: the token's own EIP-3009, or a Permit2 witness transfer."""

    EIP3009 = "eip3009"
    PERMIT2 = "permit2"


class Reason(StrEnum):
    """Why a payment that could be read is not accepted (402). A closed set of stable names.

    Names are those of x402 v2 section 9 and of the official SDK's EVM schemes where they have one.
    """

    PAYMENT_REQUIRED = "payment_required"
    NO_MATCHING_OFFER = "invalid_payment_requirements"
    UNSUPPORTED_SCHEME = "unsupported_scheme"
    NETWORK = "invalid_network"
    ASSET = "asset_mismatch"
    PERMIT2_TOKEN = "permit2_token_mismatch"  # noqa: S105 - a reason, no password
    PERMIT2_SPENDER = "invalid_permit2_spender"
    FACILITATOR = "upto_facilitator_mismatch"
    RECIPIENT = "invalid_exact_evm_payload_recipient_mismatch"
    PERMIT2_RECIPIENT = "invalid_permit2_recipient_mismatch"
    AMOUNT = "invalid_exact_evm_payload_authorization_value_mismatch"
    PERMIT2_AMOUNT = "permit2_amount_mismatch"
    NOT_YET_VALID = "invalid_exact_evm_payload_authorization_valid_after"
    PERMIT2_NOT_YET_VALID = "permit2_not_yet_valid"
    EXPIRED = "invalid_exact_evm_payload_authorization_valid_before"
    PERMIT2_EXPIRED = "permit2_deadline_expired"
    VALID_TOO_LONG = "valid_for_too_long"
    PAYER_BLOCKED = "payer_blocked"
    SIGNATURE = "invalid_exact_evm_payload_signature"
    PERMIT2_SIGNATURE = "invalid_permit2_signature"


def address_bytes(address: str) -> bytes:
    """The 20 bytes of an EVM address, whatever its letter case.

    Raises:
        InputError: not `0x` and 40 hexadecimal digits.
    """
    digits = address[2:]
    if len(digits) == 40 and address.startswith("0x") and digits.isalnum():  # fromhex alone lets blanks pass
        try:
            return bytes.fromhex(digits)
        except ValueError:
            pass
    raise InputError(f"{address[:60]!r} is not an EVM address; write it as 0x and 40 hexadecimal digits")


@dataclass(frozen=True, slots=True)
class NetworkOffer:
    """What the seller takes on one network: which token, to whom, and for how long an offer may be signed.

    `facilitator_address` is the account that settles `upto` there (from the facilitator's `/supported`);
    without it nothing of variable cost can be offered on this network. `gas_sponsored`: the facilitator takes
    a signed permit (EIP-2612) where a buyer has not approved Permit2 yet. `takes_exact` is false once the
    facilitator said that it does not settle `exact` there: then no fixed price is offered.
    """

    asset: Asset
    pay_to: str
    max_timeout_seconds: int = 300
    facilitator_address: str | None = None
    gas_sponsored: bool = False
    takes_exact: bool = True


@dataclass(frozen=True, slots=True)
class Offer:
    """One entry of `accepts` and what made it; `amount_micros` is the price, or the ceiling of `upto`."""

    action: str
    catalog_version: int
    description: str
    scheme: Scheme
    asset: Asset
    pay_to: str
    amount_micros: int
    max_timeout_seconds: int
    facilitator_address: str | None = None
    gas_sponsored: bool = False
    asset_address: bytes = field(init=False, repr=False)
    pay_to_address: bytes = field(init=False, repr=False)
    facilitator: bytes | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        settle_by = self.facilitator_address
        object.__setattr__(self, "asset_address", address_bytes(self.asset.address))
        object.__setattr__(self, "pay_to_address", address_bytes(self.pay_to))
        object.__setattr__(self, "facilitator", None if settle_by is None else address_bytes(settle_by))

    @property
    def network(self) -> str:
        """CAIP-2."""
        return self.asset.network

    @property
    def transfer(self) -> Transfer:
        """What the buyer has to sign: `upto` exists over Permit2 only."""
        return Transfer.PERMIT2 if self.scheme is Scheme.UPTO else Transfer.EIP3009

    @property
    def terms(self) -> tuple[str, str, bytes, bytes, int, bytes | None]:
        """What a buyer agrees to; two offers with equal terms are the same to a buyer."""
        return (
            self.scheme,
            self.network,
            self.asset_address,
            self.pay_to_address,
            self.amount_micros,
            self.facilitator,
        )


@dataclass(frozen=True, slots=True)
class Accepted:
    """The offer a payment says it takes up, decoded. What it says is looked up, never believed."""

    scheme: str
    network: str
    asset: bytes
    pay_to: bytes
    amount: int
    facilitator: bytes | None = None


@dataclass(frozen=True, slots=True)
class SignedPayment:
    """What a payment header says, decoded: `amount` in the token's smallest unit, times in epoch seconds.

    `payer`, `pay_to`, `token` (Permit2) and `spender` are 20 bytes, `nonce` 32. `payload` is the signed
    message as the facilitator wants it: known fields only, in the buyer's spelling. `witness_facilitator` is
    who alone may settle an `upto`. Nothing here has been checked but its shape.
    """

    accepted: Accepted
    transfer: Transfer
    payer: bytes
    nonce: bytes
    pay_to: bytes
    amount: int
    valid_after_s: int
    valid_before_s: int
    signature: bytes = field(repr=False)  # whoever reads a log could use it
    payload: Mapping[str, Any] = field(repr=False)
    token: bytes | None = None
    spender: bytes | None = None
    witness_facilitator: bytes | None = None
    resource_url: str | None = None
    extensions: Mapping[str, Any] = field(default_factory=dict, repr=False)
    identifier: str | None = None

    @property
    def scheme(self) -> str:
        """`exact` or `upto`."""
        return self.accepted.scheme

    @property
    def network(self) -> str:
        """CAIP-2."""
        return self.accepted.network

    @property
    def asset(self) -> bytes:
        """The token's 20 bytes."""
        return self.accepted.asset

    @property
    def asset_text(self) -> str:
        """The token's address as it is stored: lower case."""
        return "0x" + self.accepted.asset.hex()

    @property
    def payer_text(self) -> str:
        """The payer's address, lower case."""
        return "0x" + self.payer.hex()

    @property
    def key(self) -> tuple[str, str, bytes, bytes]:
        """Network, asset, payer, nonce: no spelling of the same authorization changes it (failure case 4)."""
        return self.network, self.asset_text, self.payer, self.nonce

    @property
    def id(self) -> bytes:
        """The payment's 16 bytes (`headgate.model.payment.payment_id`)."""
        return payment_id(*self.key)

    @property
    def needs_facilitator(self) -> bool:
        """Whether only a chain can judge the signature: a smart wallet's (ERC-1271, ERC-6492)."""
        return len(self.signature) != 65


@dataclass(frozen=True, slots=True)
class Quotes:
    """The offers a route makes, and those it made before and still honours until their `until_us`."""

    current: tuple[Offer, ...] = ()
    retired: tuple[tuple[int, Offer], ...] = ()

    def replaced(self, offers: Iterable[Offer], now_us: int, quote_ttl_us: int) -> Quotes:
        """These quotes after the route's offers changed at `now_us`; the old ones hold for `quote_ttl_us`.

        Called for each published change in order, oldest first, it rebuilds the history after a restart.
        """
        made = tuple(offers)
        kept = {offer.terms for offer in made}
        gone = ((now_us + quote_ttl_us, offer) for offer in self.current if offer.terms not in kept)
        alive = (each for each in self.retired if each[0] > now_us and each[1].terms not in kept)
        return Quotes(made, (*gone, *alive))

    def match(self, accepted: Accepted, now_us: int) -> Offer | None:
        """The offer a payment takes up: same scheme, network, token, recipient, amount (contract §4 step 2).

        Today's offers come first. Where an `upto` offer changed only who settles, the one the buyer saw is
        taken, because the buyer signed that account's address.
        """
        found = None
        for offer in self._open(now_us):
            if (
                offer.amount_micros == accepted.amount
                and offer.pay_to_address == accepted.pay_to
                and offer.asset_address == accepted.asset
                and offer.asset.network == accepted.network
                and offer.scheme == accepted.scheme
            ):
                if accepted.facilitator is None or offer.facilitator == accepted.facilitator:
                    return offer
                found = found or offer
        return found

    def _open(self, now_us: int) -> Iterable[Offer]:
        yield from self.current
        for until_us, offer in self.retired:
            if now_us < until_us:
                yield offer
