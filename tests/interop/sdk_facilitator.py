"""The x402 SDK's own facilitator over HTTP: its classes and its web3 signer, unmodified, on any node.

python -m tests.interop.sdk_facilitator RPC_URL PRIVATE_KEY     prints its origin once it answers
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from fastapi import FastAPI
from x402 import x402Facilitator
from x402.mechanisms.evm import FacilitatorWeb3Signer
from x402.mechanisms.evm.exact import register_exact_evm_facilitator
from x402.mechanisms.evm.upto import UptoEvmFacilitatorScheme
from x402.schemas import PaymentPayload, PaymentRequirements

from tests.web.shop import serving

NETWORK = "eip155:84532"


def application(rpc_url: str, private_key: str) -> FastAPI:
    signer = FacilitatorWeb3Signer(private_key, rpc_url, confirmation_timeout_seconds=20)
    facilitator = x402Facilitator()
    register_exact_evm_facilitator(facilitator, signer, networks=NETWORK)
    facilitator.register([NETWORK], UptoEvmFacilitatorScheme(signer))
    app = FastAPI()

    def read(asked: dict[str, Any]) -> tuple[PaymentPayload, PaymentRequirements]:
        payload = PaymentPayload.model_validate(asked["paymentPayload"])
        return payload, PaymentRequirements.model_validate(asked["paymentRequirements"])

    @app.post("/verify")
    async def verify(asked: dict[str, Any]) -> dict[str, Any]:
        found = await facilitator.verify(*read(asked))
        return found.model_dump(by_alias=True, exclude_none=True)

    @app.post("/settle")
    async def settle(asked: dict[str, Any]) -> dict[str, Any]:
        found = await facilitator.settle(*read(asked))
        return found.model_dump(by_alias=True, exclude_none=True)

    @app.get("/supported")
    async def supported() -> dict[str, Any]:
        return facilitator.get_supported().model_dump(by_alias=True, exclude_none=True)

    return app


async def main(rpc_url: str, private_key: str) -> None:
    async with serving(application(rpc_url, private_key)) as url:
        sys.stdout.write(url + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
