"""Payment headers ↔ values, with every bound a stranger's header needs (x402 v2 sections 5.2, 5.3).

Reading: standard base64 of one JSON object, at most HEADER_BYTES long, no member twice, no fraction, of no
more members and no deeper than MAX_MARKS and MAX_BRACKETS allow, amounts and times as whole decimal numbers,
addresses and nonces of their exact size. What is not that is a PaymentError and answered 400. What passes is
decoded into bytes and integers, so that two spellings of one authorization are the same payment (failure
case 4). JSON with these rules is read member by member in Python, so what is large and no payment is found
out before: anybody can send it, as often as they like.

Writing: the settlement header, and the payload a facilitator is sent, which is rebuilt from known fields:
nothing a stranger put beside them travels on.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import msgspec

from headgate.model.errors import InputError, PaymentError
from headgate.model.offer import Accepted, Offer, Scheme, SignedPayment, Transfer, address_bytes
from headgate.x402.offer import EIP2612_GAS_SPONSORING, PAYMENT_IDENTIFIER, requirements, resource_info

HEADER_BYTES = 16 * 1024
SIGNATURE_BYTES = 4 * 1024
MAX_BRACKETS = 400
MAX_MARKS = 1_000
"""Brackets, colons and commas: official clients that send every extension back need some 300, and 500 more
where the offer's address is a list of ids (it is cut at 1,024 characters)."""
SMALL_BYTES, FEW_MARKS = 2 * 1024, 200
"""A payment without extensions is smaller than that, and its parts that are money always are."""
UINT256_DIGITS = 78
UINT256 = 1 << 256

PAYMENT_SIGNATURE = b"payment-signature"
PAYMENT_REQUIRED = b"payment-required"
PAYMENT_RESPONSE = b"payment-response"
V1_PAYMENT = b"x-payment"

Json = dict[str, Any]
_IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{16,128}")
_VERSION = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9}){0,3}")
_ENCODER = msgspec.json.Encoder()
_ABSENT = msgspec.Raw(b"null")


class _Skimmed(msgspec.Struct, gc=False):
    """The members that make a payment, unread."""

    version: msgspec.Raw = msgspec.field(name="x402Version", default=_ABSENT)
    accepted: msgspec.Raw = _ABSENT
    payload: msgspec.Raw = _ABSENT


_SKIM = msgspec.json.Decoder(_Skimmed)


def read_headers(signatures: Sequence[bytes], v1: Sequence[bytes] = ()) -> SignedPayment | None:
    """The payment among a request's `PAYMENT-SIGNATURE` (and x402 v1 `X-PAYMENT`) values, or None.

    Raises:
        PaymentError: `duplicate_payment_header`, `unsupported_x402_version`, or what `decode` raises.
    """
    if len(signatures) > 1:
        raise PaymentError(
            "duplicate_payment_header", "PAYMENT-SIGNATURE was sent more than once; send one payment"
        )
    if signatures:
        return decode(signatures[0])
    if v1:
        raise PaymentError(
            "unsupported_x402_version",
            "X-PAYMENT is x402 version 1, this API speaks 2: read PAYMENT-REQUIRED, send PAYMENT-SIGNATURE",
        )
    return None


def decode(value: bytes) -> SignedPayment:
    """The payment in a `PAYMENT-SIGNATURE` value.

    Raises:
        PaymentError: `payment_header_too_large`, `invalid_payload`, `unsupported_x402_version`,
            `unsupported_scheme`, `invalid_payment_identifier`.
    """
    if len(value) > HEADER_BYTES:
        raise PaymentError(
            "payment_header_too_large",
            f"PAYMENT-SIGNATURE has {len(value)} bytes; at most {HEADER_BYTES} are read",
        )
    if _unsealed(value[:4])[:1].strip() not in (b"{", b""):
        raise _unreadable("the header's content is not a JSON object")
    return parse(_unsealed(value))


