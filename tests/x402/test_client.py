"""Buying: from a scripted seller that does what sellers do, and from the official SDK's own."""

from __future__ import annotations

import asyncio
import json
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from headgate.devnet import running_facilitator
from headgate.model.errors import InputError
from headgate.x402 import check, wire
from headgate.x402.client import KeyNeeded, SellerUnreachable, pay
from headgate.x402.offer import (
    accepts_entry,
    build_offers,
    payment_required,
)
from headgate.x402.purchase import Outcome
from tests.x402 import buyer
from tests.x402.buyer import FIXED, PAYER, POLYGON, SEPOLIA, URL, VARIABLE, network, offer
from tests.x402.selling import TRANSACTION, Seller, Step

KEY = "0x" + "11" * 32


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headgate.x402.paid_answers.FIRST_PAUSE_MS", 1)


@pytest.fixture
async def seller() -> AsyncIterator[Seller]:
    seller = Seller()
    async with seller.server:
        yield seller


async def buy(seller: Seller, **how: Any) -> Any:
    return await pay(seller.url, **{"private_key": KEY, "max_price_micros": 100_000, **how})


async def test_an_answer_is_bought(seller: Seller) -> None:
    result = await buy(seller, method="post", body=b"a document", headers={"X-Mine": "kept"})
    assert (result.outcome, result.status, result.body) == (Outcome.PAID, 200, b"the answer")
    assert (result.amount_micros, result.scheme, result.network) == (100_000, "exact", SEPOLIA)
    assert (result.payer, result.transaction) == (PAYER.address, TRANSACTION)
    assert result.receipt == "https://api.example.com/r/1"
    assert seller.requests == [("POST", b"a document", "kept")] * 2
    (header,) = seller.payments
    payment = wire.decode(header)
    assert (
        check.check_locally(payment, offer(FIXED), now_s=payment.valid_before_s - 299, min_validity_s=30)
        is None
    )
    assert buyer.opened(header)["accepted"] == accepts_entry(offer(FIXED))
    assert payment.identifier is not None
    assert payment.signature.hex() not in repr(result) + json.dumps(result.as_json())


async def test_a_ceiling_is_signed_and_the_use_is_paid(seller: Seller) -> None:
    seller.offers = [offer(VARIABLE)]
    seller.script.append(lambda request: seller.serve(request, amount=1234))
    result = await buy(seller)
    assert (result.outcome, result.scheme, result.amount_micros) == (Outcome.PAID, "upto", 1234)
    assert wire.decode(seller.payments[0]).amount == 50_000


async def test_a_price_above_the_limit_is_not_signed(seller: Seller) -> None:
    result = await buy(seller, max_price_micros=99_999)
    assert (result.outcome, result.amount_micros) == (Outcome.TOO_EXPENSIVE, 100_000)
    assert not result.paid
    assert seller.payments == []


async def test_a_dry_run_signs_nothing(seller: Seller) -> None:
    result = await buy(seller, dry_run=True)
    assert (result.outcome, result.amount_micros, result.pay_to) == (Outcome.OFFERED, 100_000, buyer.PAY_TO)
    assert seller.payments == []


async def test_an_affordable_offer_is_found_behind_a_dear_one(seller: Seller) -> None:
    seller.offers = [offer(FIXED), offer(VARIABLE)]
    result = await buy(seller, max_price_micros=50_000, dry_run=True)
    assert (result.outcome, result.scheme) == (Outcome.OFFERED, "upto")


@pytest.mark.parametrize(("wanted", "expected"), [("polygon", POLYGON), (SEPOLIA, SEPOLIA), (None, POLYGON)])
async def test_the_network_is_the_buyers_choice(wanted: str | None, expected: str, seller: Seller) -> None:
    seller.offers = list(build_offers(FIXED, [network(SEPOLIA), network(POLYGON)]))
    assert (await buy(seller, network=wanted, dry_run=True)).network == expected


async def test_what_costs_nothing_is_just_answered(seller: Seller) -> None:
    seller.unpaid = lambda _: web.Response(text="free")
    result = await buy(seller)
    assert (result.outcome, result.body) == (Outcome.FREE, b"free")


V1 = json.dumps({"x402Version": 1, "accepts": [{"scheme": "exact", "network": "base-sepolia"}]})


