"""The buyer's wallet: what it signs, with the official client, and what a signed payment says.

A payment is signed once and then only sent. It names in `resource.url` where it was made for, so that whoever
sends it again later can see where it may go.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any

import msgspec
from eth_account import Account
from eth_utils.address import to_checksum_address
from x402 import x402ClientSync
from x402.extensions.payment_identifier import append_payment_identifier_to_extensions
from x402.mechanisms.evm.exact import ExactEvmScheme
from x402.mechanisms.evm.signers import EthAccountSigner
from x402.mechanisms.evm.upto import UptoEvmScheme
from x402.schemas import PaymentRequired
from yarl import URL

from headgate.model.errors import InputError, PaymentError
from headgate.x402 import wire
from headgate.x402.offers_taken import Choice, decoded, in_micros, signable

Json = dict[str, Any]

_PATH = re.compile(r"/(?!/)|\?")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]+={0,2}")


class CannotSign(Exception):
    """An offer that nothing could be signed for; nothing was."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A signed payment: `amount` is the most it can take, in the token's unit; in `choice`, micro-dollars.

    `resource_url` is what it was made for, where it says so; `header` is the `PAYMENT-SIGNATURE` value.
    """

    choice: Choice
    amount: int
    payer: str
    resource_url: str | None
    header: bytes = field(repr=False)

    @property
    def network(self) -> str:
        """CAIP-2."""
        return str(self.choice.entry["network"])

    def in_micros(self, amount: int) -> int:
        """An amount of its token in micro-dollars, rounded up."""
        return in_micros(amount, self.choice.entry)


class Wallet:
    """A private key that signs once per payment.

    Raises:
        InputError: the key is none; it is not repeated.
    """

    def __init__(self, private_key: str) -> None:
        try:
            account: Any = Account.from_key(private_key)
        except Exception:  # noqa: BLE001 - eth-account raises several kinds, some of which quote the key
            raise InputError("the private key is not 32 bytes in hexadecimal; nothing was signed") from None
        self.address: str = account.address
        signer = EthAccountSigner(account)
        self._client = x402ClientSync()
        self._client.register("eip155:*", ExactEvmScheme(signer))
        self._client.register("eip155:*", UptoEvmScheme(signer))
        self._client.set_spend_controls(False)  # the limit was checked, on tokens it does not know too

    def sign(self, required: Json, entry: Json, url: URL) -> Signed:
        """Take up one acceptable entry of an offer, echoed as it was written, for what is asked for at `url`.

        Raises:
            CannotSign: the official client finds something wrong with it.
        """
        try:
            extensions = dict(required.get("extensions") or {})
            append_payment_identifier_to_extensions(extensions)
            asked = PaymentRequired.model_validate({"x402Version": 2, "accepts": [signable(entry)]})
            payload = self._client.create_payment_payload(asked, extensions=extensions or None)
            written = payload.model_dump(by_alias=True, exclude_none=True)
            written |= {"accepted": entry, "resource": _resource(required.get("resource"), url)}
            return read_signed(b64encode(msgspec.json.encode(written)))
        except Exception as error:  # a stranger's offer: what signs it raises many kinds
            told = str(error).partition("\n")[0][:120]
            raise CannotSign(f"it could not be signed ({type(error).__name__}: {told})") from error


def read_signed(header: bytes) -> Signed:
    """What a `PAYMENT-SIGNATURE` value says.

    Raises:
        InputError: it is none, or in a token whose price is not known.
    """
    found = decoded(header.decode(errors="replace")) or {}
    accepted = found.get("accepted")
    try:
        told = wire.parse_kept(wire.encode_json(_signed_part(found)))
    except PaymentError as error:
        raise InputError(f"the payment to resume is no PAYMENT-SIGNATURE value: {error}") from None
    entry: Json = accepted if isinstance(accepted, dict) else {}
    return Signed(
        choice=Choice(entry, in_micros(told.amount, entry)),
        amount=told.amount,
        payer=to_checksum_address(told.payer),
        resource_url=told.resource_url,
        header=header,
    )


def _signed_part(found: Json) -> Json:
    """The members that say what is paid; the others are echoes of the seller's, in any shape."""
    accepted, resource = found.get("accepted"), found.get("resource")
    part: Json = {name: found.get(name) for name in ("x402Version", "payload")}
    if isinstance(accepted, dict):
        names = ("scheme", "network", "asset", "payTo", "amount")
        part["accepted"] = {name: accepted.get(name) for name in names}
        extra = accepted.get("extra")
        if accepted.get("scheme") == "upto" and isinstance(extra, dict):
            part["accepted"]["extra"] = {"facilitatorAddress": extra.get("facilitatorAddress")}
    if isinstance(resource, dict) and isinstance(resource.get("url"), str):
        part["resource"] = {"url": resource["url"]}
    return part


def payment_in(text: bytes) -> bytes:
    """The payment in what a user kept: the `payment` member's text, or the whole object that has it.

    Raises:
        InputError: there is none in it.
    """
    text = text.strip()
    try:
        kept = msgspec.json.decode(text) if text[:1] in (b"{", b'"') else text.decode()
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise InputError(
            "what is to be resumed is neither a payment nor the JSON object that has it"
        ) from None
    payment = kept.get("payment") if isinstance(kept, dict) else kept
    if not isinstance(payment, str):
        raise InputError("the object to resume has no `payment`: nothing in it can be sent again")
    header = payment.strip().encode()
    if _BASE64.fullmatch(header) is None:
        raise InputError("the payment to resume is no PAYMENT-SIGNATURE value: it is not standard base64")
    return header


# Where a payment may go


def origin_of(url: object) -> tuple[str, str, int] | None:
    """Scheme, host and port of an http or https URL; None if it is none."""
    try:
        found = URL(url) if isinstance(url, str) else None
    except ValueError:
        return None
    if found is None or found.scheme not in ("http", "https") or not found.host or found.port is None:
        return None
    return found.scheme, found.host.lower(), found.port


def keep_to_origin(signed: Signed, url: URL) -> None:
    """A payment goes only where it was made for, if it says where that is.

    Raises:
        InputError: it was made for another origin.
    """
    made_for = signed.resource_url
    if made_for is None or not made_for or _PATH.match(made_for):  # a path names no origin
        return
    if origin_of(made_for) != origin_of(str(url)):
        raise InputError(
            f"this payment was made for {made_for[:200]!r} and goes to no other origin; nothing was sent to "
            f"{url.origin()}"
        )


def _resource(told: Any, url: URL) -> Json:
    """The seller's words on what is sold; under the address that was asked, where it names another origin."""
    words: Json = told if isinstance(told, dict) else {}
    if origin_of(words.get("url")) == origin_of(str(url)):
        return words
    return {**words, "url": str(url.with_user(None).with_query(None).with_fragment(None))}
