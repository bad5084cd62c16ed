"""An agent that has never been here before: it calls the tool, pays what it is asked, and has its answer.

`python agent.py [URL]`, with the official clients for MCP and for x402. Its wallet holds play money.
"""

import asyncio
import json
import sys

from mcp import Client
from x402 import x402Client
from x402.mechanisms.evm.exact import ExactEvmScheme
from x402.schemas import PaymentRequired

from headgate.devnet.wallets import payers

URL = "http://127.0.0.1:8000/mcp"
ARGUMENTS = {"text": "Long story. Short."}


async def main(url: str) -> None:
    wallet = x402Client()
    wallet.register("eip155:84532", ExactEvmScheme(payers(1)[0].account))
    async with Client(url) as client:
        asked = await client.call_tool("summarise", ARGUMENTS)
        offer = PaymentRequired.model_validate(asked.structured_content)
        payment = await wallet.create_payment_payload(offer)
        meta = {"x402/payment": payment.model_dump(by_alias=True, exclude_none=True)}
        result = await client.call_tool("summarise", ARGUMENTS, meta=meta)
        settled = (result.meta or {})["x402/payment-response"]
        print(
            json.dumps(
                {"answer": result.structured_content, "paid": settled["amount"], "by": settled["payer"]}
            )
        )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else URL))