def _unsealed(value: bytes) -> bytes:
    try:
        # As strict as binascii is in its strict mode, in a third of the time.
        return msgspec.convert(value.decode("ascii"), bytes)
    except ValueError:
        raise _unreadable("the header is not standard base64") from None


def parse(text: bytes) -> SignedPayment:
    """The payment in a stranger's JSON, such as a header's content. Raises as `decode` does."""
    marks = _marks(text)
    if marks > MAX_MARKS:
        raise _unreadable("it has too many members")
    if marks > MAX_BRACKETS and text.count(b"{") + text.count(b"[") > MAX_BRACKETS:
        raise _unreadable("it has too many objects and lists")
    if marks > FEW_MARKS or len(text) > SMALL_BYTES:
        if b"\\" not in text:  # or its names could be spelled in another way
            _look_for_names(text)
        _skim(text)
    return parse_kept(text)


def _marks(text: bytes) -> int:
    return len(text) - len(text.translate(None, b"{[:,"))


def _look_for_names(text: bytes) -> None:
    """Raise for a text in which not even the names of what makes a payment stand."""
    if b'"x402Version"' not in text:
        _version({})
    for name in ("accepted", "payload"):
        if f'"{name}"'.encode() not in text:
            _object({}, name)


def _skim(text: bytes) -> None:
    """Raise for a large text that holds no payment, having read no more of it than that takes."""
    try:
        found = _SKIM.decode(text)
    except (ValueError, RecursionError):
        raise _unreadable(_NO_OBJECT) from None
    for name, part, check in (
        ("x402Version", found.version, _version),
        ("accepted", found.accepted, _terms),
        ("payload", found.payload, _signed),
    ):
        value = bytes(part)
        if _marks(value) > FEW_MARKS:
            raise _unreadable(f"its {name} has too many members")
        check({name: _read(value)})


def parse_kept(text: bytes) -> SignedPayment:
    """The payment in a `facilitator_payload` that was kept: our own JSON, which needs no bounds."""
    found = _read(text)
    if not isinstance(found, dict):
        raise _unreadable("the header's content is not a JSON object")
    return _payment(found)


def _read(text: bytes) -> Any:
    try:
        found = _JSON.decode(text.decode())
        if b"\\u" in text:
            _ENCODER.encode(found)  # half of a surrogate pair is no text: it could not be written again
    except (ValueError, RecursionError):
        raise _unreadable(_NO_OBJECT) from None
    return found


def _payment(found: Json) -> SignedPayment:
    _version(found)
    accepted, signed = _terms(found), _signed(found)
    resource = _object(found, "resource") if found.get("resource") is not None else {}
    url = resource.get("url")
    extensions = _object(found, "extensions") if found.get("extensions") is not None else {}
    if signed["transfer"] is Transfer.PERMIT2:
        _sponsored(extensions)
    return SignedPayment(
        accepted=accepted,
        resource_url=url if isinstance(url, str) else None,
        extensions=extensions,
        identifier=_identifier(extensions),
        **signed,
    )


def _version(found: Json) -> None:
    if found.get("x402Version") != 2:
        raise PaymentError(
            "unsupported_x402_version", "x402Version must be 2; no other version is spoken here"
        )


def _terms(payment: Json) -> Accepted:
    found = _object(payment, "accepted")
    scheme = _text(found, "scheme")
    if scheme not in (Scheme.EXACT, Scheme.UPTO):
        raise PaymentError("unsupported_scheme", "the payment's scheme is neither exact nor upto")
    extra = found.get("extra")
    settled_by = extra.get("facilitatorAddress") if isinstance(extra, dict) else None
    return Accepted(
        scheme=scheme,
        network=_text(found, "network"),
        asset=_address(found, "asset"),
        pay_to=_address(found, "payTo"),
        amount=_number(found, "amount"),
        facilitator=_address(extra, "facilitatorAddress") if settled_by is not None else None,
    )


