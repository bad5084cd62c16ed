"""The demo's stage: a temporary store, the document API behind Headgate and once more bare, a chain, a cast.

Everything is real and on loopback: two uvicorn servers on free ports, SQLite on disk, Headgate's own keys,
the embedded facilitator with its chain of play money. Nothing is left behind.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import uvicorn

from headgate.app import Headgate, clock_us
from headgate.config import load
from headgate.demo.calls import Line, connections
from headgate.demo.documents_api import create_app
from headgate.devnet import DevChain, EmbeddedFacilitator
from headgate.devnet.wallets import Wallet, derive
from headgate.model.errors import InputError
from headgate.overage.use import OverageUse
from headgate.service.customers import create_customer
from headgate.service.keys import create_key, revoke_key
from headgate.service.subscribe import Agreement, create_subscription
from headgate.store.registry import Registry
from headgate.x402.facilitator import GuardedFacilitator, InProcessFacilitator

HOST: Final = "127.0.0.1"
TEAM: Final = "northwind"
STARTER: Final = "contoso"
INCLUDED: Final = {
    (TEAM, "documents.process"): 20,  # 10 for each of 2 seats
    (TEAM, "documents.summarise"): 4,
    (STARTER, "documents.process"): 3,
}
_QUIET_BEFORE_MONTH_END: Final = timedelta(hours=2)

CONFIG: Final = """\
# Acme Documents, as `headgate demo` sells it. This directory is gone when the demo ends.
mode = "test"

[seller]
name       = "Acme Documents"
public_url = {url}
time_zone  = {zone}

[store]
url = {store}

[x402]
pay_to      = {pay_to}
network     = "base-sepolia"
facilitator = "embedded"                      # play money, in the demo's own memory

[actions."documents.process"]
title  = "Document processed"
unit   = "document"
price  = "0.10"
routes = ["POST /v1/documents/process"]

[actions."documents.summarise"]
title  = "Document summarised"
unit   = "summary"
price  = "0.25"
routes = ["POST /v1/documents/summarise"]

[routes]
free = ["GET /healthz", "GET /v1/documents/formats"]

[plans.team]
title             = "Team"
included_per_seat = {{ "documents.process" = 10, "documents.summarise" = 2 }}
beyond            = "overage"

[plans.starter]
title             = "Starter"
included_per_seat = {{ "documents.process" = 3 }}
beyond            = "overage"
"""


@dataclass(frozen=True, slots=True)
class Key:
    """One of Headgate's API keys and whose it is; `seat` is "" for a key of the whole customer."""

    key_id: str
    secret: str = field(repr=False)
    customer: str
    seat: str


@dataclass(slots=True)
class Stage:
    """What the story is played on. `month` is the accounting month it runs in (`2026-11`).

    `delivered` is the seller's own billing: what `gate.on_overage` was handed so far.
    """

    gate: Headgate
    chain: DevChain
    config_path: Path
    month: str
    gated: Line
    bare: Line
    ada: Key
    ben: Key
    contoso: Key
    seller: Wallet
    penniless: Wallet
    delivered: list[OverageUse]

    def balances(self) -> dict[str, int]:
        """What everybody on the chain has, in micro-dollars, by address."""
        wallets = (*self.chain.wallets, self.seller, self.penniless)
        return {wallet.address: self.chain.balance_of(wallet.address) for wallet in wallets}

    @property
    def agent(self) -> Wallet:
        """The agent that pays."""
        return self.chain.wallets[0]

    @property
    def cheat(self) -> Wallet:
        """The agent that tries not to."""
        return self.chain.wallets[1]

    @property
    def registry(self) -> Registry:
        """Customers, contracts and keys."""
        assert self.gate.store is not None
        return self.gate.store.registry

    async def revoke(self, key: Key) -> None:
        """What `headgate keys revoke KEY_ID` does."""
        await revoke_key(self.registry, key.key_id, now_us=clock_us())


