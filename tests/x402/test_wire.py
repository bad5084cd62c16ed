"""The payment header: every bound a stranger's header meets, and parity with the official codecs."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from x402.http.utils import decode_payment_response_header, decode_payment_signature_header
from x402.mechanisms.evm.types import ExactEIP3009Payload, UptoPermit2Payload
from x402.schemas import PaymentPayload, PaymentRequirements

from headgate.model.assets import KNOWN_ASSETS
from headgate.model.catalog import Route
from headgate.model.errors import PaymentError
from headgate.model.offer import Transfer
from headgate.x402 import wire
from headgate.x402.bazaar import declaration
from headgate.x402.check import PERMIT2
from headgate.x402.offer import (
    EIP2612_GAS_SPONSORING_EXTENSION,
    PAYMENT_IDENTIFIER_EXTENSION,
    requirements,
    resource_info,
)
from tests.x402 import buyer
from tests.x402.buyer import PAYER, SEPOLIA, URL, changed, offer, opened, sealed

PAYER_BYTES = bytes.fromhex(PAYER.address[2:])


def code_of(header: bytes) -> str:
    with pytest.raises(PaymentError) as caught:
        wire.decode(header)
    return caught.value.code


def test_an_eip3009_payment_is_what_the_official_codec_reads(exact_header: bytes) -> None:
    payment = wire.decode(exact_header)
    official = decode_payment_signature_header(exact_header.decode())
    assert isinstance(official, PaymentPayload)
    message = ExactEIP3009Payload.from_dict(official.payload)
    signed = message.authorization
    assert payment.transfer is Transfer.EIP3009
    assert (payment.scheme, payment.network) == (official.accepted.scheme, official.accepted.network)
    assert payment.payer == PAYER_BYTES == bytes.fromhex(signed.from_address[2:])
    assert payment.nonce == bytes.fromhex(signed.nonce[2:])
    assert payment.pay_to == bytes.fromhex(signed.to[2:])
    assert (payment.amount, payment.valid_after_s) == (int(signed.value), int(signed.valid_after))
    assert payment.valid_before_s == int(signed.valid_before)
    assert payment.signature == bytes.fromhex((message.signature or "")[2:])
    assert payment.payload == official.payload
    assert payment.resource_url == URL


def test_a_permit2_payment_is_what_the_official_codec_reads(upto_header: bytes) -> None:
    payment = wire.decode(upto_header)
    official = decode_payment_signature_header(upto_header.decode())
    assert isinstance(official, PaymentPayload)
    signed = UptoPermit2Payload.from_dict(official.payload).permit2_authorization
    assert payment.transfer is Transfer.PERMIT2
    assert int.from_bytes(payment.nonce, "big") == int(signed.nonce)
    assert (payment.amount, payment.valid_before_s) == (int(signed.permitted.amount), int(signed.deadline))
    assert payment.token == bytes.fromhex(signed.permitted.token[2:])
    assert payment.spender == bytes.fromhex(signed.spender[2:])
    assert payment.witness_facilitator == bytes.fromhex(signed.witness.facilitator[2:])
    assert payment.payload == official.payload


def test_what_a_facilitator_is_sent_is_a_payment_for_the_official_schema(upto_header: bytes) -> None:
    payment, made = wire.decode(upto_header), offer(buyer.VARIABLE)
    sent = wire.facilitator_payload(payment, made, url=URL, mime_type="text/plain")
    official = PaymentPayload.model_validate(sent)
    assert official.accepted == PaymentRequirements.model_validate(requirements(made))
    assert official.payload == opened(upto_header)["payload"]


def test_a_kept_payment_is_read_back_as_the_same_payment(exact_header: bytes) -> None:
    payment, made = wire.decode(exact_header), offer()
    kept = wire.encode_json(wire.facilitator_payload(payment, made, url=URL, mime_type="text/plain"))
    assert wire.parse_kept(kept).key == payment.key
    assert wire.parse_kept(kept).signature == payment.signature


def test_what_a_stranger_puts_beside_the_known_fields_travels_nowhere(exact: buyer.Json) -> None:
    for path in (
        "payload.evil",
        "payload.authorization.evil",
        "accepted.evil",
        "accepted.extra.name",
        "evil",
    ):
        exact = changed(exact, path, "EVIL")
    payment = wire.decode(sealed(exact))
    assert b"EVIL" not in wire.encode_json(
        wire.facilitator_payload(payment, offer(), url=URL, mime_type="a/b")
    )


def test_a_payments_repr_cannot_be_used_to_pay(exact_header: bytes) -> None:
    payment = wire.decode(exact_header)
    assert payment.signature.hex() not in repr(payment)
    assert repr(payment.signature) not in repr(payment)


# --- the same authorization, spelled otherwise, is the same payment (failure case 4) ---


def respelled(payload: buyer.Json) -> list[buyer.Json]:
    authorization = payload["payload"]["authorization"]
    signature = payload["payload"]["signature"]
    return [
        changed(payload, "payload.authorization.nonce", "0x" + authorization["nonce"][2:].upper()),
        changed(payload, "payload.authorization.from", authorization["from"].lower()),
        changed(payload, "payload.authorization.from", "0x" + authorization["from"][2:].upper()),
        changed(payload, "accepted.asset", payload["accepted"]["asset"].lower()),
        changed(payload, "payload.authorization.value", "000" + authorization["value"]),
        changed(payload, "payload.authorization.value", int(authorization["value"])),
        changed(payload, "payload.authorization.validBefore", "0" + authorization["validBefore"]),
        changed(payload, "payload.signature", "0x" + signature[2:].upper()),
        changed(payload, "payload.signature", signature[:-2] + "00"),
        changed(payload, "resource.url", "https://elsewhere.example"),
        changed(payload, "payload.unknown", 1),
    ]


@pytest.mark.parametrize("index", range(11))
def test_no_spelling_changes_the_key(index: int, exact: buyer.Json, exact_header: bytes) -> None:
    other = respelled(exact)[index]
    assert other != exact
    again, first = wire.decode(sealed(other)), wire.decode(exact_header)
    assert (again.key, again.id) == (first.key, first.id)


def test_a_permit2_nonce_with_leading_zeros_is_the_same_nonce(upto: buyer.Json, upto_header: bytes) -> None:
    small = changed(upto, "payload.permit2Authorization.nonce", "7")
    padded = changed(upto, "payload.permit2Authorization.nonce", "0007")
    assert wire.decode(sealed(small)).key == wire.decode(sealed(padded)).key
    assert wire.decode(sealed(small)).key != wire.decode(upto_header).key


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("payload.authorization.nonce", "0x" + "ab" * 32),
        ("payload.authorization.from", "0x" + "ab" * 20),
        ("accepted.network", "eip155:137"),
        ("accepted.asset", "0x" + "ab" * 20),
    ],
)
def test_another_authorization_has_another_key(
    path: str, value: str, exact: buyer.Json, exact_header: bytes
) -> None:
    assert wire.decode(sealed(changed(exact, path, value))).id != wire.decode(exact_header).id


# --- bad headers ---

NOT_JSON_OBJECTS: list[bytes] = [
    b"",
    b"null",
    b"[]",
    b'"x"',
    b"{",
    b"{}{}",
    b"\xff\xfe",
    b'{"x402Version":2,"x402Version":2}',
    b'{"x402Version":2.0}',
    b'{"x402Version":2e0}',
    b'{"x402Version":NaN}',
    b'{"x402Version":Infinity}',
    b'{"a":' * 1000 + b"1" + b"}" * 1000,
    b"[" * 11000,
    b'{"x402Version":2,"a":' + b"9" * 5000 + b"}",
]


@pytest.mark.parametrize("text", NOT_JSON_OBJECTS, ids=lambda text: repr(text[:30]))
def test_what_is_no_json_object_is_unreadable(text: bytes) -> None:
    assert code_of(sealed(text)) == "invalid_payload"


@pytest.mark.parametrize(
    "header",
    [
        b"garbage",
        b"e30",  # no padding
        b"e30=\n",
        b" e30=",
        b"e30=e30=",
        b"e_-=",  # the URL alphabet
        b"\x00\xff",
        b"{}",
    ],
)
def test_what_is_not_standard_base64_is_unreadable(header: bytes) -> None:
    assert code_of(header) == "invalid_payload"


def test_an_oversized_header_is_not_even_decoded() -> None:
    assert code_of(b"A" * (wire.HEADER_BYTES + 1)) == "payment_header_too_large"


@pytest.mark.parametrize("version", [1, 3, 0, -2, "2", None, True, [2], ...])
def test_only_version_2_is_spoken(version: Any, exact: buyer.Json) -> None:
    assert code_of(sealed(changed(exact, "x402Version", version))) == "unsupported_x402_version"


NO_NUMBERS: list[Any] = [
    "",
    "-1",
    "+1",
    "1.0",
    "0x10",
    " 1",
    "1_000",
    "١",
    "9" * 79,
    -1,
    True,
    None,
    [],
    str(1 << 256),
]
NO_ADDRESSES: list[Any] = ["", "0x12", "12" * 20, "0x" + "g" * 40, "0x" + " 1" * 20, 5, None, "0x" + "1" * 41]
NO_BYTES: list[Any] = ["", "00", "0x0", "0xzz", "0x 00", 5, None]

BAD_EXACT: list[tuple[str, Any]] = [
    *(("payload.authorization.value", bad) for bad in NO_NUMBERS),
    *(("payload.authorization.validAfter", bad) for bad in NO_NUMBERS),
    *(("payload.authorization.validBefore", bad) for bad in NO_NUMBERS),
    *((f"payload.authorization.{name}", bad) for name in ("from", "to") for bad in NO_ADDRESSES),
    *((path, bad) for path in ("payload.authorization.nonce", "payload.signature") for bad in NO_BYTES),
    ("payload.authorization.nonce", "0x" + "00" * 31),
    ("payload.authorization.nonce", "0x" + "00" * 33),
    ("payload.signature", "0x" + "00" * 5000),
    ("payload.authorization", []),
    ("payload.authorization", ...),
    ("payload.permit2Authorization", {}),
    ("payload", "0x"),
    ("payload", ...),
    ("accepted", ...),
    ("accepted", []),
    ("accepted.scheme", 1),
    ("accepted.network", "x" * 101),
    ("accepted.amount", "1.5"),
    ("accepted.payTo", "0x"),
    ("accepted.asset", None),
    ("accepted.extra", {"facilitatorAddress": "0x"}),
    ("resource", "https://x"),
    ("extensions", []),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), BAD_EXACT, ids=repr)
def test_a_field_of_the_wrong_shape_is_unreadable(path: str, value: Any, exact: buyer.Json) -> None:
    assert code_of(sealed(changed(exact, path, value))) == "invalid_payload"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("payload.permit2Authorization.permitted", []),
        ("payload.permit2Authorization.permitted.token", "0x"),
        ("payload.permit2Authorization.permitted.amount", "-1"),
        ("payload.permit2Authorization.spender", None),
        ("payload.permit2Authorization.nonce", "0x01"),
        ("payload.permit2Authorization.deadline", "soon"),
        ("payload.permit2Authorization.witness", ...),
        ("payload.permit2Authorization.witness.to", ""),
        ("payload.permit2Authorization.witness.facilitator", None),
        ("payload.permit2Authorization.witness.validAfter", 1 << 256),
    ],
)
def test_a_permit2_field_of_the_wrong_shape_is_unreadable(path: str, value: Any, upto: buyer.Json) -> None:
    assert code_of(sealed(changed(upto, path, value))) == "invalid_payload"


def test_an_unknown_scheme_is_named(exact: buyer.Json) -> None:
    assert code_of(sealed(changed(exact, "accepted.scheme", "deferred"))) == "unsupported_scheme"


def test_a_member_given_twice_is_unreadable_at_any_depth(exact: buyer.Json) -> None:
    text = json.dumps(exact).replace('"value":', '"value": "1", "value":', 1).encode()
    assert code_of(sealed(text)) == "invalid_payload"


def test_the_header_may_be_sent_once_only(exact_header: bytes) -> None:
    with pytest.raises(PaymentError) as caught:
        wire.read_headers([exact_header, exact_header])
    assert caught.value.code == "duplicate_payment_header"


def test_a_version_1_header_is_explained_unless_a_payment_stands_beside_it(exact_header: bytes) -> None:
    with pytest.raises(PaymentError, match="PAYMENT-SIGNATURE") as caught:
        wire.read_headers([], [b"e30="])
    assert caught.value.code == "unsupported_x402_version"
    assert wire.read_headers([exact_header], [b"e30="]) == wire.decode(exact_header)
    assert wire.read_headers([]) is None


# --- the payment identifier ---


@pytest.mark.parametrize("identifier", ["a" * 16, "A-b_9" * 5, "z" * 128])
def test_a_payment_identifier_is_read(identifier: str, exact: buyer.Json) -> None:
    exact["extensions"] = {"payment-identifier": {"info": {"required": False, "id": identifier}}}
    assert wire.decode(sealed(exact)).identifier == identifier


@pytest.mark.parametrize(
    "identifier", ["short", "a" * 129, "has a blank in it", "a" * 16 + "\n", 5, ["a" * 16]]
)
def test_a_payment_identifier_of_the_wrong_shape_is_named(identifier: Any, exact: buyer.Json) -> None:
    exact["extensions"] = {"payment-identifier": {"info": {"id": identifier}}}
    assert code_of(sealed(exact)) == "invalid_payment_identifier"


@pytest.mark.parametrize("extension", [None, {}, {"info": {}}, {"info": []}, 5])
def test_a_payment_without_an_identifier_has_none(extension: Any, exact: buyer.Json) -> None:
    exact["extensions"] = {"payment-identifier": extension}
    assert wire.decode(sealed(exact)).identifier is None


# --- the settlement header ---


def test_the_official_decoder_reads_our_settlement_header() -> None:
    transaction = "0x" + "ab" * 32
    header = wire.settlement_header(
        transaction=transaction, network=SEPOLIA, payer=PAYER.address, amount_micros=7
    )
    read = decode_payment_response_header(header.decode())
    assert (read.success, read.transaction, read.network) == (True, transaction, SEPOLIA)
    assert (read.payer, read.amount, read.error_reason) == (PAYER.address, "7", None)
    header = wire.settlement_header(
        transaction="", network=SEPOLIA, payer=PAYER.address, amount_micros=7, reason="insufficient_funds"
    )
    read = decode_payment_response_header(header.decode())
    assert (read.success, read.amount, read.error_reason) == (False, None, "insufficient_funds")


# --- whatever is sent: a payment or a PaymentError ---

JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)
PATHS = sorted({path for path, _ in BAD_EXACT})


@given(st.binary(max_size=400))
def test_any_bytes_are_a_payment_error(header: bytes) -> None:
    with contextlib.suppress(PaymentError):
        wire.decode(header)


@given(JSONS)
def test_any_json_is_a_payment_error(value: Any) -> None:
    with pytest.raises(PaymentError):
        wire.decode(sealed(value))


@given(st.data())
@settings(max_examples=300)
def test_any_member_replaced_is_a_payment_or_a_payment_error(data: st.DataObject) -> None:
    payload = opened(FUZZED)
    for _ in range(data.draw(st.integers(1, 3))):
        with contextlib.suppress(KeyError, TypeError, IndexError):
            payload = changed(payload, data.draw(st.sampled_from(PATHS)), data.draw(JSONS))
    with contextlib.suppress(PaymentError):
        assert wire.decode(sealed(payload)).key


@given(st.integers(0, 2000), st.integers(0, 255))
def test_any_byte_changed_is_a_payment_or_a_payment_error(position: int, value: int) -> None:
    text = bytearray(base64.b64decode(FUZZED))
    text[position % len(text)] = value
    with contextlib.suppress(PaymentError):
        assert len(wire.decode(sealed(bytes(text))).nonce) == 32


FUZZED = buyer.signed(offer())


# --- what of a payment's extensions a facilitator is told ---

OWN = {"bazaar": {"info": {"input": {"type": "http", "method": "GET"}}}}
IDENTIFIED = {"payment-identifier": {"info": {"required": False, "id": "a" * 16}}}
PERMIT = {
    "from": PAYER.address,
    "asset": KNOWN_ASSETS[SEPOLIA].address,
    "spender": PERMIT2,
    "amount": "5",
    "nonce": "0",
    "deadline": "9",
    "signature": "0x" + "12" * 65,
    "version": "1",
}
SPONSORED = {"eip2612GasSponsoring": {"info": PERMIT}}
TOLD: list[tuple[str, Any, Any, Any]] = [
    # (what is said of it, the buyer's extensions, with EIP-3009, with Permit2)
    ("nothing", {}, {}, {}),
    ("the payment's name", IDENTIFIED, IDENTIFIED, IDENTIFIED),
    ("an identifier without a name", {"payment-identifier": {"info": {}}}, {}, {}),
    ("our declaration", OWN, OWN, OWN),
    ("another in its place", {"bazaar": {"info": {"input": {"method": "DELETE"}}}}, OWN, OWN),
    ("nonsense in its place", {"bazaar": "x"}, OWN, OWN),
    ("something unknown", {"sign-in-with-x": {"a": 1}, **IDENTIFIED}, IDENTIFIED, IDENTIFIED),
    ("a permit", SPONSORED, {}, SPONSORED),
    (
        "more than that",
        {"eip2612GasSponsoring": {"info": PERMIT | {"x": 1}, "schema": {}}},
        {},
        SPONSORED,
    ),
    ("numbers as numbers", {"eip2612GasSponsoring": {"info": PERMIT | {"amount": 5}}}, {}, SPONSORED),
    ("a permit's declaration", {"eip2612GasSponsoring": {"info": {"version": "1"}}}, {}, {}),
    ("no permit", {"eip2612GasSponsoring": "x"}, {}, {}),
    ("an approval that is not offered", {"erc20ApprovalGasSponsoring": {"info": PERMIT}}, {}, {}),
    ("all of it", {**SPONSORED, **OWN, **IDENTIFIED, "new": 1}, {**OWN, **IDENTIFIED}, None),
]


@pytest.mark.parametrize("row", TOLD, ids=lambda row: row[0])
def test_the_extensions_a_facilitator_is_told(
    row: tuple[str, Any, Any, Any], exact: buyer.Json, upto: buyer.Json
) -> None:
    _, said, by_transfer, by_permit = row
    by_permit = {**SPONSORED, **OWN, **IDENTIFIED} if by_permit is None else by_permit
    for payload, made, told in ((exact, offer(), by_transfer), (upto, offer(buyer.VARIABLE), by_permit)):
        payment = wire.decode(sealed(payload | {"extensions": said}))
        sent = wire.facilitator_payload(payment, made, url=URL, mime_type="a/b", declared=OWN)
        assert sent.get("extensions", {}) == told
        PaymentPayload.model_validate(sent)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("version", 1),
        ("version", None),
        ("version", ["1"]),
        ("version", "one"),
        ("version", "1" * 100),
        ("from", 7),
        ("asset", "0x12"),
        ("spender", None),
        ("amount", "-1"),
        ("amount", True),
        ("nonce", "1e5"),
        ("deadline", "9" * 100),
        ("deadline", {}),
        ("signature", "0x12"),
        ("signature", 5),
        ("signature", "12" * 65),
    ],
)
def test_a_permit_that_a_facilitator_could_fail_on_is_unreadable(
    member: str, value: Any, exact: buyer.Json, upto: buyer.Json
) -> None:
    said = {"eip2612GasSponsoring": {"info": PERMIT | {member: value}}}
    with pytest.raises(PaymentError, match=r"eip2612|whole number|EVM address|hexadecimal"):
        wire.decode(sealed(upto | {"extensions": said}))
    wire.decode(sealed(exact | {"extensions": said}))  # of no concern to it


def test_a_route_that_declares_nothing_has_nothing_told_of_it(exact: buyer.Json) -> None:
    payment = wire.decode(sealed(exact | {"extensions": {"bazaar": {"info": "the buyer's"}}}))
    assert "extensions" not in wire.facilitator_payload(payment, offer(), url=URL, mime_type="a/b")


# --- large ones: a payment with every extension is read, garbage is not read to its end ---


def everything(payload: buyer.Json) -> buyer.Json:
    """A payment whose buyer sends back all that an offer can declare, for a route with four wildcards."""
    route = Route("POST", "/v1/{customer}/{year}/{month}/{document}")
    identified = {"required": False, "id": "a" * 128}
    extensions = {
        "bazaar": declaration(route, "/v1/acme/2026/11/report"),
        "payment-identifier": {**PAYMENT_IDENTIFIER_EXTENSION, "info": identified},
        "eip2612GasSponsoring": {**EIP2612_GAS_SPONSORING_EXTENSION, "info": PERMIT},
    }
    return payload | {"extensions": extensions}


@pytest.mark.parametrize("indent", [None, 2])
def test_a_payment_with_every_extension_is_far_within_the_bounds(
    indent: int | None, upto: buyer.Json
) -> None:
    whole = json.dumps(everything(upto), indent=indent).encode()
    assert len(whole) > wire.SMALL_BYTES
    assert 3 * wire._marks(whole) < wire.MAX_MARKS
    for part in ("accepted", "payload"):
        assert 3 * wire._marks(json.dumps(upto[part]).encode()) < wire.FEW_MARKS
    payment, alone = wire.decode(sealed(whole)), wire.decode(sealed(upto))
    assert (payment.id, payment.signature, payment.payload) == (alone.id, alone.signature, alone.payload)
    assert payment.identifier == "a" * 128
    assert payment.extensions["eip2612GasSponsoring"]["info"] == PERMIT


def padded(payload: buyer.Json, members: int = 300) -> buyer.Json:
    return payload | {"extensions": {"else": {f"member{number}": "value" for number in range(members)}}}


def test_as_many_members_as_are_read(exact: buyer.Json) -> None:
    assert wire.decode(sealed(padded(exact, 450))).extensions["else"]["member449"] == "value"
    assert code_of(sealed(padded(exact, 520))) == "invalid_payload"


def test_an_address_that_is_a_list_of_ids(upto: buyer.Json) -> None:
    """Buyers send the offer's address back, with all its commas."""
    url = resource_info("https://api.example.com/v1/" + "1," * 5_000, None, "text/plain")["url"]
    assert url.count(",") > 490
    assert wire.decode(sealed(changed(everything(upto), "resource.url", url))).resource_url == url