@pytest.mark.parametrize("body", ["", "no", "[]", "{}", V1, '{"x402Version": 2, "accepts": 5}'])
async def test_an_offer_that_cannot_be_read_is_not_signed(body: str, seller: Seller) -> None:
    seller.unpaid = lambda _: web.Response(status=402, text=body)
    assert (await buy(seller)).outcome is Outcome.NO_OFFER
    seller.unpaid = lambda _: web.Response(
        status=402, headers={"PAYMENT-REQUIRED": b64encode(body.encode()).decode()}
    )
    assert (await buy(seller)).outcome is Outcome.NO_OFFER
    assert seller.payments == []


async def test_long_headers_are_read_before_and_after_paying(seller: Seller) -> None:
    """An offer of many networks, and an answer with a long policy: 8 KiB is too little for either."""

    def ask(request: web.Request) -> web.StreamResponse:
        answer = seller.ask(request)
        answer.headers["X-Long"] = "a" * 60_000
        return answer

    def serve(request: web.Request) -> web.StreamResponse:
        answer = seller.serve(request)
        answer.headers["Content-Security-Policy"] = "default-src " + "a" * 60_000
        return answer

    seller.unpaid = ask
    seller.script.append(serve)
    result = await buy(seller)
    assert result.outcome == "paid"
    assert len(seller.payments) == 1


async def test_an_offer_in_the_body_alone_is_read(seller: Seller) -> None:
    body = payment_required(seller.offers, url=URL).body
    seller.unpaid = lambda _: web.Response(status=402, body=body)
    assert (await buy(seller)).outcome is Outcome.PAID


def problem(status: int, code: str, *, retry: bool = False) -> web.Response:
    headers = {"Retry-After": "0"} if retry else {}
    kept = {"type": f"urn:headgate:problem:{code}", "code": code}
    return web.json_response(kept, status=status, headers=headers)


def unavailable(status: int, **headers: str) -> Step:
    return lambda _request: web.Response(status=status, headers={"Retry-After": "0", **headers})


def vanish(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize(
    "step",
    [
        unavailable(503),
        unavailable(409),
        unavailable(502),
        unavailable(429),
        unavailable(425),
        unavailable(504),
        lambda _: problem(409, "payment_in_progress"),
        lambda _: web.Response(status=500),
        vanish,
    ],
    ids=["503", "409", "502", "429", "425", "504", "in progress", "500", "gone"],
)
async def test_a_pending_payment_is_sent_again_and_never_signed_anew(step: Step, seller: Seller) -> None:
    seller.script.extend([step, step])
    result = await buy(seller)
    assert result.outcome is Outcome.PAID
    assert len(seller.payments) == 3
    assert len(set(seller.payments)) == 1


async def test_when_patience_ends_the_signed_payment_is_given_back_to_be_sent_later(seller: Seller) -> None:
    seller.script.extend([unavailable(503)] * 1000)
    result = await buy(seller, patience_ms=50)
    assert (result.outcome, result.status) == (Outcome.PENDING, 503)
    assert result.payment == seller.payments[0]
    seller.script.clear()
    again = await buy(seller, resume=result.payment)
    assert (again.outcome, again.amount_micros, again.network) == (Outcome.PAID, 100_000, SEPOLIA)
    assert set(seller.payments) == {result.payment}


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (lambda seller: lambda request: seller.ask(request, "insufficient_funds"), "insufficient_funds"),
        (
            lambda _: lambda _request: web.json_response({"type": "invalid_payload"}, status=400),
            "invalid_payload",
        ),
        (lambda _: lambda _request: web.Response(status=404), "status 404"),
        (
            lambda _: lambda _request: web.Response(status=302, headers={"Location": "/x"}),
            "status 302, Location /x; redirects are not followed",
        ),
        (lambda _: lambda _request: problem(409, "payment_used", retry=True), "payment_used"),
        (
            lambda _: lambda _request: problem(409, "payment_bound_elsewhere", retry=True),
            "payment_bound_elsewhere",
        ),
        (lambda _: lambda _request: web.Response(status=409), "status 409"),
        (lambda seller: lambda request: seller.serve(request, reason="insufficient_funds"), None),
    ],
)
async def test_a_refusal_is_final_and_told(step: Any, reason: str | None, seller: Seller) -> None:
    seller.script.append(step(seller))
    result = await buy(seller)
    assert not result.paid
    assert len(seller.payments) == 1
    if reason is None:  # served, although the receipt says that nothing was settled
        assert result.outcome is Outcome.UNCONFIRMED
        assert "insufficient_funds" in result.reason
    else:
        assert (result.outcome, result.reason) == (Outcome.REFUSED, reason)


async def test_served_without_a_receipt_is_not_called_paid(seller: Seller) -> None:
    seller.script.append(lambda _: web.Response(text="here"))
    result = await buy(seller)
    assert (result.outcome, result.paid, result.body) == (Outcome.UNCONFIRMED, False, b"here")


