"""What is offered follows what facilitators say they settle, and outlives a restart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from headgate.config import parse
from headgate.model.catalog import Accept, Action, Catalog
from headgate.model.errors import FacilitatorUnreachable
from headgate.model.offer import Scheme
from headgate.service.networks import ASK_AGAIN_US, ASK_EVERY_US, Networks
from headgate.service.storefront import Storefront
from headgate.store.registry import Registry
from headgate.store.sqlite import SqliteDriver
from headgate.testing import FakeClock
from headgate.x402.answers import Supported, supported_answer
from headgate.x402.offer import EIP2612_GAS_SPONSORING
from tests.x402.buyer import FIXED, PAY_TO, SETTLER, VARIABLE

BASE, SEPOLIA = "eip155:8453", "eip155:84532"
BOTH = ("exact", "upto")


class Says:
    """A facilitator that says what it supports; None: it does not answer."""

    def __init__(self, network: str) -> None:
        self.network = network
        self.schemes: Sequence[str] | None = BOTH
        self.asked = 0
        self.meet: asyncio.Barrier | None = None
        self.extensions: Any = []
        self.signers: Any = {}

    async def supported(self) -> Supported:
        self.asked += 1
        if self.meet is not None:
            await self.meet.wait()
        if self.schemes is None:
            raise FacilitatorUnreachable("it is away")
        kinds = [
            {
                "x402Version": 2,
                "scheme": scheme,
                "network": self.network,
                "extra": {"facilitatorAddress": SETTLER},
            }
            for scheme in self.schemes
        ]
        body = {"kinds": kinds, "extensions": self.extensions, "signers": self.signers}
        return supported_answer("it", 200, json.dumps(body).encode())

    async def close(self) -> None: ...


class Market:
    """Two networks, each with a facilitator of its own."""

    def __init__(self, driver: SqliteDriver) -> None:
        self.driver = driver
        self.clock = FakeClock()
        self.sold = [FIXED, VARIABLE]
        self.base, self.sepolia = Says(BASE), Says(SEPOLIA)
        tables = "".join(
            f'[x402.networks."{caip2}"]\nfacilitator = "https://{name}.example"\n'
            for name, caip2 in (("a", BASE), ("b", SEPOLIA))
        )
        text = f'[seller]\npublic_url = "https://x"\n[x402]\npay_to = "{PAY_TO}"\n'
        text += 'network = ["base", "base-sepolia"]\nquote_ttl = "1 min"\n' + tables
        settings = parse(text).x402
        assert settings is not None
        self.settings = settings
        self.begin()

    def begin(self) -> None:
        """As a process does that starts."""
        facilitators: Any = {BASE: self.base, SEPOLIA: self.sepolia}
        self.networks = Networks(self.settings, facilitators, self.driver, self.clock, self.catalog)

    def catalog(self, _at_us: int) -> Catalog:
        return Catalog({action.name: action for action in self.sold}, {})

    async def asked(self) -> None:
        self.clock.now_us += 2 * ASK_EVERY_US
        await self.networks.refresh()

    def accepts(self, action: Action) -> list[tuple[str, str]]:
        """What the 402 offers: (scheme, network)."""
        return [(entry["scheme"], entry["network"]) for entry in self._body(action)["accepts"]]

    def declares(self, action: Action) -> set[str]:
        return set(self._body(action)["extensions"])

    def _body(self, action: Action) -> dict[str, Any]:

        front = Storefront("https://x", 60_000_000)
        front.stock([Catalog({action.name: action}, {})], self.networks.history, self.clock.now_us)
        body: dict[str, Any] = json.loads(front.challenge(action.name, "GET", "/", "payment_required").body)
        return body


@pytest.fixture
async def market(registry: Registry, driver: SqliteDriver) -> Market:
    made = Market(driver)
    await made.networks.open()
    return made


async def test_all_are_asked_at_once(market: Market) -> None:
    """Those that hang until they are given up do not add up: each waits here for the other."""
    both = asyncio.Barrier(2)
    market.base.meet = market.sepolia.meet = both
    async with asyncio.timeout(10):
        await market.asked()
    assert market.accepts(VARIABLE) == [("upto", BASE), ("upto", SEPOLIA)]


async def test_exact_is_offered_where_it_is_settled(market: Market) -> None:
    everywhere = [("exact", BASE), ("exact", SEPOLIA)]
    assert market.accepts(FIXED) == everywhere  # nobody was asked yet: it is the rule
    market.base.schemes = ["upto"]
    await market.asked()
    assert market.accepts(FIXED) == [("exact", SEPOLIA)]
    assert market.accepts(VARIABLE) == [("upto", BASE), ("upto", SEPOLIA)]
    market.base.schemes = None  # away: what it said last is believed
    await market.asked()
    assert market.accepts(FIXED) == [("exact", SEPOLIA)]
    market.begin()
    await market.networks.open()  # a restart knows it too
    assert market.accepts(FIXED) == [("exact", SEPOLIA)]
    market.base.schemes = BOTH
    await market.asked()
    assert market.accepts(FIXED) == everywhere


async def test_a_permit_is_invited_where_every_facilitator_takes_it(market: Market) -> None:
    rows = [
        ([], [], False),
        ([EIP2612_GAS_SPONSORING], [], False),
        ([], [EIP2612_GAS_SPONSORING], False),
        ([EIP2612_GAS_SPONSORING], ["x", EIP2612_GAS_SPONSORING], True),
        ([{"name": EIP2612_GAS_SPONSORING}], [EIP2612_GAS_SPONSORING], False),
        (None, [EIP2612_GAS_SPONSORING], False),
    ]
    for base, sepolia, invited in rows:
        market.base.extensions, market.sepolia.extensions = base, sepolia
        await market.asked()
        assert (EIP2612_GAS_SPONSORING in market.declares(VARIABLE)) is invited, (base, sepolia)
        assert EIP2612_GAS_SPONSORING not in market.declares(FIXED)  # EIP-3009 needs no approval
    market.base.extensions = [EIP2612_GAS_SPONSORING]
    await market.asked()
    market.base.schemes = ["exact"]  # no `upto` is offered there any more, so it does not count
    market.base.extensions = []
    await market.asked()
    assert market.accepts(VARIABLE) == [("upto", SEPOLIA)]
    assert EIP2612_GAS_SPONSORING in market.declares(VARIABLE)


async def test_nothing_said_of_signers_and_extensions_is_fine(market: Market) -> None:
    market.base.signers = market.base.extensions = None
    await market.asked()
    assert market.accepts(VARIABLE) == [("upto", BASE), ("upto", SEPOLIA)]


FREE = replace(FIXED, price_micros=0)
ON_BASE, ON_SEPOLIA = (replace(FIXED, accepts=(Accept(Scheme.EXACT, caip2),)) for caip2 in (BASE, SEPOLIA))
COMPLAINTS: list[tuple[str, Sequence[str] | None, list[Action], bool]] = [
    ("both, and both are sold", BOTH, [FIXED, VARIABLE], False),
    ("upto only, and both are sold", ["upto"], [FIXED, VARIABLE], True),
    ("upto only, and a fixed price is sold", ["upto"], [FIXED], True),
    ("upto only, and a fixed price is sold there", ["upto"], [ON_BASE, VARIABLE], True),
    ("upto only, and a fixed price is sold elsewhere", ["upto"], [ON_SEPOLIA, VARIABLE], False),
    ("upto only, and only measured actions are sold", ["upto"], [VARIABLE], False),
    ("upto only, and what has a fixed price is free", ["upto"], [FREE, VARIABLE], False),
    ("exact only, and only fixed prices are sold", ["exact"], [FIXED], False),
    ("nothing, and a fixed price is sold", [], [FIXED], True),
    ("away", None, [VARIABLE], True),
]


@pytest.mark.parametrize("row", COMPLAINTS, ids=lambda row: row[0])
async def test_what_a_facilitator_lacks_matters_where_it_is_sold(
    row: tuple[str, Sequence[str] | None, list[Action], bool],
    market: Market,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is asked again soon, and the log says why, only where something cannot be offered for it."""
    _, market.base.schemes, market.sold, lacking = row
    await market.asked()
    assert bool(caplog.records) is lacking
    market.clock.now_us += ASK_AGAIN_US
    await market.networks.refresh()
    assert market.base.asked == (2 if lacking else 1)
    market.clock.now_us += ASK_EVERY_US
    await market.networks.refresh()
    assert market.base.asked == (3 if lacking else 2)
