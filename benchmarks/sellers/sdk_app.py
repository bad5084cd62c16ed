"""The x402 SDK's own FastAPI middleware, set up as its documentation shows."""

from __future__ import annotations

import os

from x402.http.facilitator_client import FacilitatorConfig, HTTPFacilitatorClient
from x402.http.middleware.fastapi import PaymentMiddlewareASGI
from x402.http.types import PaymentOption, RouteConfig
from x402.mechanisms.evm.exact.server import ExactEvmScheme
from x402.server import x402ResourceServer

from benchmarks.sellers import fastapi_app
from benchmarks.sellers.thing import NETWORK, PATH, PAY_TO, PRICE

facilitator = HTTPFacilitatorClient(FacilitatorConfig(url=os.environ["BENCH_FACILITATOR_URL"]))
server = x402ResourceServer(facilitator)
server.register(NETWORK, ExactEvmScheme())  # type: ignore[arg-type,no-untyped-call]  # as documented
option = PaymentOption(scheme="exact", pay_to=PAY_TO, price=f"${PRICE}", network=NETWORK)

app = fastapi_app.build()
app.add_middleware(
    PaymentMiddlewareASGI,
    routes={
        f"GET {PATH}": RouteConfig(accepts=option, description="Thing read", mime_type="application/json")
    },
    server=server,
)
