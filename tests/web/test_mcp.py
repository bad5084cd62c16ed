"""Paid MCP tools: the official MCP SDK's client against its server, with Headgate in between.

In memory with the `2026-07-28` protocol and with the older handshake; the same over streamable HTTP. Payments
are signed by the official x402 client; the facilitator obeys the test.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from eth_account import Account
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server import Server
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import CallToolResult, InputRequiredResult, ListToolsResult, TextContent, Tool
from x402.schemas import PaymentRequired

from headgate import Headgate, Identity, usage
from headgate.config import Config
from headgate.model.errors import PaymentError, UnknownAction
from headgate.model.payment import payment_text
from headgate.service.reopen import reopen_payment
from headgate.store.operations import KeepAgain, ServeAgain
from headgate.web.mcp_payer import read_payment, tool_binding
from tests.web.shop import Row, Shop, StoppedClock, failing, opened_shop, serving
from tests.x402.buyer import PAY_TO, PAYER, SEPOLIA, changed, sdk_client
from tests.x402.scripted import drop, late, refusing, settle_and_lose

pytestmark = pytest.mark.timeout(60)
AGENT = PAYER.address.lower()
Json = dict[str, Any]
MODES = ["2026-07-28", "legacy"]


class Tools:
    """An MCP server with tools of every kind, and what they were asked."""

    def __init__(self, gate: Headgate, **given: Any) -> None:
        self.server = server = MCPServer("tests")
        self.calls: list[Any] = []
        self.called = asyncio.Event()
        self.wait: asyncio.Event | None = None
        gate.mcp(server, **given)

        @server.tool()
        @gate.tool("doc.read")
        async def read(name: str, how: str = "well") -> dict[str, Any]:
            """Read a document."""
            caller = usage().caller
            self.calls.append((name, None if caller is None else caller.channel))
            self.called.set()
            if self.wait is not None:
                await self.wait.wait()
            if how == "raise":
                raise RuntimeError("secret detail")
            if how == "void":
                usage().void("nothing found")
            return {"name": name, "call": len(self.calls)}

        @server.tool()
        @gate.tool("words")
        def count(words: int, ctx: Context) -> int:
            """Count words."""
            self.calls.append((words, usage(ctx).granted))
            usage(ctx).record(words)
            return words

        @server.tool()
        async def hello() -> str:
            """Say hello, for nothing."""
            return f"hello {usage().caller}"


@asynccontextmanager
async def opened(folder: Path, **values: Any) -> AsyncIterator[tuple[Shop, Tools]]:
    async with opened_shop(folder, **values) as shop:
        yield shop, Tools(shop.gate)


@pytest.fixture
async def bare(tmp_path: Path) -> AsyncIterator[Shop]:
    """A shop without any tool."""
    async with opened_shop(tmp_path) as shop:
        yield shop


@pytest.fixture
async def sold(tmp_path: Path) -> AsyncIterator[tuple[Shop, Tools]]:
    async with opened(tmp_path) as both:
        yield both


@pytest.fixture
def shop(sold: tuple[Shop, Tools]) -> Shop:
    return sold[0]


@pytest.fixture
def tools(sold: tuple[Shop, Tools]) -> Tools:
    return sold[1]


@asynccontextmanager
async def over_http(server: Any, headers: dict[str, str] | None = None, **how: Any) -> AsyncIterator[Client]:
    app = server.streamable_http_app(**how)
    async with (
        app.router.lifespan_context(app),
        serving(app) as url,
        httpx2.AsyncClient(headers=headers) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client,
    ):
        yield client


def told(result: CallToolResult) -> Json:
    """A refusal: one object, said in both places."""
    assert result.is_error
    (text,) = result.content
    assert isinstance(text, TextContent)
    assert result.structured_content == json.loads(text.text)
    assert result.structured_content is not None
    return result.structured_content


def pay(result: CallToolResult, account: Any = PAYER) -> Json:
    """The `_meta` with which the official client takes up a tool's offer."""
    payload = sdk_client(account).create_payment_payload(PaymentRequired.model_validate(told(result)))
    return {"x402/payment": payload.model_dump(by_alias=True, exclude_none=True)}


def key(text: str) -> Json:
    return {"headgate/key": text}


ARGUMENTS = {"name": "a.txt"}


async def call(client: Client, meta: Json | None = None, **arguments: Any) -> CallToolResult:
    return await client.call_tool("read", ARGUMENTS | arguments, meta=meta)  # type: ignore[arg-type]


# --- customers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
async def test_a_customer_inside_and_beyond_its_plan(shop: Shop, tools: Tools, mode: str) -> None:
    secret = await shop.customer("acme", "team")
    async with Client(tools.server, mode=mode) as client:
        for number in (1, 2, 3):
            result = await call(client, key(secret))
            assert not result.is_error
            assert result.structured_content == {"name": "a.txt", "call": number}
            assert "x402/payment-response" not in (result.meta or {})
    assert tools.calls == [("a.txt", "seat")] * 3
    assert await shop.ledger() == [
        Row("usage", "seat", 1, 0, "acme"),
        Row("usage", "seat", 1, 0, "acme"),
        Row("usage", "overage", 1, 100_000, "acme"),
    ]
    assert await shop.sql("SELECT name FROM routes") == [("MCP tools/call read",)]
    assert shop.asked == []


