"""A buyer that never approved Permit2 buys `upto`: the facilitator takes its permit, and pays the gas."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from x402.client import x402ClientSync
from x402.http.utils import decode_payment_required_header, encode_payment_signature_header
from x402.mechanisms.evm.exact import ExactEvmScheme
from x402.mechanisms.evm.upto import UptoEvmScheme

from headgate import Headgate
from headgate.devnet import DevChain
from tests.devnet.paying import poor
from tests.devnet.test_permit2 import SignerWithReads
from tests.web.shop import Calls, application, client_of, configured, until
from tests.x402.buyer import PAY_TO, SEPOLIA

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Headgate]:
    """With the embedded facilitator and its chain."""
    opened = Headgate(configured(tmp_path, "embedded"))
    await opened.open()
    try:
        await until(lambda: opened.payer.storefront.sells("words"))
        yield opened
    finally:
        await opened.close()


def chain_of(gate: Headgate) -> DevChain:
    facilitator: Any = gate._facilitators[SEPOLIA]
    chain: DevChain = facilitator.unguarded._embedded.chain
    return chain


async def test_a_buyer_without_an_approval_buys(gate: Headgate) -> None:
    chain = chain_of(gate)
    wallet = poor(chain, 5_000_000)
    signer = SignerWithReads(chain, wallet)
    official = x402ClientSync()
    official.register(SEPOLIA, ExactEvmScheme(signer)).register(SEPOLIA, UptoEvmScheme(signer))

    def payment(offer: httpx.Response) -> dict[str, str]:
        required = decode_payment_required_header(offer.headers["PAYMENT-REQUIRED"])
        return {
            "PAYMENT-SIGNATURE": encode_payment_signature_header(official.create_payment_payload(required))
        }

    async with client_of(gate.middleware(application(Calls())), "http") as client:
        for bought, units in enumerate((7, 30), 1):  # the second time the approval is there
            offer = await client.post("/v1/words")
            assert "eip2612GasSponsoring" in offer.json()["extensions"]
            answer = await client.post(f"/v1/words?h-headgate-units={units}", headers=payment(offer))
            assert (answer.status_code, "payment-response" in answer.headers) == (200, True)
            assert len(await rows(gate)) == bought
        assert chain.balance_of(PAY_TO) == 370_000
        assert await rows(gate) == [(7, 70_000), (30, 300_000)]
        assert "eip2612GasSponsoring" not in (await client.get("/v1/doc")).json()["extensions"]


async def rows(gate: Headgate) -> list[tuple[Any, ...]]:
    assert gate.store is not None
    return await gate.store.driver.rows_sql("SELECT units, charged_micros FROM events ORDER BY seq")
