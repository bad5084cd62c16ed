"""The ASGI middleware: every request passes `__call__`; what is priced goes one way through the house.

    match the route → identify → admit → the application → capture, or payment around it → answer

It stands inside the seller's auth (contract §9) and never touches what is not priced: those requests reach
the application with the server's own `receive` and `send`.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from starlette.requests import Request

from headgate.model.admission import Decision
from headgate.model.calendar import format_us
from headgate.model.caller import Identity
from headgate.model.errors import HeadgateError, InputError, StoreError
from headgate.model.routing import Match
from headgate.service.admit import Admitted, Desk, Presented
from headgate.web.answer import STORE_DOWN, CustomerAnswer
from headgate.web.credentials import Credentials, read_credentials
from headgate.web.measure import ask_readable
from headgate.web.payer import Exchange, Payer
from headgate.web.problems import App, Message, Receive, Reply, Scope, Send, problem
from headgate.web.receiver import Receiver
from headgate.web.usage import SCOPE_KEY, Usage

log = logging.getLogger("headgate.web")
Identify = Callable[[Request], Any]

AMBIGUOUS_PATH = problem(
    400,
    "ambiguous_path",
    "This spelling of the path can be read in more than one way; send it in plain form.",
)


class Gate(Protocol):
    """What the middleware needs of the running Headgate (`headgate.app.Headgate`)."""

    desk: Desk
    payer: Payer
    credential_names: frozenset[bytes]
    usage_headers: bool
    challenge_401: bytes

    installed: bool

    async def ready_match(self, scope: Scope) -> Match | None:
        """`match`, after opening the store if that is still to do."""
        ...

    async def open(self, app: Any = None) -> None:
        """Open the store and start the background work; done once, however often it is asked."""
        ...

    async def close(self) -> None:
        """The opposite."""
        ...

    async def authenticate(self, request: Request) -> Identity | None:
        """The seller's token or auth endpoint, where the configuration names one."""
        ...

    def page(self, scope: Scope, app: App) -> Callable[[Scope, Receive, Send], Awaitable[None]] | None:
        """Headgate's own pages (receipts, discovery); `app` is what would answer without them."""
        ...


