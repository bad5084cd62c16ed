"""The requests of one run: of every kind, as the seed has it, and what must hold for each answer."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Sequence

import aiohttp

from tests.torture.customers import Customers
from tests.torture.fakechain import FakeChain
from tests.torture.outcome import CLIENTS, Answer, Outcome
from tests.torture.plan import KINDS, ON_CHAIN, Payers, Payment, malformed
from tests.torture.process import Call, Seller, send
from tests.torture.sold import CEILING, DOC, FIRST, FLOW, PLANS, WORDS
from tests.x402.buyer import PAY_TO

REMEMBERED = 400
UNSERVED = frozenset({"hung up", "streamed"})
"""Kinds whose answer may break off: the client goes, or the end of a stream is withheld."""
REPEATED = frozenset({"replayed", "elsewhere", "other body"})
"""Kinds that repeat a payment; as long as there is none to repeat a good one is made."""
EXPECTED = {
    "malformed": {400, 402},
    "invalid": {402},
    "unpaid": {402},
    "elsewhere": {409},
    "other body": {409},
    "unmeasured": {200, 402, 503},
}
UNMEASURED = ["n=1", "units=many", "units=-3", "units=1.5"]
Progress = Callable[[int], None]


class Torture:
    """The requests of one run."""

    def __init__(self, seed: int, requests: int, kills: int, vanish: int, progress: Progress) -> None:
        self.chance = random.Random(seed)
        self.outcome = Outcome(seed)
        self._kill_at = set(self.chance.sample(range(requests // 10, requests), kills))
        self._vanish_at = set(self.chance.sample(range(requests // 10, requests // 2 + 1), vanish))
        self._progress = progress
        self._payers = Payers(self.chance)
        self._numbers = iter(range(requests))
        self.customers = Customers(self.chance, self.outcome, requests)
        self.payments: dict[str, Payment] = {}
        self.uncharged: set[str] = set()  # payments for which nothing may ever be taken
        self.unmeasured: dict[
            str, bool
        ] = {}  # payments whose use nobody can tell, and whether they were served
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
            if kind in PLANS:
                await self._customer(kind, sellers, session)
            else:
                await self._payer(kind, sellers, session, chain)
            self._progress(number + 1)

    def _vanish(self, chain: FakeChain) -> None:
        """The chain reorganises one of the last transfers to the seller away."""
        young = [
            key for key, entry in chain.entries.items() if entry.to == PAY_TO.lower() and not entry.stray
        ]
        for key in young[-1:]:
            chain.vanish(key)
            self.vanished.add(key)

    async def _customer(self, plan: str, sellers: Sequence[Seller], session: aiohttp.ClientSession) -> None:
        """A customer, now and then with a payment too."""
        payment = [self._unused("n=1").header] if self.chance.random() < 0.1 else []
        await self.customers.ask(plan, self.chance.choice(sellers), session, payment)

    async def _payer(
        self, kind: str, sellers: Sequence[Seller], session: aiohttp.ClientSession, chain: FakeChain
    ) -> None:
        chance = self.chance
        seller = chance.choice(sellers)
        served = [each for each in self._recent if each.answers] if kind in REPEATED else []
        if kind == "unpaid":
            await self.ask(seller, session, kind, "", [])
        elif kind == "malformed":
            await self.ask(seller, session, kind, "", malformed(chance, self._unused("").header))
        elif kind == "invalid":
            change = chance.choice([{"value": 1}, {"validBefore": 5}, {"to": "0x" + "22" * 20}])
            await self.ask(seller, session, kind, "", [self._payers.sign("", **change).header])
        elif kind == "replayed" and self._recent:
            await self.ask_with(seller, session, kind, chance.choice(self._recent))
        elif kind == "elsewhere" and served:
            payment = chance.choice(served)
            await self.ask(seller, session, kind, payment.query + "&other=1", [payment.header], payment)
        elif kind == "other body" and (posted := [each for each in served if each.body is not None]):
            await self.ask_with(seller, session, kind, chance.choice(posted), b"another body")
        elif kind == "failing":
            query = chance.choice(["raise=1", "status=500", "status=404", "status=302"])
            await self.ask(seller, session, kind, query, [self._unused(query).header])
        elif kind == "unmeasured":
            payment = self._payers.permit(WORDS, chance.choice(UNMEASURED))
            self.unmeasured[payment.key] = await self.ask_with(seller, session, kind, payment) == 200
        elif kind == "hung up":
            payment = self._fresh(self._payers.sign("slow=0.05"))
            await self.ask_with(seller, session, kind, payment, patience_s=chance.random() / 10)
        elif kind in ON_CHAIN:
            await self._on_chain(kind, seller, session, chain)
        else:
            kind = "good" if kind in REPEATED else kind
            payment = self._fresh(self._signed(kind))
            copies = chance.randrange(2, 6) if kind == "copies" else 1
            asking_all = (
                self.ask_with(chance.choice(sellers), session, kind, payment) for _ in range(copies)
            )
            await asyncio.gather(*asking_all)

    async def _on_chain(
        self, kind: str, seller: Seller, session: aiohttp.ClientSession, chain: FakeChain
    ) -> None:
        payment = self._fresh(self._payers.sign("slow=0.1"))
        asking = self.ask_with(seller, session, kind, payment)
        await asyncio.gather(asking, self._act(kind, chain, payment))
        while kind == "settled by others" and not payment.answers:  # who has paid comes back in time
            await asyncio.sleep(0.2)
            status = await self.ask_with(seller, session, kind, payment)
            if status == 402:  # its first request came to nothing, and by the next it had been spent
                self.spent_elsewhere.add(payment.key)
                break

    def _signed(self, kind: str) -> Payment:
        """A payment for an action of that kind."""
        chance, payers = self.chance, self._payers
        if kind == "copies":
            kind = chance.choice(["good", "measured", "prepaid", "posted"])
        if kind in ("measured", "streamed"):
            units = chance.choice([0, 1, 7, 64, CEILING, CEILING + 20])
            return payers.permit(WORDS if kind == "measured" else FLOW, f"units={units}")
        if kind == "prepaid":
            return payers.sign(chance.choice(["sometimes=1", "n=1"]), FIRST)
        if kind == "posted":
            path = chance.choice([DOC, WORDS, FIRST])
            payment = payers.permit(path, "units=7") if path == WORDS else payers.sign("n=1", path)
            payment.body = chance.randbytes(chance.choice([0, 1, 20, 400])).hex().encode()
            return payment
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
        """One that is to be served; it is repeated now and then, as long as it is remembered."""
        self.payments[payment.key] = payment
        self._recent.append(payment)
        for old in self._recent[:-REMEMBERED]:
            if old.answers:
                old.forget()
        del self._recent[:-REMEMBERED]
        return payment

    def _unused(self, query: str) -> Payment:
        """A payment that is good, and for a request that costs nothing in the end."""
        payment = self._payers.sign(query)
        self.uncharged.add(payment.key)
        return payment

    async def ask_with(
        self,
        seller: Seller,
        session: aiohttp.ClientSession,
        kind: str,
        payment: Payment,
        body: bytes | None = None,
        patience_s: float = 30,
    ) -> int:
        """The request that a payment is for, or the same one with another body."""
        given = payment.body if body is None else body
        return await self.ask(
            *(seller, session, kind, payment.query, [payment.header], payment, given), patience_s=patience_s
        )

    async def ask(
        self,
        seller: Seller,
        session: aiohttp.ClientSession,
        kind: str,
        query: str,
        values: list[str],
        payment: Payment | None = None,
        body: bytes | None = None,
        patience_s: float = 30,
    ) -> int:
        """One request; its status, 0 where none came. What is wrong with the answer is noted."""
        path = DOC if payment is None else payment.path
        headers = [("PAYMENT-SIGNATURE", value) for value in values]
        call = Call(kind, f"{path}?{query}", headers, body, kind in UNSERVED or path == FLOW, patience_s)
        answer = await send(session, seller, call, self.outcome)
        if answer is None:
            return 0
        self._judge(kind, query, answer, payment, body or b"")
        return answer.status

    def _judge(self, kind: str, query: str, answer: Answer, payment: Payment | None, body: bytes) -> None:
        status = answer.status
        told = kind == "failing" and ("raise" in query or str(status) in query)
        told = told or (status == 500 and "sometimes" in query and "payment-response" in answer.headers)
        if status >= 500 and not told:
            self.outcome.failed(kind, answer)
        reorganised = (
            payment is not None and payment.key in self.vanished and answer.code == "payment_pending"
        )
        if status not in EXPECTED.get(kind, {status}) and not reorganised:
            self.outcome.wrong(f"{kind}: {status} {answer.code}")
            self.suspects.update([] if payment is None else [payment.key])
        if answer.good:
            self._served(kind, answer, payment, body)

    def _served(self, kind: str, answer: Answer, payment: Payment | None, body: bytes) -> None:
        """An answer that is paid for: the payment's own, always the same, and to the body that was sent."""
        if payment is None:
            self.outcome.wrong(f"{kind}: served ({answer.status})")
            return
        flows = payment.path == FLOW
        if ("headgate-receipt" if flows else "payment-response") not in answer.headers:
            self.outcome.wrong(f"{kind}: served without a receipt")
        elif kind not in EXPECTED:
            payment.answers.add(hashlib.sha256(answer.body).digest())
        if not flows and b'"body":"' + body + b'"' not in answer.body:
            self.outcome.wrong(f"{kind}: served the answer to another body for {payment.key}")