@pytest.mark.parametrize("index", [n for n, (path, _) in enumerate(BAD_EXACT) if path != "extensions"])
def test_what_is_wrong_is_said_in_the_same_words(index: int, exact: buyer.Json) -> None:
    said = []
    for payload in (exact, padded(exact)):
        with pytest.raises(PaymentError) as refused:
            wire.parse(json.dumps(changed(payload, *BAD_EXACT[index])).encode())
        said.append((refused.value.code, str(refused.value)))
    assert said[0] == said[1]


@pytest.mark.parametrize("version", [1, 2.0, "2", None, ...])
def test_another_version_is_named_however_large(version: Any, exact: buyer.Json) -> None:
    code = code_of(sealed(changed(exact, "x402Version", version)))
    assert code_of(sealed(changed(padded(exact), "x402Version", version))) == code


@pytest.mark.parametrize(
    ("member", "twice"),
    [
        ('"payload":', '"payload": {}, "payload":'),
        ('"accepted":', '"accepted": null, "accepted":'),
        ('"member7":', '"member7": 1, "member7":'),
        ('"member7": "value"', '"member7": 0.5'),
        ('"member7": "value"', '"member7": NaN'),
        ('"member7": "value"', '"member7": "\\ud83d"'),
    ],
)
def test_nothing_is_overlooked_in_a_large_one(member: str, twice: str, exact: buyer.Json) -> None:
    whole = json.dumps(padded(exact))
    assert wire.decode(sealed(whole.encode()))
    assert member in whole
    assert code_of(sealed(whole.replace(member, twice, 1).encode())) == "invalid_payload"