async def test_a_payment_of_a_customer_inside_its_plan_is_not_even_read(shop: Shop, tools: Tools) -> None:
    secret = await shop.customer("acme", "team")
    async with Client(tools.server) as client:
        assert not (await call(client, key(secret) | {"x402/payment": "rubbish"})).is_error
    assert [row.channel for row in await shop.ledger()] == ["seat"]


@pytest.mark.parametrize("secret", ["hg_test_unknown", "", 7, {}])
async def test_a_key_nobody_knows_is_refused_and_not_offered_anything(
    shop: Shop, tools: Tools, secret: Any
) -> None:
    async with Client(tools.server) as client:
        refusal = told(await call(client, {"headgate/key": secret}))
    assert (refusal["status"], refusal["code"]) == (401, "invalid_credentials")
    assert (tools.calls, await shop.ledger()) == ([], [])


async def test_a_plan_that_ends_blocks(shop: Shop, tools: Tools) -> None:
    secret = await shop.customer("acme", "closed")
    async with Client(tools.server) as client:
        results = [await call(client, key(secret)) for _ in range(3)]
    assert [result.is_error for result in results] == [False, False, True]
    refusal = told(results[2])
    assert (refusal["status"], refusal["code"]) == (429, "allowance_exhausted")
    assert refusal["resets_at"]
    assert (len(tools.calls), await shop.held()) == (2, 0)


async def test_a_customer_beyond_its_plan_pays_like_anybody(shop: Shop, tools: Tools) -> None:
    secret = await shop.customer("acme", "agents")
    async with Client(tools.server) as client:
        await call(client, key(secret))
        await call(client, key(secret))
        offer = await call(client, key(secret))
        assert told(offer)["error"] == "payment_required"
        assert not (await call(client, key(secret) | pay(offer))).is_error
    assert (await shop.ledger())[2:] == [Row("usage", "x402", 1, 100_000, "acme", AGENT)]
    assert await shop.held() == 0


@pytest.mark.parametrize("how", ["raise", "void"])
@pytest.mark.parametrize("plan", ["team", "agents"])
async def test_a_customers_failing_tool_is_not_booked(shop: Shop, tools: Tools, how: str, plan: str) -> None:
    secret = await shop.customer("acme", plan)
    async with Client(tools.server) as client:
        result = await call(client, key(secret), how=how)
        assert result.is_error == (how == "raise")
        assert "secret detail" not in str(result.content)
        wrong = await client.call_tool("read", {"nome": 1}, meta=key(secret))  # type: ignore[arg-type]
        assert wrong.is_error
    assert await shop.ledger() == []
    assert await shop.held() == 0


async def test_measured_use_of_a_customer(shop: Shop, tools: Tools) -> None:
    secret = await shop.customer("acme", "agents")  # 150 words included
    async with Client(tools.server) as client:
        for words in (100, 80):
            await client.call_tool("count", {"words": words}, meta=key(secret))  # type: ignore[arg-type]
    assert tools.calls == [(100, 100), (80, 50)]
    assert [row.units for row in await shop.ledger()] == [100, 50]
    assert await shop.held() == 0


async def test_a_call_given_up_gives_its_hold_back(shop: Shop, tools: Tools) -> None:
    secret = await shop.customer("acme", "agents")
    tools.wait = asyncio.Event()
    async with Client(tools.server) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(call, client, key(secret))
            await tools.called.wait()
            assert await shop.held() == 1
            group.cancel_scope.cancel()
        while await shop.held():  # noqa: ASYNC110  it is the store that tells
            await asyncio.sleep(0.005)
    assert await shop.ledger() == []


# --- strangers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
async def test_the_offer(shop: Shop, tools: Tools, mode: str) -> None:
    async with Client(tools.server, mode=mode) as client:
        offer = told(await call(client))
    (entry,) = offer["accepts"]
    assert offer["x402Version"] == 2
    assert offer["error"] == "payment_required"
    assert offer["resource"] == {
        "url": "mcp://tool/read",
        "description": "Document read",
        "mimeType": "application/json",
    }
    assert (entry["scheme"], entry["network"], entry["amount"]) == ("exact", SEPOLIA, "100000")
    assert entry["payTo"].lower() == PAY_TO.lower()
    assert (tools.calls, shop.asked, await shop.ledger()) == ([], [], [])


