"""Unmodified official clients buy tools: the MCP SDK's, with the x402 SDK's own MCP client on top of it.

A server in this process with the embedded chain, and the example as its README runs it, over HTTP and stdio.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import Context, MCPServer
from x402 import x402Client
from x402.mcp import x402MCPClient
from x402.mechanisms.evm.exact import ExactEvmScheme
from x402.mechanisms.evm.upto import UptoEvmScheme

from headgate import Headgate, usage
from headgate.devnet import EmbeddedFacilitator, Wallet
from headgate.devnet.wallets import payers
from headgate.x402.facilitator import InProcessFacilitator
from tests.interop.conftest import Seller
from tests.web.shop import Calls, Clock, Row, Shop, configured, serving
from tests.x402.buyer import PAY_TO, SEPOLIA

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "mcp_server"
HEADGATE = Path(sys.executable).with_name("headgate")


class AsX402Expects:
    """The MCP SDK's client as the x402 SDK's MCP client calls it: one object in, plain data out."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def call_tool(self, params: dict[str, Any], **_given: Any) -> SimpleNamespace:
        result = await self.client.call_tool(params["name"], params["arguments"], meta=params.get("_meta"))
        wire = result.model_dump(by_alias=True, mode="json", exclude_none=True)
        return SimpleNamespace(
            content=wire["content"],
            isError=result.is_error,
            structuredContent=wire.get("structuredContent"),
            _meta=wire.get("_meta", {}),
        )


def buyer(client: Client, wallet: Wallet) -> x402MCPClient:
    paying = x402Client()
    paying.set_spend_controls(False)  # its default ceiling is below that of the variable price
    paying.register("eip155:*", ExactEvmScheme(wallet.account))
    paying.register("eip155:*", UptoEvmScheme(wallet.account))
    return x402MCPClient(AsX402Expects(client), paying)


@pytest.fixture
async def tools(tmp_path: Path) -> AsyncIterator[Seller]:
    with EmbeddedFacilitator() as embedded:
        gate = Headgate(
            configured(tmp_path, "embedded"), facilitators={SEPOLIA: InProcessFacilitator(embedded)}
        )
        server = MCPServer("tools")
        gate.mcp(server)

        @server.tool()
        @gate.tool("doc.read")
        async def read(name: str) -> dict[str, str]:
            if name == "missing":
                raise FileNotFoundError(name)
            caller = usage().caller
            assert caller is not None
            return {"name": name, "channel": caller.channel}

        @server.tool()
        @gate.tool("words")
        async def count(text: str, ctx: Context) -> int:
            words = len(text.split())
            usage(ctx).record(words)
            return words

        app = gate.middleware(server.streamable_http_app())
        shop = Shop(gate, app, Calls(), Clock(), None)  # type: ignore[arg-type]  the chain is real here
        async with serving(app, lifespan="on") as url:
            yield Seller(url, shop, embedded)


async def test_the_official_x402_client_pays_for_tools(tools: Seller) -> None:
    wallet, other = tools.wallets[:2]
    async with Client(f"{tools.url}/mcp") as client:
        bought = await buyer(client, wallet).call_tool("read", {"name": "a.txt"})
        assert bought.payment_made
        assert not bought.is_error
        assert json.loads(bought.content[0]["text"]) == {"name": "a.txt", "channel": "x402"}
        assert bought.payment_response is not None
        assert bought.payment_response.success
        assert bought.payment_response.payer.lower() == wallet.address.lower()
        counted = await buyer(client, other).call_tool("count", {"text": "three words only"})
        assert counted.payment_response is not None
        assert counted.payment_response.amount == "30000"
        failed = await buyer(client, wallet).call_tool("read", {"name": "missing"})
        assert failed.is_error
        assert failed.payment_response is None
    assert tools.embedded.chain.balance_of(PAY_TO) == 130_000
    assert await tools.shop.ledger() == [
        Row("usage", "x402", 1, 100_000, None, wallet.address.lower()),
        Row("usage", "x402", 3, 30_000, None, other.address.lower()),
    ]


async def test_the_receipt_of_a_tool_is_a_page_of_the_sellers_origin(tools: Seller) -> None:
    async with Client(f"{tools.url}/mcp") as client:
        x402 = buyer(client, tools.wallets[0])
        urls: list[str] = []
        x402.on_after_payment(lambda paid: urls.append(paid.result.meta["headgate/receipt"]))
        await x402.call_tool("read", {"name": "a.txt"})
    async with httpx.AsyncClient(base_url=tools.url) as http:
        receipt = (await http.get(httpx.URL(urls[0]).path)).json()
    assert (receipt["state"], receipt["charged_amount"]) == ("settled", "0.100000")


