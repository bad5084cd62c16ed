"""A seller of one thing, on the loopback interface, that answers payments as its script says."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from headgate.x402 import wire
from headgate.x402.offer import PAYMENT_IDENTIFIER, PAYMENT_IDENTIFIER_EXTENSION, payment_required
from tests.x402.buyer import FIXED, SEPOLIA, URL, offer

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
            step = self.unpaid or self.ask
        else:
            self.payments.append(payment.encode())
            step = self.script.popleft() if self.script else self.serve
        answer: Any = step(request)
        return await answer if asyncio.iscoroutine(answer) else answer

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
