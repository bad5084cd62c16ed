"""One run: two processes of a seller, the faulty world around them, requests of every kind, then the audit.

The processes share a store; one or the other is killed at random and started again, and transfers vanish from
the chain. When all requests were made and recovery has ended: no payment is charged twice, no transfer is
without its event, nothing was served that is not paid for and kept, each use of a customer is booked once in
its channel, and no answer was a 5xx that is not Headgate's on purpose.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from headgate.app import clock_us
from tests.torture.asking import Progress, Torture
from tests.torture.audit import audit, rows
from tests.torture.fakechain import FakeChain
from tests.torture.outcome import Outcome
from tests.torture.plan import FaultyFacilitator
from tests.torture.process import Seller
from tests.torture.sold import FLOW, WORDS, configuration
from tests.web.shop import serving
from tests.x402.buyer import PAY_TO


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
        text = configuration(store, facilitator.url, rpc, requests)
        await asyncio.to_thread(config.write_text, text)
        await torture.customers.sign_up(config, clock_us)
        sellers = [Seller(config, "a", seed), Seller(config, "b", seed)]
        for seller in sellers:
            stack.push_async_callback(seller.kill)
        # Let go of before uvicorn does (5 s), which would meet a request that is not sent again: a POST.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2)
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
        await torture.customers.use_up(sellers[1], session)
        await _until_resolved(store, torture.outcome)
    tell("the audit: the books against the chain and against what payers saw")
    await audit(torture, chain, store)
    return torture.outcome


@asynccontextmanager
async def _node(chain: FakeChain) -> AsyncIterator[str]:
    async def rpc(request: Request) -> Response:
        return JSONResponse(chain.answer(await request.json()))

    async with serving(Starlette(routes=[Route("/rpc", rpc, methods=["POST"])])) as url:
        yield url + "/rpc"


async def _until_resolved(store: Path, outcome: Outcome, patience_s: int = 150) -> None:
    """Recovery has ended: no payment is open any more."""
    until = time.monotonic() + patience_s
    statement = "SELECT state, COUNT(*) FROM payments WHERE state IN (1, 2, 3, 4, 7, 10) GROUP BY state"
    while left := await asyncio.to_thread(rows, store, statement):
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
    while (left := (await asyncio.to_thread(rows, store, statement))[0][0]) > 0:
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
            status = await torture.ask_with(seller, session, "collected", payment)
            if status != 500:
                break
        used = status == 409 and (payment.path == FLOW or time.time() - payment.signed_s > 800)
        if status != 200 and not used:
            torture.outcome.wrong(f"paid with {key} and not served: {status}")