def _signed(payment: Json) -> Json:
    """What the buyer signed, and its signature."""
    payload = _object(payment, "payload")
    signature = _hex_bytes(payload, "signature")
    if len(signature) > SIGNATURE_BYTES:
        raise _unreadable(f"its signature has more than {SIGNATURE_BYTES} bytes")
    if ("authorization" in payload) == ("permit2Authorization" in payload):
        raise _unreadable("its payload needs either authorization (EIP-3009) or permit2Authorization")
    read = _eip3009 if "authorization" in payload else _permit2
    return {"signature": signature, **read(payload)}


def _eip3009(payload: Json) -> Json:
    signed = _object(payload, "authorization")
    value, after, before = (_number(signed, name) for name in ("value", "validAfter", "validBefore"))
    payer, to, nonce = _address(signed, "from"), _address(signed, "to"), _hex_bytes(signed, "nonce")
    if len(nonce) != 32:
        raise _unreadable("its nonce does not have 32 bytes")
    return {
        "transfer": Transfer.EIP3009,
        "payer": payer,
        "nonce": nonce,
        "pay_to": to,
        "amount": value,
        "valid_after_s": after,
        "valid_before_s": before,
        "payload": {
            "signature": payload["signature"],
            "authorization": {
                "from": signed["from"],
                "to": signed["to"],
                "value": str(value),
                "validAfter": str(after),
                "validBefore": str(before),
                "nonce": signed["nonce"],
            },
        },
    }


def _permit2(payload: Json) -> Json:
    signed = _object(payload, "permit2Authorization")
    permitted, witness = _object(signed, "permitted"), _object(signed, "witness")
    amount, nonce = _number(permitted, "amount"), _number(signed, "nonce")
    deadline, after = _number(signed, "deadline"), _number(witness, "validAfter")
    by = _address(witness, "facilitator") if "facilitator" in witness else None
    return {
        "transfer": Transfer.PERMIT2,
        "payer": _address(signed, "from"),
        "nonce": nonce.to_bytes(32, "big"),
        "pay_to": _address(witness, "to"),
        "amount": amount,
        "valid_after_s": after,
        "valid_before_s": deadline,
        "token": _address(permitted, "token"),
        "spender": _address(signed, "spender"),
        "witness_facilitator": by,
        "payload": {
            "signature": payload["signature"],
            "permit2Authorization": {
                "from": signed["from"],
                "permitted": {"token": permitted["token"], "amount": str(amount)},
                "spender": signed["spender"],
                "nonce": str(nonce),
                "deadline": str(deadline),
                "witness": {
                    "to": witness["to"],
                    **({} if by is None else {"facilitator": witness["facilitator"]}),
                    "validAfter": str(after),
                },
            },
        },
    }


def _identifier(extensions: Mapping[str, Any]) -> str | None:
    """The buyer's name for its payment (extension `payment-identifier`), where it gave one."""
    declared = extensions.get(PAYMENT_IDENTIFIER)
    info = declared.get("info") if isinstance(declared, dict) else None
    identifier = info.get("id") if isinstance(info, dict) else None
    if identifier is None:
        return None
    if not isinstance(identifier, str) or _IDENTIFIER.fullmatch(identifier) is None:
        raise PaymentError(
            "invalid_payment_identifier",
            "the payment-identifier's id must be 16 to 128 letters, digits, hyphens or underscores",
        )
    return identifier


def _sponsored(extensions: Mapping[str, Any]) -> Json | None:
    """The EIP-2612 permit that a facilitator may pay the gas of (extension `eip2612GasSponsoring`).

    Rebuilt, as facilitators were seen to fail on members of another type. None where the buyer signed none:
    some send back what the offer declares.
    """
    declared = extensions.get(EIP2612_GAS_SPONSORING)
    info = declared.get("info") if isinstance(declared, dict) else None
    if not isinstance(info, dict) or "signature" not in info:
        return None
    version = info.get("version", "1")
    if not isinstance(version, str) or _VERSION.fullmatch(version) is None:
        raise _unreadable("the version of its eip2612GasSponsoring is not a text such as 1")
    if len(_hex_bytes(info, "signature")) != 65:
        raise _unreadable("the signature of its eip2612GasSponsoring does not have 65 bytes")
    for name in ("from", "asset", "spender"):
        _address(info, name)
    texts = {name: info[name] for name in ("from", "asset", "spender", "signature")}
    numbers = {name: str(_number(info, name)) for name in ("amount", "nonce", "deadline")}
    return {"info": {**texts, **numbers, "version": version}}


