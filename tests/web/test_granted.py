"""A measured use where the answer could be no: what is left is held, what is used captured (contract §3, §5).

They read like ledgers: units a customer uses in, and out come what `usage(request).granted` told its handler,
the rows, and what of the allowance and the cap is left. Then whoever is beyond pays with `upto`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from headgate import usage
from headgate.model.negotiated import Negotiated
from headgate.model.subscription import Price
from tests.web.shop import Calls, Row, bearer, client_of, opened_shop, paid, problem_of, unpacked, until
from tests.x402.buyer import PAYER

pytestmark = pytest.mark.timeout(60)
AGENT = PAYER.address.lower()
CENT = 10_000
NEGOTIATED = Negotiated(overage_price={"words": Price(100_000, 7)})
PLANS = """
[plans.metered]
included = { "words" = 150 }
beyond = "overage"
overage_cap = "0.20"
beyond_cap = "x402"
[plans.negotiated]
included = { "words" = 3 }
beyond = "overage"
overage_cap = "0.20"
beyond_cap = "block"
"""


@dataclass
class Writer:
    """An application that counts words, and says what it was granted for each request."""

    granted: list[tuple[str, int | None]] = field(default_factory=list)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)

    def __call__(self, _calls: Calls) -> Starlette:
        async def words(request: Request) -> Response:
            found = usage(request)
            assert found.caller is not None
            self.granted.append((found.caller.channel, found.granted))
            name = request.query_params.get("gate", "")
            if name in self.gates:
                await self.gates[name].wait()
            if "used" in request.query_params:
                found.record(int(request.query_params["used"]))
            return JSONResponse({"granted": found.granted}, int(request.query_params.get("status", "200")))

        async def doc(request: Request) -> Response:
            return JSONResponse({"granted": usage(request).granted})

        return Starlette(
            routes=[
                Route("/v1/words", words, methods=["POST"]),
                Route("/v1/doc", doc),
                Route("/unlisted", doc),
            ]
        )


async def use(client: httpx.AsyncClient, key: dict[str, str], units: int, **query: Any) -> httpx.Response:
    return await client.post("/v1/words", params={"used": units, **query}, headers=key)


async def offer(client: httpx.AsyncClient, key: dict[str, str]) -> httpx.Response:
    """The 402 for words: `upto` is offered as soon as the facilitator has told who settles it."""
    found: list[httpx.Response] = []

    async def made() -> bool:
        found[:] = [await client.post("/v1/words", headers=key)]
        return found[0].status_code == 402

    await until(made)
    (entry,) = found[0].json()["accepts"]
    assert (entry["scheme"], entry["amount"]) == ("upto", "1000000")
    return found[0]


def seat(units: int) -> Row:
    return Row("usage", "seat", units, 0, "ada")


def overage(units: int, charged: int | None = None) -> Row:
    return Row("usage", "overage", units, units * CENT if charged is None else charged, "ada")


def x402(units: int) -> Row:
    return Row("usage", "x402", units, units * CENT, "ada", AGENT)


# (what is granted, what is used, the rows of it, what is written off), request by request.
LEDGERS: dict[str, tuple[str, list[tuple[int, int, list[Row], int]]]] = {
    "what is left shrinks by what was used, not by what was held": (
        "agents",
        [
            (100, 30, [seat(30)], 0),
            (100, 70, [seat(70)], 0),
            (50, 20, [seat(20)], 0),
            (30, 30, [seat(30)], 0),
        ],
    ),
    "more than was left is written off": (
        "agents",
        [(100, 100, [seat(100)], 0), (50, 80, [seat(50)], 30)],
    ),
    "more than the ceiling is written off": (
        "agents",
        [(100, 130, [seat(100)], 30), (50, 50, [seat(50)], 0)],
    ),
    "nothing used leaves all of it": (
        "agents",
        [(100, 0, [seat(0)], 0), (100, 100, [seat(100)], 0), (50, 50, [seat(50)], 0)],
    ),
    "split at the allowance, up to what the cap buys": (
        "metered",
        [
            (100, 100, [seat(100)], 0),
            (70, 60, [seat(50), overage(10)], 0),
            (10, 4, [overage(4)], 0),
            (6, 6, [overage(6)], 0),
        ],
    ),
    "beyond the cap is written off": (
        "metered",
        [(100, 90, [seat(90)], 0), (80, 100, [seat(60), overage(20)], 20)],
    ),
}


@pytest.mark.parametrize("transport", ["http", "asgi"])
@pytest.mark.parametrize("case", LEDGERS)
async def test_a_measured_use_is_held_captured_and_split(case: str, transport: str, tmp_path: Path) -> None:
    plan, requests = LEDGERS[case]
    writer = Writer()
    async with (
        opened_shop(tmp_path, app=writer, more=PLANS) as shop,
        client_of(shop.app, transport) as client,
    ):
        key = bearer(await shop.customer("ada", plan))
        booked: list[Row] = []
        for granted, used, rows, written_off in requests:
            answer = await use(client, key, used)
            assert (answer.status_code, answer.json()) == (200, {"granted": granted})
            booked += rows
            assert await shop.ledger() == booked
            newest = await shop.sql("SELECT request_id, written_off FROM events ORDER BY seq")
            assert len({row[0] for row in newest[-len(rows) :]}) == 1
            assert sum(row[1] for row in newest[-len(rows) :]) == written_off
            assert await shop.held() == 0
        assert writer.granted == [("seat", each[0]) for each in requests]
        refused = await offer(client, key)
        assert refused.json()["error"] == "payment_required"


@pytest.mark.parametrize("plan", ["agents", "metered"])
async def test_the_part_beyond_is_paid_with_upto(plan: str, tmp_path: Path) -> None:
    """The whole request goes to the next channel, with the ceiling of its payment instead of the plan's."""
    writer = Writer()
    async with opened_shop(tmp_path, app=writer, more=PLANS) as shop, client_of(shop.app, "http") as client:
        key = bearer(await shop.customer("ada", plan))
        await use(client, key, 100)
        await use(client, key, 50 if plan == "agents" else 70)
        before = await shop.ledger()
        writer.granted.clear()
        for used in (40, 0, 130):
            payment = paid(await offer(client, key))
            answer = await client.post("/v1/words", params={"used": used}, headers={**key, **payment})
            assert (answer.status_code, answer.json()) == (200, {"granted": 100})
            assert unpacked(answer.headers["payment-response"])["amount"] == str(min(used, 100) * CENT)
        assert writer.granted == [("x402", 100)] * 3
        assert (await shop.ledger())[len(before) :] == [x402(40), x402(0), x402(100)]
        assert [row[0] for row in await shop.sql("SELECT written_off FROM events ORDER BY seq")][-1] == 30
        # What was paid for took nothing of the plan, and gave nothing back to it.
        assert (await offer(client, key)).status_code == 402
        assert await shop.held() == 0