@pytest.mark.parametrize("mode", MODES)
async def test_a_paid_call_and_the_same_payment_again(shop: Shop, tools: Tools, mode: str) -> None:
    async with Client(tools.server, mode=mode) as client:
        payment = pay(await call(client))
        first = await call(client, payment)
        assert not first.is_error
        assert first.structured_content == {"name": "a.txt", "call": 1}
        assert first.meta is not None
        settled = first.meta["x402/payment-response"]
        assert (settled["success"], settled["network"], settled["amount"]) == (True, SEPOLIA, "100000")
        assert settled["payer"].lower() == AGENT
        assert first.meta["headgate/receipt"].startswith("https://api.example.com/.well-known/headgate/")
        again = await call(client, payment)
    assert (again.content, again.structured_content) == (first.content, first.structured_content)
    assert again.meta is not None
    assert again.meta["x402/payment-response"] == settled
    assert tools.calls == [("a.txt", "x402")]
    assert shop.asked == ["verify", "settle"]
    assert await shop.ledger() == [Row("usage", "x402", 1, 100_000, None, AGENT)]
    sent = shop.facilitator.asked[-1][1]["paymentPayload"]
    assert sent["resource"]["url"] == "mcp://tool/read"
    ((tx,),) = await shop.sql("SELECT tx FROM events")
    assert "0x" + tx.hex() == settled["transaction"]


async def test_a_payment_is_for_its_tool_and_its_arguments(shop: Shop, tools: Tools) -> None:
    async with Client(tools.server) as client:
        payment = pay(await call(client))
        await call(client, payment)
        other = told(await call(client, payment, name="b.txt"))
        assert (other["status"], other["code"]) == (409, "payment_bound_elsewhere")
    assert len(await shop.ledger()) == 1
    assert tools.calls == [("a.txt", "x402")]


# --- payments that their payer has named ------------------------------------------------------------

NAME = "order-2026-11-0001"


async def named(client: Client, name: str = NAME, account: Any = PAYER) -> Json:
    """A fresh payment under a name of the payer's."""
    offer = await call(client)
    assert told(offer)["extensions"]["payment-identifier"]["info"] == {"required": False}
    payment = pay(offer, account)
    extensions = {"payment-identifier": {"info": {"required": False, "id": name}}}
    return {"x402/payment": payment["x402/payment"] | {"extensions": extensions}}


async def test_the_same_name_for_the_same_call_gives_the_same_result(shop: Shop, tools: Tools) -> None:
    """Even with a fresh signature: the payer lost count, and is not charged again."""
    async with Client(tools.server) as client:
        first = await call(client, await named(client))
        again = await call(client, await named(client))
    assert not first.is_error
    assert (again.content, again.structured_content) == (first.content, first.structured_content)
    assert first.meta is not None
    assert again.meta is not None
    for said in ("x402/payment-response", "headgate/receipt"):
        assert again.meta[said] == first.meta[said]
    assert tools.calls == [("a.txt", "x402")]
    assert shop.asked == ["verify", "settle"]
    assert await shop.ledger() == [Row("usage", "x402", 1, 100_000, None, AGENT)]


async def test_the_same_name_for_another_call_is_bound_elsewhere(shop: Shop, tools: Tools) -> None:
    async with Client(tools.server) as client:
        await call(client, await named(client))
        other = told(await call(client, await named(client), name="b.txt"))
        assert (other["status"], other["code"]) == (409, "payment_bound_elsewhere")
    assert tools.calls == [("a.txt", "x402")]
    assert (len(await shop.ledger()), shop.asked.count("settle")) == (1, 1)


async def test_a_name_is_its_payers_own(shop: Shop, tools: Tools) -> None:
    """No bearer token: another payer's is another payment (case 17), and so is another name."""
    other = Account.from_key("0x" + "22" * 32)
    async with Client(tools.server) as client:
        for payment in (named(client), named(client, account=other), named(client, NAME + "-2")):
            assert not (await call(client, await payment)).is_error
    payers = [AGENT, other.address.lower(), AGENT]
    assert [row.payer for row in await shop.ledger()] == payers
    assert len(tools.calls) == 3


@pytest.mark.parametrize("name", ["short", "with spaces in its text", "x" * 129, 7])
async def test_names_that_are_none(shop: Shop, tools: Tools, name: Any) -> None:
    async with Client(tools.server) as client:
        refusal = told(await call(client, await named(client, name)))
    assert (refusal["status"], refusal["code"]) == (400, "invalid_payment_identifier")
    assert (shop.asked, tools.calls) == ([], [])


# --- results that are kept --------------------------------------------------------------------------


async def test_the_result_is_kept_for_a_while(shop: Shop, tools: Tools) -> None:
    async with Client(tools.server) as client:
        payment = pay(await call(client))
        await call(client, payment)
        shop.clock.ahead_us = 16 * 60 * 1_000_000
        late = await call(client, payment)
    refusal = told(late)
    assert (refusal["status"], refusal["code"]) == (409, "payment_used")
    assert late.meta is not None
    assert late.meta["headgate/receipt"] == refusal["receipt"]
    assert len(tools.calls) == 1