class Middleware:
    """`app.add_middleware(gate.middleware, identify=…)`."""

    def __init__(self, app: App, gate: Gate, identify: Identify | None = None) -> None:
        self.app = app
        self.gate = gate
        self.identify = identify
        gate.installed = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        if kind not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        gate = self.gate
        try:
            match = await gate.ready_match(scope)
        except HeadgateError as error:
            log.error("the store could not be opened: %s", error)
            if kind == "websocket":
                await send({"type": "websocket.close", "code": 1011, "reason": "the store is out of reach"})
            else:
                await STORE_DOWN.send(send, head=scope["method"] == "HEAD")
            return
        if match is None or (match.action is None and not match.ambiguous):
            page = gate.page(scope, self.app)
            await (page or self.app)(scope, receive, send)
        elif kind == "websocket":
            log.info("a WebSocket upgrade on the priced route %s was refused", match.route)
            await send({"type": "websocket.close", "code": 1008, "reason": "this route is sold per request"})
        elif match.ambiguous:
            await AMBIGUOUS_PATH.send(send, head=scope["method"] == "HEAD")
        else:
            await self._priced(match, scope, receive, send)

    # --- a priced request -------------------------------------------------------------------------

    async def _priced(self, match: Match, scope: Scope, receive: Receive, send: Send) -> None:
        gate = self.gate
        action = match.action
        assert action is not None
        credentials = read_credentials(scope["headers"], gate.credential_names)
        paid = None
        try:
            identity = (
                None if credentials.key is not None else await self._identity(scope, receive, credentials)
            )
            if identity is None and credentials.nobody and gate.payer.sells and not action.free:
                paid = gate.payer.read(action, credentials, scope)
                if isinstance(paid, Reply):
                    await paid.send(send, head=scope["method"] == "HEAD")
                    return
            await gate.desk.directory.refresh()
            presented = Presented(credentials.key, identity, credentials.present)
            admitted = await gate.desk.admit(action, match.route, presented)
        except StoreError as error:
            log.error("a request could not be admitted: %s", error)
            await STORE_DOWN.send(send, head=scope["method"] == "HEAD")
            return
        except InputError as error:
            log.error("`identify` returned something that cannot be a customer: %s", error)
            await unauthorized(gate.challenge_401).send(send, head=scope["method"] == "HEAD")
            return
        decision = admitted.decision
        if decision is Decision.COUNT or decision is Decision.HELD:
            await self._customer(admitted, scope, receive, send)
        elif decision is Decision.PAY and gate.payer.sells:
            exchange = Exchange(self.app, admitted, scope, receive, send)
            paid = paid or gate.payer.read(action, credentials, scope)
            await (exchange.answer(paid) if isinstance(paid, Reply) else gate.payer.serve(exchange, paid))
        elif decision is Decision.FREE:
            scope[SCOPE_KEY] = Usage(admitted, "free")
            await self.app(scope, receive, send)
        else:
            await refusal(admitted, gate.challenge_401).send(send, head=scope["method"] == "HEAD")

    async def _identity(self, scope: Scope, receive: Receive, credentials: Credentials) -> Identity | None:
        """Ask the seller's auth who this is: `identify`, else what `[auth]` in the configuration names."""
        request = Request(scope, receive)
        if self.identify is not None:
            return await identified(self.identify, request, credentials)
        return await self.gate.authenticate(request)

    async def _customer(self, admitted: Admitted, scope: Scope, receive: Receive, send: Send) -> None:
        gate = self.gate
        usage = Usage(admitted, "seat")
        scope[SCOPE_KEY] = usage
        receiver = Receiver(receive)
        ask_readable(scope, admitted.action)
        answer = CustomerAnswer(send, gate.desk, admitted, usage, receiver, with_limits=gate.usage_headers)
        try:
            await self.app(scope, receiver, answer.send)
        except BaseException:
            await answer.fail()
            raise
        await answer.finish()

    # --- lifespan ---------------------------------------------------------------------------------

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Open before the application starts, close after it ends; a wrong set-up refuses to start."""
        refused = False

        async def starting() -> Message:
            nonlocal refused
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self.gate.open(scope.get("app"))
                except HeadgateError as error:
                    refused = True
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    raise
            return message

        async def ending(message: Message) -> None:
            if refused:
                return
            if message["type"] != "lifespan.startup.complete":
                await self.gate.close()
            await send(message)

        try:
            await self.app(scope, starting, ending)
        except HeadgateError:
            if not refused:
                raise


def as_identity(found: Any) -> Identity | None:
    """What `identify` returned: a customer's id as text, an Identity, or None.

    Raises:
        InputError: it is something else.
    """
    if found is None or isinstance(found, Identity):
        return found
    if isinstance(found, str):
        return Identity(found)
    raise InputError(
        f"it returned a {type(found).__name__}; return the customer's id as text, an Identity, or None"
    )


async def identified(identify: Identify, asked: Any, credentials: Credentials) -> Identity | None:
    """Who the seller's `identify` says is calling; `asked` is what it is called with.

    Raises:
        InputError: it returned something that names nobody.
    """
    try:
        found = identify(asked)
        if inspect.isawaitable(found):
            found = await found
    except (AttributeError, LookupError, AssertionError):
        # Auth left nothing on the request: nobody was let in as a customer (optional_auth), or auth never
        # ran. With credentials present the answer stays 401, so nothing opens by this.
        if credentials.present:
            log.exception("`identify` failed on a request with credentials; does auth run before Headgate?")
        return None
    return as_identity(found)


def refusal(admitted: Admitted, challenge_401: bytes) -> Reply:
    """The answer to a request that may neither be served nor paid for."""
    decision = admitted.decision
    if decision is Decision.UNAUTHORIZED or admitted.customer is None:
        return unauthorized(challenge_401)
    if decision is Decision.NO_CONTRACT or admitted.standing is None:
        return problem(403, "no_subscription", "This account has no subscription that includes this action.")
    if decision is Decision.PAY:
        return problem(
            403, "subscription_ended", "There is no running subscription to charge this action to."
        )
    return problem(
        429,
        "allowance_exhausted",
        "The allowance of this billing period is used up; it starts anew at `resets_at`.",
        resets_at=format_us(admitted.standing.period.end_us),
    )


def unauthorized(challenge_401: bytes) -> Reply:
    """The answer to credentials that nobody knows."""
    return problem(
        401,
        "invalid_credentials",
        "The credentials are missing, unknown, revoked or expired. Send a valid key, or none at all "
        "where the action can be paid for.",
        headers=((b"www-authenticate", challenge_401),),
    )
