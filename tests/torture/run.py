"""One run: a seller's process, the faulty world around it, requests of every kind, and then the audit.

The seller is killed at random and started again. When all requests were made and recovery has ended: no
payment is charged twice, no transfer is without its event, nothing was served that is not paid for and kept,
and no answer was a 5xx that is not Headgate's on purpose.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from multidict import CIMultiDict
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from headgate.app import clock_us
from headgate.model.calendar import AccountingCalendar
from headgate.service.verify import verify
from headgate.store.sqlite import SqliteDriver
from tests.torture.fakechain import FakeChain
from tests.torture.plan import KINDS, FaultyFacilitator, Payers, Payment, malformed
from tests.web.shop import serving
from tests.x402.buyer import PAY_TO

ROOT = Path(__file__).parents[2]
CLIENTS = 24
REMEMBERED = 400
CONFIG = """mode = "test"
[seller]
name = "Acme"
public_url = "https://api.example.com"
[store]
url = "sqlite:///{store}"
[x402]
pay_to = "{pay_to}"
network = "base-sepolia"
facilitator = "{facilitator}"
rpc_url = "{rpc}"
[actions."doc.read"]
title = "Document read"
unit = "document"
price = "0.10"
routes = ["GET /v1/doc", "POST /v1/doc"]
"""
ON_PURPOSE = {
    (502, "settlement_unverified"),
    (503, "payment_pending"),
    (503, "facilitator_unavailable"),
    (503, "offers_not_ready"),
    (503, "store_unavailable"),
}
Progress = Callable[[int], None]


@dataclass
class Outcome:
    """What a run saw, and every way in which it was wrong."""

    seed: int
    answers: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    kills: int = 0
    transfers: int = 0
    states: dict[int, int] = field(default_factory=dict)

    def wrong(self, what: str) -> None:
        if len(self.faults) < 50:
            self.faults.append(what)


class Seller:
    """The seller's process, whichever life it is in."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._process: asyncio.subprocess.Process | None = None
        self._changing = asyncio.Lock()
        self.up = asyncio.Event()
        self.url = ""
        self.lives = 0

    async def die_and_rise(self) -> None:
        """Killed in the middle of everything, and started again."""
        async with self._changing:
            await self.kill()
            await self.start()

    async def start(self) -> None:
        command = (sys.executable, "-m", "tests.torture.seller", str(self._config))
        self._process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            self.url = (await self._process.stdout.readline()).decode().strip()
        if not self.url.startswith("http"):
            raise RuntimeError("the seller's process did not start")
        self.lives += 1
        self.up.set()

    async def kill(self) -> None:
        self.up.clear()
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()