async def test_a_seller_out_of_reach_and_input_that_is_none() -> None:
    with pytest.raises(SellerUnreachable):
        await pay("http://127.0.0.1:1/", private_key=KEY, max_price_micros=1)
    for url in ("ftp://x", "nothing", "http://"):
        with pytest.raises(InputError):
            await pay(url, private_key=KEY, max_price_micros=1)
    with pytest.raises(InputError, match="private key") as caught:
        await pay("http://x", private_key="secret", max_price_micros=1)
    assert "secret" not in str(caught.value)
    with pytest.raises(InputError, match="resume"):
        await pay("http://x", private_key=KEY, max_price_micros=1, resume=b"e30=")
    with pytest.raises(InputError, match="no network"):
        await pay("http://127.0.0.1:1/", max_price_micros=1, network="moon")


# --- an offer, or what there is instead of one ---


@pytest.mark.parametrize(
    ("status", "headers", "reason"),
    [
        (404, {}, "status 404"),
        (500, {}, "status 500"),
        (
            307,
            {"Location": "https://elsewhere.example/x"},
            "Location https://elsewhere.example/x; redirects are not",
        ),
    ],
)
async def test_what_is_neither_served_nor_for_sale_is_answered(
    status: int, headers: dict[str, str], reason: str, seller: Seller
) -> None:
    seller.unpaid = lambda _: web.Response(status=status, headers=headers, text="no")
    result = await buy(seller)
    assert (result.outcome, result.status, result.body, result.paid) == (
        Outcome.ANSWERED,
        status,
        b"no",
        False,
    )
    assert reason in result.reason
    assert seller.payments == []
    assert len(seller.requests) == 1


async def test_of_an_offer_that_cannot_be_read_is_said_what_it_is(seller: Seller) -> None:
    seller.unpaid = lambda _: web.Response(status=402, text=V1)
    assert "x402 version 1" in (await buy(seller)).reason
    seller.offers = []
    seller.unpaid = None
    assert "no way to pay" in (await buy(seller)).reason


def offering(*entries: Any, **more: Any) -> Step:
    body = json.dumps({"x402Version": 2, "error": "pay", "accepts": entries, **more}).encode()
    return lambda _: web.Response(status=402, headers={"PAYMENT-REQUIRED": b64encode(body).decode()})


GOOD = accepts_entry(offer(FIXED))
MALFORMED = [
    GOOD | {"payTo": None},
    GOOD | {"payTo": "nonsense"},
    GOOD | {"maxTimeoutSeconds": "nonsense"},
    GOOD | {"maxTimeoutSeconds": 86_401},
    GOOD | {"extra": []},
    GOOD | {"network": "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"},
    accepts_entry(offer(VARIABLE)) | {"extra": None},
    "nonsense",
]


@pytest.mark.parametrize("entry", MALFORMED)
async def test_a_malformed_offer_is_passed_over(entry: Any, seller: Seller) -> None:
    seller.unpaid = offering(entry, GOOD)
    assert (await buy(seller)).outcome is Outcome.PAID
    assert buyer.opened(seller.payments[0])["accepted"] == GOOD
    seller.unpaid = offering(entry)
    result = await buy(seller)
    assert result.outcome is Outcome.NO_OFFER
    assert result.reason
    assert len(seller.payments) == 1


@pytest.mark.parametrize("extensions", [[], "nonsense"])
async def test_extensions_that_are_no_object(extensions: Any, seller: Seller) -> None:
    seller.unpaid = offering(GOOD, extensions=extensions)
    result = await buy(seller)
    assert (result.outcome, result.reason) == (Outcome.NO_OFFER, "the offer's extensions are no object")


@pytest.mark.parametrize(
    "more",
    [{"extensions": None}, {"resource": 5}, {"resource": {"url": 5}}, {"error": 5}, {"resource": None}],
)
async def test_what_is_not_signed_need_not_make_sense(more: dict[str, Any], seller: Seller) -> None:
    seller.unpaid = offering(GOOD | {"extra": None}, **more)
    assert (await buy(seller)).outcome is Outcome.PAID