def facilitator_payload(
    payment: SignedPayment,
    offer: Offer,
    *,
    url: str,
    mime_type: str,
    declared: Mapping[str, Any] | None = None,
) -> Json:
    """The payment as `paymentPayload` for a facilitator: the buyer's signed message on the seller's terms.

    Of the buyer's extensions only what it alone can say travels on: the name of its payment, and with Permit2
    the approval that the facilitator may pay the gas of. What the offer declares (`declared`), which buyers
    send back, is the seller's own word again: facilitators list resources by it.
    """
    body: Json = {
        "x402Version": 2,
        "payload": dict(payment.payload),
        "accepted": requirements(offer),
        "resource": resource_info(url, offer, mime_type),
    }
    extensions: Json = {}
    if payment.transfer is Transfer.PERMIT2 and (permit := _sponsored(payment.extensions)) is not None:
        extensions[EIP2612_GAS_SPONSORING] = permit
    if payment.identifier is not None:
        extensions[PAYMENT_IDENTIFIER] = {"info": {"required": False, "id": payment.identifier}}
    extensions |= {name: said for name, said in (declared or {}).items() if name in payment.extensions}
    if extensions:
        body["extensions"] = extensions
    return body


def encode_json(value: Mapping[str, Any]) -> bytes:
    """Compact JSON, as a facilitator is sent it and as the journal keeps it; `parse` reads a payload back."""
    return _ENCODER.encode(value)


def settlement_header(
    *, transaction: str, network: str, payer: str, amount_micros: int, reason: str | None = None
) -> bytes:
    """The `PAYMENT-RESPONSE` value (x402 v2 `SettlementResponse`): a success unless `reason` says why not."""
    answer: Json = {"success": reason is None, "transaction": transaction, "network": network, "payer": payer}
    if reason is None:
        answer["amount"] = str(amount_micros)
    else:
        answer["errorReason"] = reason
    return b64encode(_ENCODER.encode(answer))


def _object(found: Json, name: str) -> Json:
    value = found.get(name)
    if not isinstance(value, dict):
        raise _unreadable(f"{name} is missing or not an object")
    return value


def _text(found: Json, name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 100:
        raise _unreadable(f"{name} is missing or not a short text")
    return value


def _number(found: Json, name: str) -> int:
    """A whole number up to 256 bits; the protocol writes a decimal text, some writers a JSON number."""
    value = found.get(name)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= UINT256_DIGITS:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < UINT256:
        raise _unreadable(f"{name} is missing or not a whole number of at most 256 bits")
    return value


def _address(found: Any, name: str) -> bytes:
    value = found.get(name)
    if isinstance(value, str):
        try:
            return address_bytes(value)
        except InputError:
            pass
    raise _unreadable(f"{name} is missing or not an EVM address")


def _hex_bytes(found: Json, name: str) -> bytes:
    value = found.get(name)
    if isinstance(value, str) and value.startswith("0x") and (len(value) == 2 or value[2:].isalnum()):
        try:
            return bytes.fromhex(value[2:])
        except ValueError:
            pass
    raise _unreadable(f"{name} is missing or not hexadecimal")


def _unique(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member appears twice")
    return found


def _no_fraction(_text: str) -> NoReturn:
    raise ValueError("no fractions here")


_NO_OBJECT = "the header's content is not one JSON object in UTF-8 with unique members and whole numbers"
_JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_no_fraction, parse_constant=_no_fraction)


def _unreadable(what: str) -> PaymentError:
    return PaymentError("invalid_payload", f"PAYMENT-SIGNATURE cannot be read: {what}")