class Torture:
    """The requests of one run."""

    def __init__(self, seed: int, requests: int, kills: int, progress: Progress) -> None:
        self.chance = random.Random(seed)
        self.outcome = Outcome(seed)
        self._requests = requests
        self._kill_at = set(self.chance.sample(range(requests // 10, requests), kills))
        self._progress = progress
        self._payers = Payers(self.chance)
        self._numbers = iter(range(requests))
        self.payments: dict[str, Payment] = {}
        self._recent: list[Payment] = []

    async def send_all(self, seller: Seller, session: aiohttp.ClientSession) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._client(seller, session))

    async def _client(self, seller: Seller, session: aiohttp.ClientSession) -> None:
        for number in self._numbers:
            if number in self._kill_at:
                self.outcome.kills += 1
                await seller.die_and_rise()
            (kind,) = self.chance.choices(list(KINDS), list(KINDS.values()))
            await self._one(kind, seller, session)
            self._progress(number + 1)

    async def _one(self, kind: str, seller: Seller, session: aiohttp.ClientSession) -> None:
        chance = self.chance
        if kind == "unpaid":
            await self.ask(seller, session, kind, "", [])
        elif kind == "malformed":
            values = malformed(chance, self._payers.sign("").header)
            await self.ask(seller, session, kind, "", values)
        elif kind == "invalid":
            change = chance.choice([{"value": 1}, {"validBefore": 5}, {"to": "0x" + "22" * 20}])
            await self.ask(seller, session, kind, "", [self._payers.sign("", **change).header])
        elif kind == "replayed" and self._recent:
            payment = chance.choice(self._recent)
            await self.ask(seller, session, kind, payment.query, [payment.header], payment)
        elif kind == "elsewhere" and (served := [each for each in self._recent if each.answers]):
            payment = chance.choice(served)
            await self.ask(seller, session, kind, "other=1", [payment.header], payment)
        elif kind == "failing":
            query = chance.choice(["raise=1", "status=500", "status=404", "status=302"])
            payment = self._payers.sign(query)
            await self.ask(seller, session, kind, query, [payment.header])
        elif kind == "hung up":
            payment = self._fresh("slow=1")
            await self.ask(
                seller, session, kind, "slow=1", [payment.header], payment, patience_s=chance.random() / 10
            )
        else:
            payment = self._fresh(f"n={chance.randrange(1000)}")
            kind, copies = (kind, chance.randrange(2, 6)) if kind == "copies" else ("good", 1)
            asking = (
                self.ask(seller, session, kind, payment.query, [payment.header], payment)
                for _ in range(copies)
            )
            await asyncio.gather(*asking)

    def _fresh(self, query: str) -> Payment:
        payment = self._payers.sign(query)
        self.payments[payment.nonce] = payment
        self._recent.append(payment)
        del self._recent[:-REMEMBERED]
        return payment

    async def ask(
        self,
        seller: Seller,
        session: aiohttp.ClientSession,
        kind: str,
        query: str,
        values: list[str],
        payment: Payment | None = None,
        patience_s: float = 30,
    ) -> int:
        """One request; its status, 0 where none came. What is wrong with the answer is noted."""
        headers = CIMultiDict([("PAYMENT-SIGNATURE", value) for value in values])
        await seller.up.wait()
        life = seller.lives
        try:
            async with asyncio.timeout(patience_s):
                async with session.get(
                    f"{seller.url}/v1/doc?{query}", headers=headers, allow_redirects=False
                ) as answer:
                    body = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if kind != "hung up" and life == seller.lives and seller.up.is_set():
                self.outcome.wrong(f"{kind}: no answer ({type(error).__name__})")
            self.outcome.answers[f"{kind}: none"] += 1
            return 0
        self.outcome.answers[f"{kind}: {answer.status}"] += 1
        self._judge(kind, query, answer, body, payment)
        return answer.status

    def _judge(
        self, kind: str, query: str, answer: aiohttp.ClientResponse, body: bytes, payment: Payment | None
    ) -> None:
        status = answer.status
        told = kind == "failing" and ("raise" in query or str(status) in query)
        if status >= 500 and not told:
            code = _code(answer, body)
            if (status, code) not in ON_PURPOSE:
                self.outcome.wrong(f"{kind}: {status} {code or body[:80]!r} is not ours on purpose")
        if 200 <= status < 300:
            if payment is None or kind == "elsewhere":
                self.outcome.wrong(f"{kind}: served ({status})")
            elif "payment-response" not in answer.headers:
                self.outcome.wrong(f"{kind}: served without a receipt")
            else:
                payment.answers.add(body)
        expected = {"malformed": {400, 402}, "invalid": {402}, "unpaid": {402}, "elsewhere": {409}}
        if status not in expected.get(kind, {status}):
            self.outcome.wrong(f"{kind}: {status}")


def _code(answer: aiohttp.ClientResponse, body: bytes) -> str:
    if answer.headers.get("content-type") != "application/problem+json":
        return ""
    import json

    return str(json.loads(body).get("code", ""))


async def run(
    folder: Path, *, seed: int, requests: int, kills: int, progress: Progress = lambda _n: None
) -> Outcome:
    """Everything, in `folder`; the outcome, with nothing wrong if all is well."""
    store = folder / "headgate.db"
    chain = FakeChain(clock_us)
    torture = Torture(seed, requests, kills, progress)
    async with AsyncExitStack() as stack:
        facilitator = await stack.enter_async_context(FaultyFacilitator(chain, seed))
        rpc = await stack.enter_async_context(_node(chain))
        config = folder / "headgate.toml"
        text = CONFIG.format(store=store, pay_to=PAY_TO, facilitator=facilitator.url, rpc=rpc)
        await asyncio.to_thread(config.write_text, text)
        seller = Seller(config)
        stack.push_async_callback(seller.kill)
        connector = aiohttp.TCPConnector(limit=0, force_close=False)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        await seller.start()
        await torture.send_all(seller, session)
        facilitator.faulty = False
        await _until_resolved(store, torture.outcome)
        await _collect(torture, chain, seller, session)
        await _until_resolved(store, torture.outcome)
    await _audit(torture, chain, store)
    return torture.outcome


@asynccontextmanager
async def _node(chain: FakeChain) -> AsyncIterator[str]:
    async def rpc(request: Request) -> Response:
        return JSONResponse(chain.answer(await request.json()))

    async with serving(Starlette(routes=[Route("/rpc", rpc, methods=["POST"])])) as url:
        yield url + "/rpc"


def _rows(store: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(store, timeout=30)) as opened:
        return opened.execute(statement).fetchall()


async def _until_resolved(store: Path, outcome: Outcome, patience_s: int = 150) -> None:
    """Recovery has ended: no payment is open any more."""
    until = time.monotonic() + patience_s
    statement = "SELECT state, COUNT(*) FROM payments WHERE state IN (1, 2, 3, 4, 7, 10) GROUP BY state"
    while left := await asyncio.to_thread(_rows, store, statement):
        if time.monotonic() > until:
            outcome.wrong(f"payments are still open: {left}")
            return
        await asyncio.sleep(0.25)


async def _collect(
    torture: Torture, chain: FakeChain, seller: Seller, session: aiohttp.ClientSession
) -> None:
    """Whoever has paid and saw no answer asks again, and gets it."""
    for nonce in list(chain.entries):
        payment = torture.payments.get(nonce)
        if payment is None or payment.answers:
            continue
        status = await torture.ask(seller, session, "collected", payment.query, [payment.header], payment)
        if status != 200 and not (status == 409 and time.time() - payment.signed_s > 800):
            torture.outcome.wrong(f"paid with {nonce} and not served: {status}")


async def _audit(torture: Torture, chain: FakeChain, store: Path) -> None:
    """The books against the chain and against what payers saw."""
    outcome = torture.outcome
    driver = SqliteDriver(store)
    try:
        found = await verify(driver, calendar=AccountingCalendar("UTC"))
        outcome.faults += [f"verify: {each.where}: {each.what}" for each in found.differences[:20]]
    finally:
        await driver.close()
    payments = await asyncio.to_thread(
        _rows, store, "SELECT nonce, state, tx, event_slot, event_seq, id FROM payments"
    )
    events = await asyncio.to_thread(_rows, store, "SELECT payment, kind, charged_micros, tx FROM events")
    outcome.states = dict(Counter(int(row[1]) for row in payments))
    uses: Counter[bytes] = Counter()
    charged: Counter[bytes] = Counter()
    for payment, kind, amount, _tx in events:
        uses[payment] += {1: 1, 4: -1}[kind]
        charged[payment] += amount
    paid = {nonce: entry for nonce, entry in chain.entries.items() if entry.to == PAY_TO.lower()}
    outcome.transfers = len(paid)
    if sum(charged.values()) != sum(entry.value for entry in paid.values()):
        total = sum(entry.value for entry in paid.values())
        outcome.wrong(f"charged {sum(charged.values())} micro-dollars, transferred {total}")
    known = {"0x" + row[0].hex(): row for row in payments}
    for nonce, entry in paid.items():
        row = known.get(nonce)
        if row is None or row[1] not in (5, 9) or "0x" + (row[2] or b"").hex() != entry.transaction:
            outcome.wrong(f"{nonce} was transferred in {entry.transaction} and is {row and row[1]}")
        elif uses[row[5]] != 1 or charged[row[5]] != entry.value:
            outcome.wrong(f"{nonce} has {uses[row[5]]} events over {charged[row[5]]} micro-dollars")
    for nonce, row in known.items():
        if nonce not in paid and (row[1] not in (6, 7, 8) or uses[row[5]]):
            outcome.wrong(
                f"{nonce} is in state {row[1]} with {uses[row[5]]} events and was never transferred"
            )
    for nonce, one in torture.payments.items():
        if one.answers and nonce not in paid:
            outcome.wrong(f"{nonce} was served and is not paid")
        if len(one.answers) > 1:
            outcome.wrong(f"{nonce} was served {len(one.answers)} different answers")
