"""One run: two processes of a seller, the faulty world around them, requests of every kind, then the audit.

The processes share a store; one or the other is killed at random and started again, and transfers vanish from
the chain. When all requests were made and recovery has ended: no payment is charged twice, no transfer is
without its event, nothing was served that is not paid for and kept, and no answer was a 5xx that is not
Headgate's on purpose.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

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
from tests.torture.fakechain import Entry, FakeChain, permit_key
from tests.torture.plan import (
    CEILING,
    DOC,
    FIRST,
    FLOW,
    KINDS,
    ON_CHAIN,
    WORDS,
    FaultyFacilitator,
    Payers,
    Payment,
    malformed,
)
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
[actions."doc.first"]
title = "Paid first"
unit = "document"
price = "0.10"
settle = "before"
routes = ["GET /v1/first"]
[actions."words"]
title = "Words"
unit = "word"
price = "0.001"
max_units = 100
measure = "header"
routes = ["GET /v1/words"]
[actions."flow"]
title = "A stream"
unit = "byte"
price = "0.001"
max_units = 100
measure = "bytes"
stream = true
routes = ["GET /v1/flow"]
"""
ON_PURPOSE = {
    (502, "settlement_unverified"),
    (503, "payment_pending"),
    (503, "facilitator_unavailable"),
    (503, "offers_not_ready"),
    (503, "store_unavailable"),
    (500, "paid_work_failed"),
}
UNSERVED = {"hung up", "streamed"}
"""Kinds whose answer may break off: the client goes, or the end of a stream is withheld."""
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

    def __init__(self, seed: int, requests: int, kills: int, vanish: int, progress: Progress) -> None:
        self.chance = random.Random(seed)
        self.outcome = Outcome(seed)
        self._requests = requests
        self._kill_at = set(self.chance.sample(range(requests // 10, requests), kills))
        self._vanish_at = set(self.chance.sample(range(requests // 10, requests // 2 + 1), vanish))
        self._progress = progress
        self._payers = Payers(self.chance)
        self._numbers = iter(range(requests))
        self.payments: dict[str, Payment] = {}
        self.vanished: set[str] = set()
        self.spent_elsewhere: set[str] = set()  # settled by others before they opened any work
        self.suspects: set[str] = set()  # payments whose timeline is told with what is wrong
        self._recent: list[Payment] = []

    async def send_all(
        self, sellers: Sequence[Seller], session: aiohttp.ClientSession, chain: FakeChain
    ) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._client(sellers, session, chain))

    async def _client(
        self, sellers: Sequence[Seller], session: aiohttp.ClientSession, chain: FakeChain
    ) -> None:
        for number in self._numbers:
            if number in self._kill_at:
                self.outcome.kills += 1
                await self.chance.choice(sellers).die_and_rise()
            if number in self._vanish_at:
                self._vanish(chain)
            (kind,) = self.chance.choices(list(KINDS), list(KINDS.values()))
            await self._one(kind, sellers, session, chain)
            self._progress(number + 1)

    def _vanish(self, chain: FakeChain) -> None:
        """The chain reorganises one of the last transfers to the seller away."""
        young = [
            key for key, entry in chain.entries.items() if entry.to == PAY_TO.lower() and not entry.stray
        ]
        for key in young[-1:]:
            chain.vanish(key)
            self.vanished.add(key)

    async def _one(
        self, kind: str, sellers: Sequence[Seller], session: aiohttp.ClientSession, chain: FakeChain
    ) -> None:
        chance = self.chance
        seller = chance.choice(sellers)
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
            await self.ask(seller, session, kind, payment.query + "&other=1", [payment.header], payment)
        elif kind == "failing":
            query = chance.choice(["raise=1", "status=500", "status=404", "status=302"])
            payment = self._payers.sign(query)
            await self.ask(seller, session, kind, query, [payment.header])
        elif kind == "hung up":
            payment = self._fresh(self._payers.sign("slow=0.05"))
            await self.ask(
                *(seller, session, kind, payment.query, [payment.header], payment),
                patience_s=chance.random() / 10,
            )
        elif kind in ON_CHAIN:
            payment = self._fresh(self._payers.sign("slow=0.1"))
            asking = self.ask(seller, session, kind, payment.query, [payment.header], payment)
            await asyncio.gather(asking, self._act(kind, chain, payment))
            while kind == "settled by others" and not payment.answers:  # who has paid comes back in time
                await asyncio.sleep(0.2)
                status = await self.ask(seller, session, kind, payment.query, [payment.header], payment)
                if status == 402:  # its first request came to nothing, and by the next it had been spent
                    self.spent_elsewhere.add(payment.key)
                    break
        else:
            kind = "good" if kind in ("replayed", "elsewhere") else kind  # as long as there is none to repeat
            payment = self._fresh(self._signed(kind))
            kind, copies = (kind, chance.randrange(2, 6)) if kind == "copies" else (kind, 1)
            asking_all = (
                self.ask(chance.choice(sellers), session, kind, payment.query, [payment.header], payment)
                for _ in range(copies)
            )
            await asyncio.gather(*asking_all)

    def _signed(self, kind: str) -> Payment:
        """A payment for an action of that kind."""
        chance, payers = self.chance, self._payers
        if kind == "copies":
            kind = chance.choice(["good", "measured", "prepaid"])
        if kind in ("measured", "streamed"):
            units = chance.choice([0, 1, 7, 64, CEILING, CEILING + 20])
            return payers.permit(WORDS if kind == "measured" else FLOW, f"units={units}")
        if kind == "prepaid":
            return payers.sign(chance.choice(["sometimes=1", "n=1"]), FIRST)
        return payers.sign(f"n={chance.randrange(1000)}")

    async def _act(self, kind: str, chain: FakeChain, payment: Payment) -> None:
        """Something happens on the chain while the work is done."""
        await asyncio.sleep(0.05)
        if kind == "canceled":
            chain.cancel(payment.message)
        elif kind == "underpaid":
            chain.pay(payment.message, value=1)
        else:
            chain.pay(payment.message)

    def _fresh(self, payment: Payment) -> Payment:
        self.payments[payment.key] = payment
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
                path = DOC if payment is None else payment.path
                async with session.get(
                    f"{seller.url}{path}?{query}", headers=headers, allow_redirects=False
                ) as answer:
                    body = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            flows = payment is not None and payment.path == FLOW
            if kind not in UNSERVED and not flows and life == seller.lives and seller.up.is_set():
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
        told = told or (status == 500 and "sometimes" in query and "payment-response" in answer.headers)
        flows = payment is not None and payment.path == FLOW
        if status >= 500 and not told:
            code = _code(answer, body)
            if (status, code) not in ON_PURPOSE:
                self.outcome.wrong(f"{kind}: {status} {code or body[:80]!r} is not ours on purpose")
        if 200 <= status < 300:
            if payment is None or kind == "elsewhere":
                self.outcome.wrong(f"{kind}: served ({status}) {'' if payment is None else payment.key}")
                self.suspects.update([] if payment is None else [payment.key])
            elif ("headgate-receipt" if flows else "payment-response") not in answer.headers:
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
    folder: Path,
    *,
    seed: int,
    requests: int,
    kills: int,
    vanish: int = 0,
    progress: Progress = lambda _n: None,
    tell: Callable[[str], None] = lambda _step: None,
) -> Outcome:
    """Everything, in `folder`; the outcome, with nothing wrong if all is well.

    `progress` is told how many requests were made, `tell` what is waited for afterwards. `vanish` transfers
    are reorganised away; what became of them takes minutes to be found out.
    """
    store = folder / "headgate.db"
    chain = FakeChain(clock_us)
    torture = Torture(seed, requests, kills, vanish, progress)
    async with AsyncExitStack() as stack:
        facilitator = await stack.enter_async_context(FaultyFacilitator(chain, seed))
        rpc = await stack.enter_async_context(_node(chain))
        config = folder / "headgate.toml"
        text = CONFIG.format(store=store, pay_to=PAY_TO, facilitator=facilitator.url, rpc=rpc)
        await asyncio.to_thread(config.write_text, text)
        sellers = [Seller(config), Seller(config)]
        for seller in sellers:
            stack.push_async_callback(seller.kill)
        connector = aiohttp.TCPConnector(limit=0, force_close=False)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        for seller in sellers:
            await seller.start()
        await _until_offered(sellers, session)
        await torture.send_all(sellers, session, chain)
        facilitator.faulty = False
        tell("recovery: until no payment is open")
        await _until_resolved(store, torture.outcome)
        tell(f"the watch: until {len(chain.vanished)} reorganised transfers were noticed (some minutes)")
        await _until_noticed(store, chain, torture.outcome)
        await _until_resolved(store, torture.outcome)
        tell("payers: whoever has paid and saw no answer asks again")
        await _collect(torture, chain, sellers[0], session)
        await _until_resolved(store, torture.outcome)
    tell("the audit: the books against the chain and against what payers saw")
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


async def _until_offered(sellers: Sequence[Seller], session: aiohttp.ClientSession) -> None:
    """The facilitator has said which account settles `upto`."""
    for seller in sellers:
        while True:
            async with session.get(f"{seller.url}{WORDS}") as answer:
                if answer.status == 402:
                    break
            await asyncio.sleep(0.05)


async def _until_noticed(store: Path, chain: FakeChain, outcome: Outcome, patience_s: int = 700) -> None:
    """No payment stands as settled by a transfer that vanished."""
    until = time.monotonic() + patience_s
    gone = ", ".join(f"x'{entry.transaction[2:]}'" for entry in chain.vanished)
    statement = f"SELECT COUNT(*) FROM payments WHERE state = 5 AND tx IN ({gone})"
    while (left := (await asyncio.to_thread(_rows, store, statement))[0][0]) > 0:
        if time.monotonic() > until:
            outcome.wrong(f"{left} of {len(chain.vanished)} vanished transfers were not noticed")
            return
        await asyncio.sleep(1)


async def _collect(
    torture: Torture, chain: FakeChain, seller: Seller, session: aiohttp.ClientSession
) -> None:
    """Whoever has paid and saw no answer asks again, and gets it."""
    for key, entry in list(chain.entries.items()):
        payment = torture.payments.get(key)
        if payment is None or payment.answers or entry.stray or entry.to != PAY_TO.lower():
            continue
        if key in torture.spent_elsewhere:
            continue
        for _ in range(60):  # work that fails now and then is owed until it was done
            status = await torture.ask(seller, session, "collected", payment.query, [payment.header], payment)
            if status != 500:
                break
        used = status == 409 and (payment.path == FLOW or time.time() - payment.signed_s > 800)
        if status != 200 and not used:
            torture.outcome.wrong(f"paid with {key} and not served: {status}")


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
        *(_rows, store),
        "SELECT p.payer, p.nonce, r.scheme, p.state, p.tx, p.id, p.charged_micros FROM payments p "
        "JOIN rails r ON r.id = p.rail",
    )
    events = await asyncio.to_thread(_rows, store, "SELECT payment, kind, charged_micros, tx FROM events")
    outcome.states = dict(Counter(int(row[3]) for row in payments))
    uses: Counter[bytes] = Counter()
    charged: Counter[bytes] = Counter()
    for payment, kind, amount, _tx in events:
        uses[payment] += {1: 1, 4: -1}[kind]
        charged[payment] += amount
    known = {_key(*row[:3]): _Known(*row[3:]) for row in payments}
    released = {key for key in torture.spent_elsewhere & known.keys() if known[key].state == 8}
    paid = {
        key: entry
        for key, entry in chain.entries.items()
        if entry.to == PAY_TO.lower() and not entry.stray and key not in released
    }
    outcome.transfers = len(paid)
    if sum(charged.values()) != sum(entry.value for entry in paid.values()):
        total = sum(entry.value for entry in paid.values())
        outcome.wrong(f"charged {sum(charged.values())} micro-dollars, transferred {total}")
    for key, entry in paid.items():
        row = known.get(key)
        if row is None or row.state not in (5, 9) or "0x" + (row.tx or b"").hex() != entry.transaction:
            outcome.wrong(f"{key} was transferred in {entry.transaction} and is {row}")
        elif uses[row.id] != 1 or charged[row.id] != entry.value:
            outcome.wrong(f"{key} has {uses[row.id]} events over {charged[row.id]} micro-dollars")
    for key, row in known.items():
        nothing_used = row.state == 5 and row.charged == 0 and uses[row.id] == 1
        if key not in paid and not nothing_used and (row.state not in (6, 7, 8) or uses[row.id]):
            outcome.wrong(f"{key} is in state {row.state} with {uses[row.id]} events, never transferred")
    _audit_answers(torture, known, paid)
    steps = await asyncio.to_thread(_rows, store, "SELECT payment, at_us, state, note FROM payment_steps")
    for key in torture.suspects & known.keys():
        outcome.wrong(f"{key}: {sorted(step[1:] for step in steps if step[0] == known[key].id)}")


def _audit_answers(torture: Torture, known: dict[str, _Known], paid: dict[str, Entry]) -> None:
    """What payers saw, against what was paid."""
    outcome = torture.outcome
    for key, one in torture.payments.items():
        free = key in known and known[key].state == 5 and known[key].charged == 0
        if one.answers and key not in paid and not free and key not in torture.vanished:
            outcome.wrong(f"{key} was served and is not paid")
        if len(one.answers) > 1:
            outcome.wrong(f"{key} was served {len(one.answers)} different answers")


class _Known(NamedTuple):
    """A payment's row."""

    state: int
    tx: bytes | None
    id: bytes
    charged: int


def _key(payer: bytes, nonce: bytes, scheme: str) -> str:
    if scheme == "exact":
        return "0x" + nonce.hex()
    return permit_key("0x" + payer.hex(), int.from_bytes(nonce, "big"))