@pytest.mark.parametrize(
    ("plan", "second", "rows"),
    [
        ("agents", 50, [seat(50), seat(90)]),
        ("metered", 70, [seat(70), seat(80), overage(10)]),
    ],
    ids=["allowance", "cap"],
)
async def test_requests_at_work_share_what_is_left(
    plan: str, second: int, rows: list[Row], tmp_path: Path
) -> None:
    """Two at once hold all of it and a third is refused; what they did not use is there for the next.

    Booked in another order than they were held, they are split in the order in which they are booked.
    """
    writer = Writer(gates={"one": asyncio.Event(), "two": asyncio.Event()})
    async with opened_shop(tmp_path, app=writer, more=PLANS) as shop, client_of(shop.app, "http") as client:
        key = bearer(await shop.customer("ada", plan))
        one = asyncio.create_task(use(client, key, 90, gate="one"))
        await until(lambda: len(writer.granted) == 1)
        two = asyncio.create_task(use(client, key, second, gate="two"))
        await until(lambda: len(writer.granted) == 2)
        assert writer.granted == [("seat", 100), ("seat", second)]
        assert await shop.held() == 100 + second
        assert (await offer(client, key)).status_code == 402
        for gate, request in (("two", two), ("one", one)):
            writer.gates[gate].set()
            assert (await request).status_code == 200
        assert await shop.held() == 0
        assert await shop.ledger() == rows
        assert (await use(client, key, 1)).json() == {"granted": 10}


@pytest.mark.parametrize("status", [404, 500])
async def test_what_is_not_billed_gives_its_hold_back(status: int, tmp_path: Path) -> None:
    writer = Writer()
    async with opened_shop(tmp_path, app=writer, more=PLANS) as shop, client_of(shop.app, "http") as client:
        key = bearer(await shop.customer("ada", "metered"))
        await use(client, key, 100)
        assert (await use(client, key, 60, status=status)).json() == {"granted": 70}
        assert await shop.held() == 0
        assert (await use(client, key, 60)).json() == {"granted": 70}
        assert await shop.ledger() == [seat(100), seat(50), overage(10)]


async def test_a_negotiated_price_says_how_much_the_cap_buys(tmp_path: Path) -> None:
    """Seven words for 0.10 USD: 0.20 buys fourteen, and rows that are each rounded sum to it exactly."""
    writer = Writer()
    async with opened_shop(tmp_path, app=writer, more=PLANS) as shop, client_of(shop.app, "http") as client:
        key = bearer(await shop.customer("ada", "negotiated", negotiated=NEGOTIATED))
        for granted, used in ((17, 5), (12, 4), (8, 8)):
            assert (await use(client, key, used)).json() == {"granted": granted}
        refused = await client.post("/v1/words", headers=key)
        assert (refused.status_code, problem_of(refused)) == (429, "allowance_exhausted")
        rows = [overage(2, 28_572), overage(4, 57_142), overage(8, 114_286)]
        assert await shop.ledger() == [seat(3), *rows]
        assert sum(row.charged for row in rows) == 200_000


@pytest.mark.parametrize(
    ("who", "path"), [("nobody", "/unlisted"), ("customer", "/v1/doc"), ("payer", "/v1/doc")], ids=str
)
async def test_where_there_is_no_limit_nothing_is_granted(who: str, path: str, tmp_path: Path) -> None:
    """None: a route without a price, a plan that goes on for ever, a payment for one use at a fixed price."""
    writer = Writer()
    async with opened_shop(tmp_path, app=writer) as shop, client_of(shop.app, "http") as client:
        headers = {}
        if who == "customer":
            headers = bearer(await shop.customer("ada", "team"))
        elif who == "payer":
            headers = paid(await client.get(path))
        answer = await client.get(path, headers=headers)
        assert (answer.status_code, answer.json()) == (200, {"granted": None})