async def test_an_offer_that_cannot_be_signed_leaves_the_next(
    seller: Seller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("nothing to be done")

    monkeypatch.setattr("headgate.x402.wallet.ExactEvmScheme.create_payment_payload", fail)
    seller.unpaid = offering(GOOD, accepts_entry(offer(VARIABLE)))
    assert (await buy(seller)).scheme == "upto"
    seller.unpaid = offering(GOOD)
    result = await buy(seller)
    assert result.outcome is Outcome.NO_OFFER
    assert "nothing to be done" in result.reason


async def test_a_key_is_needed_only_to_sign(seller: Seller) -> None:
    result = await buy(seller, private_key=None, dry_run=True)
    assert (result.outcome, result.payer) == (Outcome.OFFERED, "")
    assert (await buy(seller, private_key=None, max_price_micros=1)).outcome is Outcome.TOO_EXPENSIVE
    with pytest.raises(KeyNeeded):
        await buy(seller, private_key=None)
    assert seller.payments == []
    seller.unpaid = lambda _: web.Response(text="free")
    assert (await buy(seller, private_key=None)).outcome is Outcome.FREE


@pytest.mark.parametrize(
    "how",
    [
        {"method": "G ET"},
        {"method": ""},
        {"method": "GET\r\nX: y"},
        {"method": "CONNECT"},
        {"network": "moon"},
        {"network": "solana:5eykt"},
        {"headers": {"X Y": "1"}},
        {"headers": {"": "1"}},
        {"headers": {"X:": "1"}},
        {"headers": {"X": "1\r\nPAYMENT-SIGNATURE: mine"}},
        {"headers": {"X": "\x00"}},
        {"headers": {"X": "\udcff"}},
        {"headers": {"payment-signature": "mine"}},
        {"headers": {"PAYMENT-SIGNATURE": "mine"}},
        {"headers": {"Content-Length": "5"}},
        {"headers": {"host": "other"}},
        {"headers": {"Transfer-Encoding": "chunked"}},
        {"headers": {"Connection": "close"}},
        {"private_key": "secret"},
    ],
)
async def test_bad_usage_is_told_before_anybody_is_asked(how: dict[str, Any], seller: Seller) -> None:
    with pytest.raises(InputError):
        await buy(seller, **how)
    assert seller.requests == []


async def test_a_callers_header_replaces_ours(seller: Seller) -> None:
    agents = []
    seller.unpaid = lambda request: web.Response(
        text=str(agents.append(request.headers.getall("User-Agent")))
    )
    await buy(seller, headers={"user-agent": "mine"})
    assert agents == [["mine"]]


async def test_an_untrusted_certificate_is_explained(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path))
    server = TestServer(web.Application(), scheme="https")
    await server.start_server(ssl=context)
    try:
        with pytest.raises(SellerUnreachable, match="SSL_CERT_FILE"):
            await pay(str(server.make_url("/")), max_price_micros=1)
    finally:
        await server.close()