async def test_a_customers_client_sends_its_key_like_any_api_client(tools: Seller) -> None:
    secret = await tools.shop.customer("acme", "team")
    async with (
        httpx2.AsyncClient(headers={"X-API-Key": secret}) as http,
        Client(streamable_http_client(f"{tools.url}/mcp", http_client=http)) as client,
    ):
        for name in ("a", "b", "c"):
            result = await client.call_tool("read", {"name": name})
            assert result.structured_content == {"name": name, "channel": "seat"}
    assert [(row.channel, row.charged) for row in await tools.shop.ledger()] == [
        ("seat", 0),
        ("seat", 0),
        ("overage", 100_000),
    ]


# --- the example ----------------------------------------------------------------------------------


def environment(url: str | None = None) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HEADGATE_")}
    return kept if url is None else kept | {"HEADGATE_PUBLIC_URL": url}


def said_by(directory: Path, *command: Any) -> str:
    done = subprocess.run(
        command,
        cwd=directory,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("example") / "mcp_server"
    shutil.copytree(EXAMPLE, directory, ignore=shutil.ignore_patterns("*.db*", "__pycache__"))
    said_by(directory, HEADGATE, "customers", "create", "northwind", "-c", "headgate.toml")
    subscribe = ("subscriptions", "create", "northwind", "--plan", "team", "--seats", "1")
    said_by(directory, HEADGATE, *subscribe, "-c", "headgate.toml")
    return directory


@pytest.fixture(scope="module")
def key(example: Path) -> str:
    asked = ("keys", "create", "northwind", "--format", "json", "-c", "headgate.toml")
    created: str = json.loads(said_by(example, HEADGATE, *asked))["key"]
    return created


@pytest.fixture
def url(example: Path) -> Iterator[str]:
    """The example under uvicorn."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = f"http://127.0.0.1:{port}"
    log = example / "uvicorn.log"
    with log.open("wb") as output:
        command = (sys.executable, "-m", "uvicorn", "main:app", "--port", str(port))
        server = subprocess.Popen(
            command, cwd=example, env=environment(found), stdout=output, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            try:
                httpx.get(found + "/nothing")
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield found
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)
    assert "Traceback" not in log.read_text(), log.read_text()


def test_the_examples_agent_pays_over_http(example: Path, url: str) -> None:
    said = json.loads(said_by(example, sys.executable, "agent.py", f"{url}/mcp"))
    assert said["answer"] == {"summary": "Long story."}
    assert said["paid"] == "100000"
    events = said_by(example, HEADGATE, "events", "--channel", "x402", "-c", "headgate.toml")
    (event,) = [json.loads(line) for line in events.splitlines()]
    assert (event["payer"].lower(), event["route"]) == (said["by"].lower(), "MCP tools/call summarise")


async def test_the_example_over_stdio(example: Path, key: str) -> None:
    """One process for one client: its key comes with each message, and the store is left whole at the end."""
    started = StdioServerParameters(command=sys.executable, args=["main.py"], cwd=example, env=environment())
    arguments = {"text": "Long story. Short."}
    async with Client(stdio_client(started)) as client:
        for _ in range(2):
            result = await client.call_tool("summarise", arguments, meta={"headgate/key": key})  # type: ignore[typeddict-unknown-key]
            assert result.structured_content == {"summary": "Long story."}
        offer = await client.call_tool("summarise", arguments)
        assert offer.is_error
        assert offer.structured_content is not None
        assert offer.structured_content["resource"]["url"] == "mcp://tool/summarise"
        assert not (await client.call_tool("prices")).is_error
    events = said_by(example, HEADGATE, "events", "--customer", "northwind", "-c", "headgate.toml")
    booked = [json.loads(line) for line in events.splitlines()]
    assert [event["channel"] for event in booked] == ["seat", "overage"]


async def test_the_official_x402_client_pays_over_stdio(example: Path) -> None:
    """The payment travels with the message, and no HTTP is anywhere."""
    started = StdioServerParameters(command=sys.executable, args=["main.py"], cwd=example, env=environment())
    async with Client(stdio_client(started)) as client:
        agent = buyer(client, payers(3)[2])
        bought = await agent.call_tool("summarise", {"text": "Paid over stdio. Indeed."})
        assert bought.payment_made
        assert bought.payment_response is not None
        assert bought.payment_response.success
        assert json.loads(bought.content[0]["text"]) == {"summary": "Paid over stdio."}
    events = said_by(example, HEADGATE, "events", "--channel", "x402", "-c", "headgate.toml")
    rows = [json.loads(line) for line in events.splitlines()]
    paid = [row for row in rows if row["payer"].lower() == payers(3)[2].address.lower()]
    assert [(row["charged_amount"], row["route"]) for row in paid] == [
        ("0.100000", "MCP tools/call summarise")
    ]