async def test_a_result_too_large_to_keep_is_made_again_uncharged(tmp_path: Path) -> None:
    def few_bytes(config: Config) -> Config:
        return replace(config, limits=replace(config.limits, kept_answer_bytes=10))

    async with opened(tmp_path, change=few_bytes) as (shop, tools), Client(tools.server) as client:
        payment = pay(await call(client))
        first = await call(client, payment)
        assert (await call(client, payment, how="raise")).is_error  # another call: not for this one
        again = await call(client, payment)
        assert (again.structured_content, tools.calls) == (
            {"name": "a.txt", "call": 2},
            [("a.txt", "x402")] * 2,
        )
        assert first.meta is not None
        assert again.meta is not None
        assert again.meta["x402/payment-response"] == first.meta["x402/payment-response"]
        shop.clock.ahead_us = 16 * 60 * 1_000_000
        assert told(await call(client, payment))["code"] == "payment_used"
    assert len(tools.calls) == 2


async def test_a_reopened_payment_is_served_once_more_uncharged(shop: Shop, tools: Tools) -> None:
    assert shop.gate.store is not None
    driver = shop.gate.store.driver
    async with Client(tools.server) as client:
        payment = pay(await call(client))
        await call(client, payment)
        ((identifier,),) = await shop.sql("SELECT id FROM payments")
        await reopen_payment(driver, payment_text(identifier), "asked for", now_us=shop.clock())
        assert (await call(client, payment)).structured_content == {"name": "a.txt", "call": 2}
        assert (await call(client, payment)).structured_content == {"name": "a.txt", "call": 2}
    assert shop.asked == ["verify", "settle"]
    assert await shop.ledger() == [Row("usage", "x402", 1, 100_000, None, AGENT)]