def self_signed(where: Path) -> Path:
    """A certificate of 127.0.0.1 that no authority knows, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )
    file = where / "server.pem"
    plain = serialization.NoEncryption()
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


# --- what sellers say of a payment ---


async def test_a_fault_is_asked_about_twice_more_and_the_payment_is_kept(seller: Seller) -> None:
    seller.script.extend([lambda _: web.Response(status=500)] * 10)
    result = await buy(seller)
    assert (result.outcome, result.status, len(seller.payments)) == (Outcome.PENDING, 500, 3)
    assert result.worth_resuming
    assert result.payment == seller.payments[0]


async def test_a_wait_beyond_patience_is_not_waited_for(seller: Seller) -> None:
    seller.script.append(lambda _: web.Response(status=429, headers={"Retry-After": "3600"}))
    result = await buy(seller)
    assert (result.outcome, result.status, len(seller.payments)) == (Outcome.PENDING, 429, 1)


def settled(seller: Seller, request: web.Request, status: int, amount: int = 100_000) -> web.StreamResponse:
    answer = seller.serve(request, amount=amount)
    return web.Response(status=status, headers={**answer.headers}, text="sorry")


@pytest.mark.parametrize("status", [302, 402, 409, 422, 500, 503])
async def test_paid_and_not_served_is_said_and_the_payment_opens_the_work_again(
    status: int, seller: Seller
) -> None:
    seller.script.append(lambda request: settled(seller, request, status))
    result = await buy(seller)
    assert (result.outcome, result.paid, result.status) == (Outcome.PAID_UNSERVED, True, status)
    assert (result.transaction, result.amount_micros) == (TRANSACTION, 100_000)
    assert result.worth_resuming
    assert len(seller.payments) == 1
    again = await buy(seller, private_key=None, resume=result.payment)
    assert again.outcome is Outcome.PAID
    assert set(seller.payments) == {result.payment}


async def test_a_receipt_of_more_than_was_signed_is_not_believed(seller: Seller) -> None:
    seller.script.append(lambda request: seller.serve(request, amount=100_001))
    result = await buy(seller)
    assert (result.outcome, result.paid, result.amount_micros) == (Outcome.UNCONFIRMED, False, 100_000)
    assert "at most 100000 was signed" in result.reason


async def test_a_refusal_after_silence_does_not_say_that_nothing_was_paid(seller: Seller) -> None:
    seller.script.extend([vanish, lambda request: seller.ask(request, "nonce_used")])
    result = await buy(seller)
    assert result.outcome is Outcome.REFUSED
    assert result.reason.startswith("nonce_used; it was sent before without a clear answer")
    assert len(seller.payments) == 2  # none of them unheard


# --- stopped, and sent again ---


async def test_whoever_is_stopped_has_the_payment_already(seller: Seller) -> None:
    kept: list[Any] = []
    arrived = asyncio.Event()

    async def hang(_request: web.Request) -> web.StreamResponse:
        arrived.set()
        await asyncio.Event().wait()
        raise AssertionError

    seller.script.append(hang)  # type: ignore[arg-type]
    buying = asyncio.create_task(buy(seller, on_signed=kept.append))
    await arrived.wait()
    buying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await buying
    (pending,) = kept
    assert (pending.outcome, pending.payment, pending.amount_micros) == (
        Outcome.PENDING,
        seller.payments[0],
        100_000,
    )
    assert pending.payer == PAYER.address
    again = await buy(seller, private_key=None, resume=pending.payment)
    assert (again.outcome, len(set(seller.payments))) == (Outcome.PAID, 1)


@pytest.fixture
async def payment(seller: Seller) -> bytes:
    """A payment that the seller left pending."""
    seller.script.append(lambda _: web.Response(status=503, headers={"Retry-After": "3600"}))
    result = await buy(seller)
    seller.payments.clear()
    seller.requests.clear()
    assert result.payment is not None
    return bytes(result.payment)


async def test_a_dry_run_of_a_payment_sends_nothing(seller: Seller, payment: bytes) -> None:
    result = await buy(seller, private_key=None, resume=payment, dry_run=True)
    assert (result.outcome, result.amount_micros, result.scheme) == (Outcome.OFFERED, 100_000, "exact")
    assert (result.network, result.pay_to, result.payer) == (SEPOLIA, buyer.PAY_TO, PAYER.address)
    assert not result.worth_resuming
    assert seller.requests == []


async def test_a_payment_is_bounded_and_goes_to_its_own_seller_only(seller: Seller, payment: bytes) -> None:
    result = await buy(seller, resume=payment, max_price_micros=99_999)
    assert (result.outcome, result.amount_micros) == (Outcome.TOO_EXPENSIVE, 100_000)
    with pytest.raises(InputError, match="not on eip155:137"):
        await buy(seller, resume=payment, network="polygon")
    other = Seller()
    async with other.server:
        with pytest.raises(InputError, match="no other origin"):
            await buy(other, resume=payment)
        with pytest.raises(InputError, match="no other origin"):
            await buy(other, resume=payment, dry_run=True)
    assert other.requests == seller.requests == []
    kept = json.dumps({"status": 503, "outcome": "pending", "payment": payment.decode()}).encode()
    assert (await buy(seller, private_key="broken and not needed", resume=kept)).outcome is Outcome.PAID
    assert seller.payments == [payment]


# --- the official SDK's own seller ---


@pytest.mark.interop
async def test_the_sdks_own_seller_is_paid() -> None:
    import socket

    import uvicorn
    from fastapi import FastAPI
    from x402 import x402ResourceServer
    from x402.http import FacilitatorConfig, HTTPFacilitatorClient
    from x402.http.middleware.fastapi import payment_middleware
    from x402.mechanisms.evm.exact import ExactEvmServerScheme

    with running_facilitator() as running:
        settler = HTTPFacilitatorClient(FacilitatorConfig(url=running.url))
        official = x402ResourceServer(settler)
        official.register(SEPOLIA, ExactEvmServerScheme())
        terms = {"scheme": "exact", "network": SEPOLIA, "payTo": buyer.PAY_TO, "price": "$0.02"}
        app = FastAPI()
        app.middleware("http")(payment_middleware({"GET /paid": {"accepts": [terms]}}, official))

        @app.get("/paid")
        async def paid() -> str:
            return "served"

        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/paid"
            result = await pay(url, private_key=running.wallets[0].private_key, max_price_micros=20_000)
            server.should_exit = True
            await serving
        await settler.aclose()
        assert (result.outcome, result.body, result.amount_micros) == (Outcome.PAID, b'"served"', 20_000)
        assert running.chain.transaction(result.transaction) is not None