def compact(**members: Any) -> bytes:
    return json.dumps({"x402Version": 2, **members}, separators=(",", ":")).encode()


LARGE_GARBAGE = {
    "no base64": b"!" * 16_000,
    "base64 of no JSON": sealed(bytes(range(256)) * 47),
    "a list": sealed(b"[" + b"1," * 6_000 + b"1]"),
    "a text": sealed(b'"' + b"y" * 12_000 + b'"'),
    "an object of many members": sealed(compact(**{f"k{number}": number for number in range(900)})),
    "an object of some members": sealed(compact(**{f"k{number}": "v" * 18 for number in range(400)})),
    "a list in an object": sealed(compact(payload=[1] * 5_900)),
    "a text in an object": sealed(compact(payload={"signature": "y" * 12_000})),
    "a list for a version": sealed(compact(accepted={}) + b" " * 9_000),
    "brackets": sealed(b'{"a":' * 390 + b"1" + b"}" * 390),
    "a text without an end": sealed(b'{"a":"' + b"y" * 12_000),
    "blanks": sealed(b"{" + b" " * 12_000 + b"}"),
    "a list hidden behind a quote": sealed(compact(a='"', b=[1] * 5_000)),
    "a list hidden behind an end": sealed(compact(a="\\", b=[1] * 5_000)),
    "many empty texts": sealed(compact(a=[""] * 3_900)),
    "members twice": sealed(b"{" + b'"a":1,' * 480 + b'"a":1}'),
    "another version, large": sealed(compact(x402Version=1, payload={"x": "y" * 12_000})),
}