@pytest.mark.parametrize("operation", [ServeAgain, KeepAgain], ids=lambda kind: kind.__name__)
async def test_a_settled_payment_is_pending_while_the_store_is_away(
    operation: type[Any], shop: Shop, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is paid: nobody is told that nothing was billed, or invited to sign another one."""
    assert shop.gate.store is not None
    async with Client(tools.server) as client:
        payment = pay(await call(client))
        await call(client, payment)
        ((identifier,),) = await shop.sql("SELECT id FROM payments")
        await reopen_payment(
            shop.gate.store.driver, payment_text(identifier), "asked for", now_us=shop.clock()
        )
        with monkeypatch.context() as patch:
            failing(patch, shop, operation)
            assert told(await call(client, payment))["code"] == "payment_pending"
    assert await shop.ledger() == [Row("usage", "x402", 1, 100_000, None, AGENT)]


async def test_a_tool_paid_for_first_is_pending_while_the_store_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened_shop(tmp_path, more=BEFORE) as shop:
        server = MCPServer("tests")
        shop.gate.mcp(server, tools={"order": "order"})

        @server.tool()
        async def order() -> str:
            return "ordered"

        async with Client(server) as client:
            payment = pay(await client.call_tool("order"))
            with monkeypatch.context() as patch:
                failing(patch, shop, ServeAgain)
                away = await client.call_tool("order", meta=payment)  # type: ignore[arg-type]
            assert told(away)["code"] == "payment_pending"
            assert (await shop.payments(), len(await shop.ledger())) == (["reopened"], 1)
            served = await client.call_tool("order", meta=payment)  # type: ignore[arg-type]
            assert not served.is_error
        assert (await shop.payments(), len(await shop.ledger())) == (["settled"], 1)


async def test_a_reopened_payment_waits_for_a_tool_that_works(shop: Shop) -> None:
    server = MCPServer("tests")
    shop.gate.mcp(server, tools={"fetch": "doc.read"})
    works = iter([True, False, True])

    @server.tool()
    async def fetch() -> str:
        caller = usage().caller
        assert caller is not None
        assert caller.payer == AGENT
        if not next(works):
            raise RuntimeError("not now")
        return "fetched"

    assert shop.gate.store is not None
    async with Client(server) as client:
        payment = pay(await client.call_tool("fetch"))
        await client.call_tool("fetch", meta=payment)  # type: ignore[arg-type]
        ((identifier,),) = await shop.sql("SELECT id FROM payments")
        await reopen_payment(
            shop.gate.store.driver, payment_text(identifier), "asked for", now_us=shop.clock()
        )
        assert (await client.call_tool("fetch", meta=payment)).is_error  # type: ignore[arg-type]
        assert await shop.payments() == ["reopened"]
        assert not (await client.call_tool("fetch", meta=payment)).is_error  # type: ignore[arg-type]
    assert await shop.payments() == ["settled"]
    assert len(await shop.ledger()) == 1


BEFORE = """
[actions."order"]
title = "Order"
unit = "order"
price = "0.10"
settle = "before"
"""


async def test_a_tool_that_is_settled_before_it_runs_owes_its_work(tmp_path: Path) -> None:
    """It fails: its error comes with the receipt, and the same call runs it again until it works."""
    async with opened_shop(tmp_path, more=BEFORE) as shop:
        server = MCPServer("tests")
        shop.gate.mcp(server, tools={"order": "order"})
        asked_before: list[list[str]] = []

        @server.tool()
        async def order(what: str) -> dict[str, str]:
            asked_before.append(list(shop.asked))
            if len(asked_before) == 1:
                raise RuntimeError("not now")
            return {"ordered": what}

        async with Client(server) as client:
            payment = pay(await client.call_tool("order", {"what": "tea"}))

            async def buy(what: str = "tea") -> CallToolResult:
                return await client.call_tool("order", {"what": what}, meta=payment)  # type: ignore[arg-type]

            failed = await buy()
            assert failed.is_error
            assert failed.meta is not None
            assert failed.meta["x402/payment-response"]["success"] is True
            assert asked_before == [["verify", "settle"]]
            assert (await shop.payments(), len(await shop.ledger())) == (["reopened"], 1)
            assert told(await buy("coffee"))["code"] == "payment_bound_elsewhere"
            served = await buy()
            assert served.structured_content == {"ordered": "tea"}
            assert (await buy()).structured_content == {"ordered": "tea"}
        assert (len(asked_before), shop.asked) == (2, ["verify", "settle"])
        assert (await shop.payments(), await shop.ledger()) == (
            ["settled"],
            [Row("usage", "x402", 1, 100_000, None, AGENT)],
        )
        assert await shop.sql("SELECT * FROM owed") == []


async def test_a_tool_does_not_run_before_it_is_paid(tmp_path: Path) -> None:
    async with opened_shop(tmp_path, more=BEFORE) as shop:
        server = MCPServer("tests")
        shop.gate.mcp(server, tools={"order": "order"})

        @server.tool()
        async def order() -> str:
            raise AssertionError("it was not paid for")

        async with Client(server) as client:
            for step, code in ((refusing("insufficient_funds"), None), (drop, "payment_pending")):
                payment = pay(await client.call_tool("order"))
                shop.facilitator.script.settle.append(step)
                told_ = told(await client.call_tool("order", meta=payment))  # type: ignore[arg-type]
                assert told_.get("code") == code
        assert await shop.ledger() == []


MEASURED = """
[actions."by.json"]
title = "By JSON"
unit = "token"
price = "0.001"
max_units = 1000
measure = "json:/usage/tokens"
[actions."by.bytes"]
title = "By bytes"
unit = "byte"
price = "0.001"
max_units = 1000
measure = "bytes"
[plans.metered]
title = "Metered"
included = { "by.json" = 100, "by.bytes" = 100 }
beyond = "overage"
"""


async def test_results_are_measured_as_answers_are(tmp_path: Path) -> None:
    async with opened_shop(tmp_path, more=MEASURED) as shop:
        secret = await shop.customer("acme", "metered")
        server = MCPServer("tests")
        shop.gate.mcp(server)

        @server.tool()
        @shop.gate.tool("by.json")
        async def structured(tokens: int | str) -> dict[str, Any]:
            return {"usage": {"tokens": tokens}}

        @server.tool(structured_output=False)
        @shop.gate.tool("by.json")
        async def text(tokens: int) -> str:
            return json.dumps({"usage": {"tokens": tokens}})

        @server.tool()
        @shop.gate.tool("by.bytes")
        async def spelled(word: str) -> str:
            return word

        async with Client(server) as client:
            for tool, arguments in (
                ("structured", {"tokens": 7}),
                ("structured", {"tokens": "many"}),  # not a number: nothing is charged
                ("text", {"tokens": 9}),
                ("spelled", {"word": "größer"}),
            ):
                result = await client.call_tool(tool, arguments, meta=key(secret))  # type: ignore[arg-type]
                assert not result.is_error
        assert [row.units for row in await shop.ledger()] == [7, 9, 8]


async def test_a_result_that_cannot_be_measured_is_counted_and_its_payment_used(tmp_path: Path) -> None:
    async with opened_shop(tmp_path, more=MEASURED) as shop:
        server, calls = MCPServer("tests"), 0
        shop.gate.mcp(server)

        @server.tool()
        @shop.gate.tool("by.json")
        async def structured(tokens: int | str) -> dict[str, Any]:
            nonlocal calls
            calls += 1
            return {"usage": {"tokens": tokens}}

        async with Client(server) as client:
            many: dict[str, Any] = {"tokens": "many"}
            while "accepts" not in told(offer := await client.call_tool("structured", many)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # until the facilitator has told who settles `upto`
            payment: Any = pay(offer)
            for _ in range(2):
                result = await client.call_tool("structured", many, meta=payment)
                assert not result.is_error
                assert result.meta is not None
                assert result.meta["x402/payment-response"]["amount"] == "0"
        assert (calls, shop.asked, await shop.payments()) == (1, ["verify"], ["settled"])
        assert await shop.ledger() == [Row("usage", "x402", 0, 0, None, AGENT)]
        assert await shop.sql("SELECT written_off FROM events") == [(1000,)]


@pytest.mark.parametrize("how", ["raise", "void"])
async def test_a_failing_tool_settles_nothing_and_the_payment_stays_good(
    shop: Shop, tools: Tools, how: str
) -> None:
    async with Client(tools.server) as client:
        payment = pay(await call(client))
        failed = await call(client, payment, how=how)
        assert "x402/payment-response" not in (failed.meta or {})
        assert shop.asked == ["verify"]
        assert await shop.payments() == ["released"]
        assert not (await call(client, payment)).is_error
    assert [row.channel for row in await shop.ledger()] == ["x402"]


async def test_measured_use_is_settled_as_it_was(shop: Shop, tools: Tools) -> None:
    async with Client(tools.server) as client:
        while "accepts" not in (early := told(await client.call_tool("count", {"words": 1}))):
            assert early["code"] == "offers_not_ready"  # until the facilitator has told who settles `upto`
            await asyncio.sleep(0.01)
        for words, charged in ((30, 300_000), (500, 1_000_000), (0, 0)):
            offer = await client.call_tool("count", {"words": words})
            (entry,) = told(offer)["accepts"]
            assert (entry["scheme"], entry["amount"]) == ("upto", "1000000")
            result = await client.call_tool("count", {"words": words}, meta=pay(offer))  # type: ignore[arg-type]
            assert result.meta is not None
            assert result.meta["x402/payment-response"]["amount"] == str(charged)
    assert [(row.units, row.charged) for row in await shop.ledger()] == [
        (30, 300_000),
        (100, 1_000_000),
        (0, 0),
    ]


async def test_the_same_payment_while_the_first_call_runs(shop: Shop, tools: Tools) -> None:
    tools.wait = asyncio.Event()
    async with Client(tools.server) as client:
        payment = pay(await call(client))
        first = asyncio.create_task(call(client, payment))
        await tools.called.wait()
        second = told(await call(client, payment))
        assert (second["code"], second["retry_after"]) == ("payment_in_progress", 2)
        tools.wait.set()
        assert not (await first).is_error
    assert len(await shop.ledger()) == 1


@pytest.mark.parametrize("mode", MODES)
async def test_a_paid_call_given_up_leaves_the_payment_good(shop: Shop, tools: Tools, mode: str) -> None:
    tools.wait = asyncio.Event()
    async with Client(tools.server, mode=mode) as client:
        payment = pay(await call(client))
        async with anyio.create_task_group() as group:
            group.start_soon(call, client, payment)
            await tools.called.wait()
            group.cancel_scope.cancel()
        while await shop.payments() != ["released"]:  # noqa: ASYNC110  it is the store that tells
            await asyncio.sleep(0.005)
        tools.wait.set()
        assert not (await call(client, payment)).is_error
    assert shop.asked == ["verify", "verify", "settle"]
    assert len(await shop.ledger()) == 1


@pytest.mark.parametrize("mode", MODES)
async def test_a_paid_call_given_up_while_it_is_settled_can_be_had_again(
    shop: Shop, tools: Tools, mode: str
) -> None:
    shop.facilitator.script.settle.append(late(0.2))
    async with Client(tools.server, mode=mode) as client:
        payment = pay(await call(client))
        async with anyio.create_task_group() as group:
            group.start_soon(call, client, payment)
            while "settle" not in shop.asked:  # noqa: ASYNC110  it is the facilitator that tells
                await asyncio.sleep(0.005)
            group.cancel_scope.cancel()
        while await shop.payments() != ["settled"]:  # noqa: ASYNC110  it is the store that tells
            await asyncio.sleep(0.005)
        again = await call(client, payment)
    assert again.structured_content == {"name": "a.txt", "call": 1}
    assert (len(tools.calls), shop.asked) == (1, ["verify", "settle"])
    assert await shop.ledger() == [Row("usage", "x402", 1, 100_000, None, AGENT)]


async def test_a_refused_payment_is_told_why(shop: Shop, tools: Tools) -> None:
    shop.facilitator.script.verify.append(refusing("insufficient_funds"))
    async with Client(tools.server) as client:
        offer = told(await call(client, pay(await call(client))))
    assert offer["error"] == "insufficient_funds"
    assert "x402/payment-response" not in offer
    assert (tools.calls, await shop.payments()) == ([], ["released"])


async def test_a_settlement_that_is_refused_withholds_the_result(shop: Shop, tools: Tools) -> None:
    shop.facilitator.script.settle.append(refusing("insufficient_funds"))
    async with Client(tools.server) as client:
        offer = told(await call(client, pay(await call(client))))
    assert offer["error"] == "insufficient_funds"
    failed = offer["x402/payment-response"]
    assert failed == {
        "success": False,
        "errorReason": "insufficient_funds",
        "transaction": "",
        "network": SEPOLIA,
        "payer": AGENT,
    }
    assert (len(tools.calls), await shop.payments(), await shop.ledger()) == (1, ["failed"], [])


async def test_an_unknown_outcome_never_invites_another_payment(shop: Shop, tools: Tools) -> None:
    shop.facilitator.script.settle.append(settle_and_lose)
    shop.facilitator.script.settle.extend([drop] * 20)
    async with Client(tools.server) as client:
        pending = told(await call(client, pay(await call(client))))
    assert (pending["status"], pending["code"]) == (503, "payment_pending")
    assert "accepts" not in pending


async def test_a_facilitator_out_of_reach(shop: Shop, tools: Tools) -> None:
    shop.facilitator.script.verify.extend([drop] * 5)
    async with Client(tools.server) as client:
        refusal = told(await call(client, pay(await call(client))))
    assert (refusal["status"], refusal["code"]) == (503, "facilitator_unavailable")
    assert tools.calls == []


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda payment: "rubbish", "invalid_payload"),
        (lambda payment: 7, "invalid_payload"),
        (lambda payment: [payment], "invalid_payload"),
        (lambda payment: changed(payment, "x402Version", 1), "unsupported_x402_version"),
        (lambda payment: changed(payment, "accepted.amount", "0.1"), "invalid_payload"),
        (lambda payment: changed(payment, "payload.authorization", ...), "invalid_payload"),
        (lambda payment: payment | {"surprise": "x" * 20_000}, "payment_header_too_large"),
    ],
)
async def test_what_is_no_payment(shop: Shop, tools: Tools, spoil: Callable[[Json], Any], code: str) -> None:
    async with Client(tools.server) as client:
        payment = pay(await call(client))["x402/payment"]
        refusal = told(await call(client, {"x402/payment": spoil(payment)}))
    assert (refusal["status"], refusal["code"]) == (400, code)
    assert "PAYMENT-SIGNATURE" not in refusal["detail"]
    assert (shop.asked, tools.calls, await shop.payments()) == ([], [], [])


async def test_a_payment_may_come_as_text(shop: Shop, tools: Tools) -> None:
    async with Client(tools.server) as client:
        payment = json.dumps(pay(await call(client))["x402/payment"])
        assert not (await call(client, {"x402/payment": payment})).is_error
    assert len(await shop.ledger()) == 1


async def test_a_tool_without_a_price_is_left_alone(shop: Shop, tools: Tools) -> None:
    async with Client(tools.server) as client:
        result = await client.call_tool("hello", {}, meta=key("hg_test_unknown"))  # type: ignore[arg-type]
        assert result.structured_content == {"result": "hello None"}
        assert {tool.name for tool in (await client.list_tools()).tools} == {"read", "count", "hello"}
    assert await shop.ledger() == []


# --- over streamable HTTP ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"json_response": True}, {"stateless_http": True}])
async def test_over_http_the_requests_own_credentials_count(shop: Shop, tools: Tools, how: Json) -> None:
    secret = await shop.customer("acme", "team", seat="ann")
    async with over_http(tools.server, {"Authorization": f"Bearer {secret}"}, **how) as client:
        assert not (await call(client)).is_error
        assert not (await call(client, key(secret))).is_error
        two = told(await call(client, key("hg_test_another")))
        assert two["code"] == "invalid_credentials"
    assert [(row.channel, row.customer) for row in await shop.ledger()] == [("seat", "acme")] * 2
    assert len(tools.calls) == 2


async def test_over_http_a_stranger_pays(shop: Shop, tools: Tools) -> None:
    async with over_http(tools.server) as client:
        payment = pay(await call(client))
        first = await call(client, payment)
        assert first.meta is not None
        assert first.meta["x402/payment-response"]["success"] is True
        assert (await call(client, payment)).structured_content == first.structured_content
    assert await shop.ledger() == [Row("usage", "x402", 1, 100_000, None, AGENT)]


async def test_over_http_a_client_whose_payments_are_refused_has_to_wait(tmp_path: Path) -> None:
    """Case 32: each question about a stranger's payment is its client's, by the address it calls from."""

    def five_refusals(config: Config) -> Config:
        assert config.x402 is not None
        return replace(config, x402=replace(config.x402, client_refusals=5))

    async with opened(tmp_path, change=five_refusals, clock=StoppedClock()) as (shop, tools):
        shop.facilitator.script.verify.extend([refusing("insufficient_funds")] * 100)

        async def stranger(client: Client) -> Json:
            """What a payment of a wallet that nobody has seen is answered."""
            return told(await call(client, pay(await call(client), Account.create())))

        async with over_http(tools.server, {"X-Forwarded-For": "203.0.113.9"}) as client:
            refused = [(await stranger(client))["error"] for _ in range(5)]
            waiting = await stranger(client)
        assert refused == ["insufficient_funds"] * 5
        assert (waiting["status"], waiting["code"]) == (429, "too_many_refused_payments")
        assert waiting["retry_after"] == 12  # when one of five in a minute is forgotten
        assert (shop.asked.count("verify"), tools.calls) == (5, [])
        async with over_http(tools.server, {"X-Forwarded-For": "203.0.113.10"}) as client:
            assert (await stranger(client))["error"] == "insufficient_funds"
        async with Client(tools.server) as client:  # in memory there is no address to hold anybody by
            assert (await stranger(client))["error"] == "insufficient_funds"
        # Whoever has paid lately waits for nobody, whatever others do from the same address.
        shop.facilitator.script.verify.clear()
        async with over_http(tools.server, {"X-Forwarded-For": "203.0.113.10"}) as client:
            assert not (await call(client, pay(await call(client)))).is_error
        async with over_http(tools.server, {"X-Forwarded-For": "203.0.113.9"}) as client:
            assert (await stranger(client))["code"] == "too_many_refused_payments"
            assert not (await call(client, pay(await call(client)))).is_error


async def test_over_http_unknown_credentials_never_fall_through(shop: Shop, tools: Tools) -> None:
    async with over_http(tools.server, {"Authorization": "Bearer some-token"}) as client:
        assert told(await call(client))["code"] == "invalid_credentials"
        assert told(await call(client, {"x402/payment": {}}))["code"] == "invalid_credentials"


async def test_the_sellers_own_auth(bare: Shop) -> None:
    """`identify` reads what the seller's auth left on the HTTP request."""
    await bare.customer("acme", "team")

    async def identify(ctx: Any) -> Identity | None:
        assert usage(ctx).caller is None
        return Identity("acme", "ann") if ctx.request.headers["x-user"] == "ann" else None

    tools = Tools(bare.gate, identify=identify)
    async with over_http(tools.server, {"X-User": "ann"}) as client:
        assert not (await call(client)).is_error
    async with over_http(tools.server, {"X-User": "eve"}) as client:
        assert told(await call(client))["error"] == "payment_required"
    async with Client(tools.server) as client:  # no HTTP request, so `identify` finds nothing to read
        assert told(await call(client))["error"] == "payment_required"
    assert [(row.channel, row.customer) for row in await bare.ledger()] == [("seat", "acme")]


# --- how it is set up -------------------------------------------------------------------------------


async def test_the_low_level_server(bare: Shop) -> None:
    """Tools of the low-level server have no functions of their own: their prices are given as a table."""

    async def listed(_ctx: Any, _params: Any) -> ListToolsResult:
        return ListToolsResult(tools=[Tool(name="x", input_schema={"type": "object"})])

    rounds: list[str] = []

    async def answered(_ctx: Any, params: Any) -> CallToolResult | InputRequiredResult:
        rounds.append(params.name)
        if (params.arguments or {}).get("ask"):
            return InputRequiredResult(input_requests={}, request_state="more")
        return CallToolResult(content=[TextContent(type="text", text=f"call {len(rounds)}")])

    server: Server[Any] = Server("low", on_list_tools=listed, on_call_tool=answered)
    bare.gate.mcp(server, tools={"x": "doc.read"})
    async with Client(server) as client:
        payment = pay(await client.call_tool("x"))
        result = await client.call_tool("x", meta=payment)  # type: ignore[arg-type]
        assert result.content == [TextContent(type="text", text="call 1")]
        assert (await client.call_tool("x", {}, meta=payment)).content == result.content  # type: ignore[arg-type]
        asking = pay(await client.call_tool("x", {"ask": True}))
        further = await client.session.call_tool(
            "x",
            {"ask": True},
            meta=asking,  # type: ignore[arg-type]
            allow_input_required=True,
        )
        assert isinstance(further, InputRequiredResult)
    assert rounds == ["x", "x"]
    assert await bare.payments() == ["settled", "released"]
    assert len(await bare.ledger()) == 1


async def test_a_price_on_a_name_that_is_not_served_stops_the_server(bare: Shop) -> None:
    server = MCPServer("tests")
    bare.gate.mcp(server)

    @server.tool(name="read_document")
    @bare.gate.tool("doc.read")
    async def read() -> str:
        raise AssertionError("given away")

    async with Client(server) as client:
        with pytest.raises(Exception, match=r"Internal|tool read"):
            await client.call_tool("read_document", {})
    assert await bare.ledger() == []


async def test_a_tool_under_another_name(bare: Shop) -> None:
    server = MCPServer("tests")
    bare.gate.mcp(server)

    @server.tool(name="read_document")
    @bare.gate.tool("doc.read", name="read_document")
    async def read() -> str:
        return "read"

    async with Client(server) as client:
        assert (
            told(await client.call_tool("read_document", {}))["resource"]["url"] == "mcp://tool/read_document"
        )


async def test_unknown_actions_are_refused_where_they_are_written(bare: Shop) -> None:
    with pytest.raises(UnknownAction, match=r"doc\.reed"):
        bare.gate.tool("doc.reed")
    with pytest.raises(UnknownAction, match=r"doc\.reed"):
        bare.gate.mcp(MCPServer("tests"), tools={"read": "doc.reed"})


def test_what_a_payment_is_bound_to() -> None:
    one = tool_binding("read", {"a": 1, "b": [1.5, None, "é"]})
    assert tool_binding("read", {"b": [1.5, None, "é"], "a": 1}) == one
    assert tool_binding("read", None) == tool_binding("read", {})
    others = [
        tool_binding("reads", {"a": 1, "b": [1.5, None, "é"]}),
        tool_binding("read", {"a": 2, "b": [1.5, None, "é"]}),
        tool_binding("read", {"a": "1", "b": [1.5, None, "é"]}),
        tool_binding("read", {}),
    ]
    assert len({one[0], *(binding for binding, _ in others)}) == 5


@pytest.mark.parametrize("found", [float("nan"), {"x": float("inf")}, {"x": {1, 2}}, "\ud800", b"{}"])
def test_what_no_json_can_say_is_no_payment(found: Any) -> None:
    with pytest.raises(PaymentError, match="not a JSON object"):
        read_payment(found)
