"""The only wiring: from a configuration to a running Headgate, for one process.

gate = Headgate.from_file("headgate.toml")
app.add_middleware(gate.middleware, identify=lambda request: request.state.customer_id)
app.add_middleware(gate.optional_auth(ExistingAuth))   # last added runs first: auth, then Headgate
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self, TypeVar

import msgspec
from starlette.requests import Request

from headgate.config import Config, load
from headgate.model.admission import always_yes
from headgate.model.booking import Use
from headgate.model.calendar import AccountingCalendar
from headgate.model.caller import Caller, Identity
from headgate.model.errors import ConfigError, ConfigProblem, InputError, UnknownAction
from headgate.model.money import whole_units
from headgate.model.routing import Match, RouteTable
from headgate.overage.callback import CallbackSink, OnOverage
from headgate.overage.cloudevents import CloudEventsSink
from headgate.overage.signature import read_secrets
from headgate.overage.sink import Sink
from headgate.service.admit import Desk
from headgate.service.check_app import middleware_order_findings
from headgate.service.deliver import Deliverer
from headgate.service.directory import Directory
from headgate.service.facilitators import Witness, make_takers
from headgate.service.finding import Level
from headgate.service.forget import keep_forgetting
from headgate.service.ids import RequestIds
from headgate.service.networks import Networks
from headgate.service.opening import Store, open_store
from headgate.service.owed import mark_refunds_due
from headgate.service.pay import Cashier
from headgate.service.recover import Recovery
from headgate.service.storefront import Storefront
from headgate.service.watch import Watcher, for_ever
from headgate.store.driver import Driver
from headgate.store.ledger import Ledger
from headgate.store.operations import Booked
from headgate.store.sqlite import SqliteDriver
from headgate.web.auth import Authenticator
from headgate.web.discovery import Discovery
from headgate.web.marks import check_action, mark, marked_routes, with_marks
from headgate.web.mcp import PricedTools, ToolGate
from headgate.web.middleware import Identify, Middleware
from headgate.web.optional_auth import optional_auth
from headgate.web.pages import ReceiptPage
from headgate.web.payer import Payer
from headgate.web.problems import App, Receive, Scope, Send
from headgate.web.receipts import RECEIPT_PATH, Receipts
from headgate.web.usage import usage
from headgate.x402.facilitator import Facilitator, GuardedFacilitator

log = logging.getLogger("headgate")
F = TypeVar("F", bound=Callable[..., Any])
_FOLLOW_EVERY_S = 1.0
_CANCELLED = 5  # background tasks that are cancelled at the end; deliverers stop by themselves


def clock_us() -> int:
    """The wall clock in UTC microseconds: the one place where it is read."""
    return time.time_ns() // 1000


def make_driver(config: Config) -> Driver:
    """The driver for the configured store.

    Raises:
        ConfigError: a store of a kind that this version does not have.
    """
    kind, _, path = config.store.url.partition(":///")
    if kind != "sqlite" or not path:
        problem = ConfigProblem(
            config.path,
            "store.url",
            f"{kind} stores are not part of this version",
            'write "sqlite:///headgate.db"',
        )
        raise ConfigError((problem,))
    return SqliteDriver(path)


class Headgate:
    """One process's gate. Made from a configuration, opened with the application, closed with it."""

    def __init__(
        self,
        config: Config,
        *,
        now_us: Callable[[], int] = clock_us,
        entropy: Callable[[int], bytes] = os.urandom,
        facilitators: Mapping[str, Facilitator] | None = None,
        chains: Mapping[str, Witness] | None = None,
    ) -> None:
        self.config = config
        self.installed = False
        self.usage_headers = config.usage_headers
        self.credential_names = frozenset(name.encode() for name in config.auth.credentials)
        realm = config.seller.name.replace('"', "").encode("ascii", "ignore").decode() or "api"
        self.challenge_401 = f'Bearer realm="{realm}"'.encode()
        self.desk: Desk  # both set by open(), before any request is served
        self.payer: Payer
        self.store: Store | None = None
        self.ledger: Ledger | None = None
        self._now_us = now_us
        self._entropy = entropy
        self._given, self._given_chains = facilitators, chains or {}
        self._facilitators: Mapping[str, GuardedFacilitator] = {}
        self._chains: Mapping[str, Witness] = {}
        self._authenticator = Authenticator(config.auth)
        self._storefront = Storefront(config.seller.public_url, _quote_ttl_us(config))
        self._routes: RouteTable | None = None
        self._selling = -1
        self._marked: set[str] = set()
        self._tools = PricedTools(config)
        self._app: Any = None
        self._root_path = ""
        self._page: ReceiptPage | None = None
        self._discovery: Discovery | None = None
        if config.x402 is not None and config.discovery:
            self._discovery = Discovery(config.seller.name, config.seller.public_url, self._storefront)
        self._cashier: Cashier | None = None
        self._recovery: Recovery | None = None
        self._watcher: Watcher | None = None
        self._networks: Networks | None = None
        self._opening = asyncio.Lock()
        self._background: list[asyncio.Task[None]] = []
        self._on_overage: OnOverage | None = None
        self._sinks: list[Sink] = []
        self._stop = asyncio.Event()

    @classmethod
    def from_file(cls, path: str | None = None, **given: Any) -> Headgate:
        """Read `headgate.toml` (or HEADGATE_CONFIG). Raises ConfigError with every problem found."""
        return cls(load(path, os.environ), **given)

    # --- in the application (contract §9) ---------------------------------------------------------

    def middleware(self, app: App, identify: Identify | None = None) -> Middleware:
        """For `app.add_middleware(gate.middleware, identify=…)`, or as a plain wrapper around an ASGI app."""
        if getattr(app, "routes", None):
            self._app = app  # wrapped around a whole application: no scope will name it, and it has the marks
        self._root_path = _own_root_path(app)
        return Middleware(app, self, identify)

    def optional_auth(self, auth: Any) -> Any:
        """The seller's auth middleware, made optional on priced routes for callers without credentials."""
        return optional_auth(self, auth)

    def action(self, name: str) -> Callable[[F], F]:
        """Price the routes of a handler: `@gate.action("summaries.create")`. Hands the same function back."""
        check_action(name, self.config)
        self._marked.add(name)
        return lambda function: mark(function, name)

    def tool(self, action: str, name: str | None = None) -> Callable[[F], F]:
        """Price an MCP tool: `@gate.tool("summaries.create")`; `name` where it is not the function's."""
        return self._tools.price(action, name)

    def mcp(self, server: Any, **given: Any) -> ToolGate:
        """Stand in front of the priced tools of an MCP server; `given` is as `PricedTools.gate` says."""
        return self._tools.gate(self, server, **given)

    def caller(self, request: Request) -> Caller:
        """For `Depends(gate.caller)`: who is served, through which channel."""
        found = usage(request).caller
        if found is None:
            raise InputError(f"{request.url.path} is not a priced route, so there is no caller to tell about")
        return found

    def on_overage(self, function: F) -> F:
        """Hand booked overage to a function of the seller's, in batches, at least once, with stable ids.

        As a decorator or a call, before the application starts. The function takes a sequence of
        `headgate.overage.use.OverageUse`, sync or async; what it raises is tried again later.
        """
        self._on_overage = function
        return function

    async def record(
        self,
        customer: str,
        action: str,
        units: int,
        *,
        id: str,  # noqa: A002  the field's name in every billing API
        occurred_us: int | None = None,
        seat: str | None = None,
    ) -> Booked:
        """Book use that was no HTTP request. The same id with the same content gives the same rows again.

        Raises:
            UnknownAction, InputError: it cannot be booked as given.
            IdConflict: the id was used with other content.
            AllowanceExhausted: the plan has no room for it and allows nothing beyond.
        """
        await self.open()
        assert self.ledger is not None
        assert self.store is not None
        units = whole_units(units)
        if not id or len(id) > 255:
            raise InputError("a record needs an id of 1 to 255 characters, the same on every retry")
        now_us = self._now_us()
        at_us = now_us if occurred_us is None else occurred_us
        directory = self.desk.directory
        await directory.refresh()
        if action not in directory.catalog(now_us).actions:
            raise UnknownAction(
                f"the published catalog has no action {action!r}; `headgate catalog show` lists them"
            )
        number = await directory.customer(customer, now_us)
        content = msgspec.json.encode([action, units, occurred_us, seat])
        standing = await directory.standing(number, action, at_us)
        use = Use(
            standing=standing,
            action=await self.store.names.action(action),
            route=None,
            units=units,
            written_off=0,
            held=0,
            seat=None if seat is None else await directory.seat(number, seat),
            api_key=None,
            request_id=self.desk.ids.new(now_us),
            occurred_us=at_us,
            record=(hashlib.sha256(b"record|" + id.encode()).digest(), hashlib.sha256(content).digest()),
            must_fit=not always_yes(standing),
        )
        booked: Booked = await self.ledger.submit(use)
        return booked

    # --- what the middleware needs ----------------------------------------------------------------

    async def ready_match(self, scope: Scope) -> Match | None:
        """What a request asks for, from the published catalog; opens the store with the first request."""
        if self._routes is None:
            await self.open(scope.get("app"))
            if self._routes is None:
                return None
        path = self.local_path(scope)
        raw_path = scope.get("raw_path") if path == scope["path"] else None
        return self._routes.match(scope.get("method", "GET"), path, raw_path)

    async def authenticate(self, request: Request) -> Identity | None:
        """The identity that `[auth]` finds."""
        return await self._authenticator.identify(request)

    def page(self, scope: Scope, app: App) -> Callable[[Scope, Receive, Send], Awaitable[None]] | None:
        """Headgate's own page at this path, if there is one; `app` is what would answer without it."""
        if scope["type"] != "http":
            return None
        path = self.local_path(scope)
        if self._page is not None and path.startswith(RECEIPT_PATH):
            return self._page
        return None if self._discovery is None else self._discovery.page(scope, path, app)

    def local_path(self, scope: Scope) -> str:
        """The path that the application's router will look up: without the prefix it is mounted below.

        An application's own `root_path` replaces the server's, as FastAPI has it; a prefix is one only where
        a segment ends with it.
        """
        path: str = scope["path"]
        root = self._root_path or scope.get("root_path", "")
        if not root or not (path == root or path.startswith(root + "/")):
            return path
        return path[len(root) :] or "/"

    # --- opening and closing ----------------------------------------------------------------------

    async def open(self, app: Any = None) -> None:
        """Open the store, lease a slot, stock the shop, go on with what was left open."""
        async with self._opening:
            if self.store is not None:
                return
            self._app = self._app or app
            self._check_order()
            self._check_marks()
            self._sinks = self._make_sinks()
            config, now_us = self.config, self._now_us
            driver = make_driver(config)
            try:
                store = await open_store(driver, config, now_us, self._entropy)
                calendar = AccountingCalendar(config.seller.time_zone)
                ledger = Ledger(driver, calendar, now_us, resolves=config.x402 is not None)
                await ledger.open()
                await self._wire(store, ledger)
            except BaseException:
                self._routes, self._selling = None, -1  # the next request opens it anew
                await driver.close()
                raise
            driver.start()
            gc.freeze()  # what was made at start-up lives on: collections under load need not walk it again
            self.store, self.ledger = store, ledger
            self._stop.clear()
            self._background = [
                asyncio.create_task(self._follow(), name="headgate-follow"),
                asyncio.create_task(self._follow_networks(), name="headgate-networks"),
                asyncio.create_task(for_ever(self._recovery), name="headgate-recovery"),
                asyncio.create_task(for_ever(self._watcher), name="headgate-watcher"),
                asyncio.create_task(keep_forgetting(driver, self._now_us), name="headgate-forget"),
                *(asyncio.create_task(self._deliverer(sink, store).run(self._stop)) for sink in self._sinks),
            ]

    def _make_sinks(self) -> list[Sink]:
        """Where booked overage goes: the seller's function, the seller's webhook, both or neither."""
        sinks: list[Sink] = []
        overage = self.config.overage
        if self._on_overage is not None:
            sinks.append(CallbackSink(self._on_overage))
        if overage.export == "cloudevents" and overage.webhook_url is not None:
            secrets = read_secrets(overage.secret or "")
            source = self.config.seller.public_url or "urn:headgate"
            sinks.append(CloudEventsSink(overage.webhook_url, secrets, self._now_us, source=source))
        return sinks

    def _deliverer(self, sink: Sink, store: Store) -> Deliverer:
        return Deliverer(
            store.driver,
            store.registry,
            sink,
            self._now_us,
            owner=self._entropy(8).hex(),
            below=lambda bound: int.from_bytes(self._entropy(4), "big") % bound,
            from_us=self.config.overage.from_us,
        )

    async def _wire(self, store: Store, ledger: Ledger) -> None:
        config, now_us = self.config, self._now_us
        seller = config.seller
        directory = Directory(
            store.registry, mode=config.mode, zone=seller.time_zone, grace_us=seller.renewal_grace_us
        )
        ids = RequestIds(self._entropy)
        self.desk = Desk(directory, ledger, store.names, now_us, ids, seller.no_subscription)
        cashier = None
        if config.x402 is not None:
            taken = make_takers(config, now_us, self._given)
            self._facilitators, self._chains = taken.facilitators, {**taken.chains, **self._given_chains}
            self._cashier = cashier = Cashier(
                *(config.x402, ledger, store.names, self._facilitators, now_us),
                *(config.limits.kept_answer_us, self._chains),
            )
            self._recovery, self._watcher = Recovery(cashier, now_us), Watcher(cashier, now_us)
            self._networks = Networks(
                config.x402, self._facilitators, store.driver, now_us, directory.catalog
            )
            await self._networks.open()
        receipts = Receipts(seller.public_url, hashlib.sha256(b"receipts|" + store.secret).digest())
        self.payer = Payer(
            *(cashier, self._storefront, seller.public_url, config.limits, receipts, now_us),
            self.local_path,
        )
        self._page = ReceiptPage(receipts, store.driver, self.local_path)
        await directory.refresh()
        self._sell(directory)
        if self._recovery is not None:
            await ledger.recover_dead()

    def _sell(self, directory: Directory) -> None:
        """Routes and offers of the catalog in force, if it is another than before."""
        now_us = self._now_us()
        catalog = directory.catalog(now_us)
        if catalog.version == self._selling:
            return
        self._stock(directory)
        marked = with_marks(catalog, self._app, self.config.path)
        self._routes = RouteTable(marked)
        if self._discovery is not None:
            self._storefront.declare(self._routes)
            self._discovery.show(marked, self._routes)
        self._selling = catalog.version
        log.info("selling catalog version %d", catalog.version)

    def _stock(self, directory: Directory) -> None:
        """Make the offers of now."""
        history = [] if self._networks is None else self._networks.history
        self._storefront.stock(directory.catalogs, history, self._now_us())

    def _check_order(self) -> None:
        """Refuse to start where the auth runs inside Headgate, which would see nobody (case 54)."""
        layers = getattr(self._app, "user_middleware", ())
        if all(getattr(layer, "cls", None) != self.middleware for layer in layers):
            return  # wrapped from outside, or no Starlette application: nothing to read an order from
        findings = list(middleware_order_findings(self._app, sells_x402=self.config.x402 is not None))
        for finding in findings:
            if finding.level is Level.WARNING:
                log.warning("%s; %s", finding.message, finding.fix)
        wrong = tuple(
            ConfigProblem("application", finding.where, finding.message, finding.fix)
            for finding in findings
            if finding.level is Level.ERROR
        )
        if wrong:
            raise ConfigError(wrong)

    def _check_marks(self) -> None:
        """Refuse to start where prices stand on handlers whose routes cannot be found: all would be free."""
        actions = self.config.catalog.actions
        unlisted = [name for name in sorted(self._marked) if not actions[name].routes]
        if not unlisted or not self.installed or any(marked_routes(self._app)):
            return
        found = f"no route of the application leads to a handler marked with {', '.join(unlisted)}"
        fix = "write `routes` in the configuration, or wrap Headgate directly around the application"
        raise ConfigError((ConfigProblem("application", "gate.action", found, fix),))

    async def _follow_networks(self) -> None:
        """Ask facilitators what they support; apart, since one that hangs must hold nothing else up."""
        while self._networks is not None:
            try:
                if await self._networks.refresh():
                    self._stock(self.desk.directory)
            except Exception:
                log.exception("what the facilitators support could not be asked; it is tried again")
            await asyncio.sleep(_FOLLOW_EVERY_S)

    async def _follow(self) -> None:
        """Follow the published catalog, take over from the dead; never ends by an error."""
        beats = 0
        while True:
            try:
                await self.desk.directory.refresh()
                self._sell(self.desk.directory)
                if beats % 2 == 0:
                    await self._recover()
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("background work failed; it is tried again in a second")
            beats += 1
            await asyncio.sleep(_FOLLOW_EVERY_S)

    async def _recover(self) -> None:
        """Take over what dead processes left and book their streams; a task of its own resolves payments."""
        if self.ledger is not None:
            await self.ledger.recover_dead()
            await self.desk.streams.work()
            await mark_refunds_due(self.ledger.driver, self._now_us())

    async def close(self) -> None:
        """Finish what is queued and let go of everything."""
        async with self._opening:
            self._stop.set()
            if self._cashier is not None:
                await self._cashier.finished()
            for task in self._background[:_CANCELLED]:
                task.cancel()
            await asyncio.gather(*self._background, return_exceptions=True)
            self._background = []
            for sink in self._sinks:
                await sink.close()
            if self.ledger is not None and self.store is not None:
                await self.ledger.close()
                await self.store.driver.close()
            for facilitator in set(self._facilitators.values()):
                await facilitator.close()
            for chain in self._chains.values():
                await chain.close()
            await self._authenticator.close()
            self.store, self.ledger, self._routes, self._selling = None, None, None, -1

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _own_root_path(app: Any) -> str:
    """The `root_path` that an application below will set, however many layers are around it; "": none."""
    for _ in range(50):
        found = getattr(app, "root_path", None)
        if isinstance(found, str) and found:
            return found
        app = getattr(app, "app", None)
        if app is None:
            break
    return ""


def _quote_ttl_us(config: Config) -> int:
    return 0 if config.x402 is None else config.x402.quote_ttl_us