@pytest.mark.parametrize("kind", LARGE_GARBAGE)
def test_large_garbage_is_not_read_member_by_member(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    slow = wire._JSON

    class Counting:
        def decode(self, text: str) -> Any:
            read.append(text)
            return slow.decode(text)

    monkeypatch.setattr(wire, "_JSON", Counting())
    assert len(LARGE_GARBAGE[kind]) <= wire.HEADER_BYTES
    with pytest.raises(PaymentError):
        wire.decode(LARGE_GARBAGE[kind])
    assert sum(map(len, read)) < 100, kind


@pytest.mark.parametrize("kind", ["no base64", "base64 of no JSON", "a list", "a text"])
def test_what_does_not_begin_like_an_object_is_not_even_decoded(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsealed, lengths = wire._unsealed, list[int]()
    monkeypatch.setattr(wire, "_unsealed", lambda value: lengths.append(len(value)) or unsealed(value))
    assert code_of(LARGE_GARBAGE[kind]) == "invalid_payload"
    assert lengths == [4]


@pytest.mark.parametrize("blank", [" ", "\n", "\t", "\r\n"])
def test_blanks_before_an_object_are_allowed(blank: str, exact: buyer.Json) -> None:
    assert wire.decode(sealed((blank + json.dumps(exact)).encode())) == wire.decode(sealed(exact))


@pytest.mark.parametrize("part", ["x402Version", "accepted", "payload"])
def test_what_is_money_in_a_payment_has_few_members(part: str, exact: buyer.Json) -> None:
    assert code_of(sealed(exact | {part: {f"k{number}": 1 for number in range(150)}})) == "invalid_payload"


@given(st.binary(max_size=40) | st.text('aAzZ09+/=-_ \n\\"', max_size=12).map(str.encode))
def test_base64_is_read_as_strictly_as_python_reads_it(value: bytes) -> None:
    try:
        strict = binascii.a2b_base64(value, strict_mode=True)
    except ValueError:
        with pytest.raises(PaymentError, match="base64"):
            wire._unsealed(value)
    else:
        assert wire._unsealed(value) == strict
