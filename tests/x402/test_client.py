"""Buying: from a scripted seller that does what sellers do, and from the official SDK's own."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from headgate.devnet import running_facilitator
from headgate.model.errors import InputError
from headgate.x402 import check, wire
from headgate.x402.client import Outcome, SellerUnreachable, acceptable, pay
from headgate.x402.offer import (
    PAYMENT_IDENTIFIER,
    PAYMENT_IDENTIFIER_EXTENSION,
    accepts_entry,
    build_offers,
    payment_required,
)
from tests.x402 import buyer
from tests.x402.buyer import FIXED, PAYER, POLYGON, SEPOLIA, URL, VARIABLE, network, offer

KEY = "0x" + "11" * 32
Step = Callable[[web.Request], web.StreamResponse]
TRANSACTION = "0x" + "ab" * 32


class Seller:
    """Asks for a payment, then serves; or does what its script says with each request that pays."""

    def __init__(self) -> None:
        self.offers = [offer(FIXED)]
        self.script: deque[Step] = deque()
        self.payments: list[bytes] = []
        self.requests: list[tuple[str, bytes, str]] = []
        self.unpaid: Step | None = None
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self.answer)
        self.server = TestServer(app)

    @property
    def url(self) -> str:
        return str(self.server.make_url("/v1/documents/process?x=1"))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, await request.read(), request.headers.get("X-Mine", "")))
        payment = request.headers.get("PAYMENT-SIGNATURE")
        if payment is None:
            return (self.unpaid or self.ask)(request)
        self.payments.append(payment.encode())
        return (self.script.popleft() if self.script else self.serve)(request)

    def ask(self, _request: web.Request, error: str = "payment_required") -> web.Response:
        extensions = {PAYMENT_IDENTIFIER: PAYMENT_IDENTIFIER_EXTENSION}
        challenge = payment_required(self.offers, url=URL, error=error, extensions=extensions)
        headers = {"PAYMENT-REQUIRED": challenge.header_value.decode()}
        return web.Response(status=402, body=challenge.body, headers=headers)

    def serve(self, _request: web.Request, amount: int = 100_000, **more: Any) -> web.Response:
        payment = wire.decode(self.payments[-1])
        settled = wire.settlement_header(
            transaction=TRANSACTION, network=SEPOLIA, payer=payment.payer_text, amount_micros=amount, **more
        )
        headers = {"PAYMENT-RESPONSE": settled.decode(), "Headgate-Receipt": "https://api.example.com/r/1"}
        return web.Response(text="the answer", headers=headers)


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
    assert (result.payer, result.transaction) == (PAYER.address.lower(), TRANSACTION)
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


async def test_an_offer_in_the_body_alone_is_read(seller: Seller) -> None:
    body = payment_required(seller.offers, url=URL).body
    seller.unpaid = lambda _: web.Response(status=402, body=body)
    assert (await buy(seller)).outcome is Outcome.PAID


@pytest.mark.parametrize(
    "change",
    [
        {"scheme": "deferred"},
        {"network": "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"},
        {"asset": "0x" + "12" * 20},
        {"asset": None},
        {"amount": "0.1"},
        {"amount": 100_000},
        {"amount": "-5"},
        {"amount": "٣"},
    ],
)
def test_what_this_buyer_cannot_judge_is_not_acceptable(change: dict[str, Any]) -> None:
    assert acceptable([accepts_entry(offer()) | change, 5, None], None) == []


@pytest.mark.parametrize(
    ("decimals", "amount", "micros"),
    [(6, "7", 7), (18, str(10**17), 100_000), (18, "1", 1), (2, "10", 100_000)],
)
def test_a_price_is_in_micro_dollars_whatever_the_tokens_decimals(
    decimals: int, amount: str, micros: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate.x402.client.find_default_asset", lambda *_: {"decimals": decimals})
    entry = accepts_entry(offer()) | {"asset": "0x" + "12" * 20, "amount": amount}
    assert [choice.price_micros for choice in acceptable([entry], None)] == [micros]


def unavailable(status: int, **headers: str) -> Step:
    return lambda _request: web.Response(status=status, headers={"Retry-After": "0", **headers})


def vanish(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize(
    "step",
    [unavailable(503), unavailable(409), unavailable(502), unavailable(429), vanish],
    ids=["503", "409", "502", "429", "gone"],
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
        (lambda _: lambda _request: web.Response(status=302, headers={"Location": "/x"}), "status 302"),
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
        acceptable([], "moon")


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