@asynccontextmanager
async def open_stage() -> AsyncIterator[Stage]:
    """Set everything up, and take it down again. Raises InputError where this machine has no place for it."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headgate-demo-")))
        gated_at, bare_at = stack.enter_context(_listening()), stack.enter_context(_listening())
        seller = derive("seller")
        zone = zone_for(datetime.now(UTC))
        config_path = directory / "headgate.toml"
        config_path.write_text(config_text(_url(gated_at), zone, directory / "demo.db", seller.address))
        # Without the environment: the visitor's own HEADGATE_DATABASE_URL is not to be played with.
        config = load(str(config_path), {})
        embedded = stack.enter_context(EmbeddedFacilitator(await asyncio.to_thread(DevChain)))
        facilitator = GuardedFacilitator(InProcessFacilitator(embedded), clock_us)
        gate = Headgate(config, facilitators={embedded.chain.network: facilitator})
        delivered: list[OverageUse] = []
        gate.on_overage(delivered.extend)
        app = create_app()
        app.add_middleware(gate.middleware)
        stack.push_async_callback(gate.close)
        await gate.open(app)
        assert gate.store is not None
        ada, ben, contoso = await _sign_up(gate.store.registry)
        await stack.enter_async_context(_serving(app, gated_at))
        await stack.enter_async_context(_serving(create_app(), bare_at))
        session = await stack.enter_async_context(connections())
        yield Stage(
            gate=gate,
            chain=embedded.chain,
            config_path=config_path,
            month=month_in(zone),
            gated=Line(session, _url(gated_at)),
            bare=Line(session, _url(bare_at)),
            ada=ada,
            ben=ben,
            contoso=contoso,
            seller=seller,
            penniless=derive("penniless"),
            delivered=delivered,
        )


def config_text(url: str, zone: str, store: Path, pay_to: str) -> str:
    """The demo's `headgate.toml`; a JSON string is a TOML string too."""
    return CONFIG.format(
        url=json.dumps(url),
        zone=json.dumps(zone),
        store=json.dumps(f"sqlite:///{store}"),
        pay_to=json.dumps(pay_to),
    )


def zone_for(now: datetime) -> str:
    """The seller's time zone: UTC; where a month is about to end there, one in which it has half a day left.

    So a run over midnight on the last of a month still belongs to one accounting month.
    """
    return "UTC" if (now + _QUIET_BEFORE_MONTH_END).month == now.month else "Etc/GMT+12"


def month_in(zone: str) -> str:
    """The accounting month now."""
    local = datetime.now(UTC) - (timedelta(0) if zone == "UTC" else timedelta(hours=12))
    return f"{local:%Y-%m}"


async def _sign_up(registry: Registry) -> tuple[Key, Key, Key]:
    """Two customers under contract, and their keys, as the commands' `create` does it."""
    for customer, name, plan, seats in (
        (TEAM, "Northwind Traders", "team", 2),
        (STARTER, "Contoso Ltd", "starter", 1),
    ):
        now_us = clock_us()
        await create_customer(registry, customer, now_us=now_us, name=name)
        await create_subscription(registry, customer, Agreement(plan, seats), now_us=now_us, grace_us=0)
    return (
        await _make_key(registry, TEAM, "ada"),
        await _make_key(registry, TEAM, "ben"),
        await _make_key(registry, STARTER, ""),
    )


async def _make_key(registry: Registry, customer: str, seat: str) -> Key:
    made = await create_key(
        registry, customer, mode="test", entropy=os.urandom(32), now_us=clock_us(), seat=seat or None
    )
    return Key(made.key_id, made.key, customer, seat)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: Ctrl-C is the demo's, which takes everything down in order."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def _serving(app: Any, listener: socket.socket) -> AsyncIterator[None]:
    server = _Server(uvicorn.Config(app, log_level="warning", access_log=False, ws="none"))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:
            if task.done():
                await task
                raise InputError("the demo's server did not start; what it said stands above")
            await asyncio.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        await task


@contextmanager
def _listening() -> Iterator[socket.socket]:
    # With the protocol named, or asyncio leaves Nagle's algorithm on and each answer waits 40 ms for an ACK.
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)) as listener:
        try:
            listener.bind((HOST, 0))
            listener.listen(128)
        except OSError as error:
            raise InputError(
                f"the demo cannot listen on {HOST} ({error.strerror}); "
                "it needs two free ports of the loopback interface"
            ) from error
        yield listener


def _url(listener: socket.socket) -> str:
    return f"http://{HOST}:{listener.getsockname()[1]}"
