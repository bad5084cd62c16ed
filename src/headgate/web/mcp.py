"""Paid tools of an MCP server: the same actions, catalog and ledger as the routes of an API.

    server = MCPServer("Acme Documents")
    gate.mcp(server)

    @server.tool()
    @gate.tool("documents.process")
    async def process(text: str) -> dict[str, int]: ...

`ToolGate` is a middleware of the official MCP SDK's servers (version 2, `MCPServer` and low-level `Server`).
It sees every message and touches calls of priced tools only:

    who is calling → admit → the tool → capture, or payment around it → result

A caller's credentials are the HTTP request's, where there is one, else `_meta["headgate/key"]`. The payment
is `_meta["x402/payment"]` (`headgate.web.mcp_payer`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import anyio
from starlette.requests import Request

from headgate.config import Config
from headgate.model.admission import Decision
from headgate.model.caller import Identity
from headgate.model.errors import ConfigError, ConfigProblem, HeadgateError, InputError, StoreError
from headgate.service.admit import Admitted, Desk, Presented
from headgate.web.answer import STORE_DOWN
from headgate.web.credentials import STRANGER, Credentials, read_credentials
from headgate.web.marks import check_action
from headgate.web.mcp_payer import PAYMENT, Run, ToolPayer
from headgate.web.mcp_result import Result, billable_units, refused
from headgate.web.middleware import identified, refusal, unauthorized
from headgate.web.payer import Payer
from headgate.web.problems import problem
from headgate.web.usage import TOOL_USE, Usage

if TYPE_CHECKING:
    from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

log = logging.getLogger("headgate.web")
F = TypeVar("F", bound=Callable[..., Any])
KEY = "headgate/key"
_UNPUBLISHED = problem(
    503, "action_not_published", "This tool cannot be sold yet: its action is not in the published catalog."
)


class Gate(Protocol):
    """What a tool gate needs of the running Headgate (`headgate.app.Headgate`)."""

    desk: Desk
    payer: Payer
    credential_names: frozenset[bytes]
    challenge_401: bytes

    async def open(self, app: Any = None) -> None:
        """Open the store and start the background work; done once, however often it is asked."""
        ...

    async def authenticate(self, request: Request) -> Identity | None:
        """The seller's token or auth endpoint, where the configuration names one."""
        ...


class PricedTools:
    """The tools that were priced where they are written, for the servers of one process."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._actions: dict[str, str] = {}

    def price(self, action: str, name: str | None = None) -> Callable[[F], F]:
        """A decorator that prices a tool and hands the same function back. Raises UnknownAction."""
        check_action(action, self._config)

        def priced(function: F) -> F:
            self._actions[name or function.__name__] = action
            return function

        return priced

    def gate(
        self,
        gate: Gate,
        server: Any,
        *,
        tools: Mapping[str, str] | None = None,
        identify: Callable[[Any], Any] | None = None,
    ) -> ToolGate:
        """Stand in front of a server. `tools` (action by tool) stands for what decorators price.

        `identify` is the seller's: called with the SDK's request context (`ctx.request` is the HTTP request,
        None over stdio), it returns a customer id, an Identity or None, or an awaitable of one.
        """
        for action in (tools or {}).values():
            check_action(action, self._config)
        return ToolGate(gate, server, self._actions if tools is None else dict(tools), identify)


class ToolGate:
    """Stands in front of one MCP server's tools; `tools` names the action of each priced one."""

    def __init__(
        self, gate: Gate, server: Any, tools: Mapping[str, str], identify: Callable[[Any], Any] | None = None
    ) -> None:
        self._gate = gate
        self._server = server
        self._tools = tools
        self._identify = identify
        self._checked = -1
        server.middleware.append(self)

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """One message to the server (`mcp.server.context.ServerMiddleware`)."""
        if ctx.method != "tools/call":
            return await call_next(ctx)
        await self._check_names()
        params = ctx.params or {}
        tool = params.get("name")
        action = self._tools.get(tool) if isinstance(tool, str) else None
        if action is None or not isinstance(tool, str):
            return await call_next(ctx)

        async def run(usage: Usage) -> Result:
            token = TOOL_USE.set(usage)
            try:
                return _as_result(await call_next(ctx))
            finally:
                TOOL_USE.reset(token)

        result = await self._priced(action, tool, params, ctx, run)
        return _enveloped(result, ctx.protocol_version)

    async def _check_names(self) -> None:
        """Refuse to serve where a priced tool has another name than was priced: it would be given away."""
        listing = getattr(self._server, "list_tools", None)
        if listing is None or self._checked == len(self._tools):
            return
        served = {tool.name for tool in await listing()}
        wrong = tuple(
            ConfigProblem(
                "application",
                f"tool {name}",
                "is priced, and the MCP server has no tool of that name",
                f'give the name it is served under: @gate.tool("{action}", name="…")',
            )
            for name, action in self._tools.items()
            if name not in served
        )
        if wrong:
            error = ConfigError(wrong)
            log.error("no tool is served: %s", error)
            raise error
        self._checked = len(self._tools)

    # --- a priced call ----------------------------------------------------------------------------

    async def _priced(
        self, name: str, tool: str, params: Mapping[str, Any], ctx: ServerRequestContext[Any, Any], run: Run
    ) -> Result:
        gate = self._gate
        meta = params.get("_meta") or {}
        try:
            await gate.open()
            desk = gate.desk
            await desk.directory.refresh()
            action = desk.directory.catalog(desk.now_us()).actions.get(name)
            if action is None:
                log.error(
                    "the tool %s is sold as %s, which the published catalog does not have: publish it",
                    tool,
                    name,
                )
                return refused(_UNPUBLISHED)
            presented = await self._presented(ctx, meta)
            admitted = await desk.admit(action, f"MCP tools/call {tool}", presented)
        except InputError as error:
            log.error("`identify` returned something that cannot be a customer: %s", error)
            return refused(unauthorized(gate.challenge_401))
        except HeadgateError as error:
            log.error("a tool call could not be admitted: %s", error)
            return refused(STORE_DOWN)
        decision = admitted.decision
        if decision is Decision.COUNT or decision is Decision.HELD:
            return await self._customer(admitted, run)
        if decision is Decision.PAY and gate.payer.sells:
            request = ctx.request if isinstance(ctx.request, Request) else None
            client = None if request is None or request.client is None else request.client.host
            payer = ToolPayer(gate.payer, client)
            return await payer.serve(admitted, tool, params.get("arguments"), meta.get(PAYMENT), run)
        if decision is Decision.FREE:
            return await run(Usage(admitted, "free"))
        return refused(refusal(admitted, gate.challenge_401))

    async def _presented(self, ctx: ServerRequestContext[Any, Any], meta: Mapping[str, Any]) -> Presented:
        """Who says to be calling: the HTTP request's credentials, or the key that came with the message."""
        request = ctx.request if isinstance(ctx.request, Request) else None
        headers = [] if request is None else request.scope["headers"]
        credentials = read_credentials(headers, self._gate.credential_names)
        if KEY in meta:
            credentials = _with_key(credentials, meta[KEY])
        identity = None
        if credentials.key is None:
            identity = await self._identity(ctx, request, credentials)
        return Presented(credentials.key, identity, credentials.present)

    async def _identity(
        self, ctx: ServerRequestContext[Any, Any], request: Request | None, credentials: Credentials
    ) -> Identity | None:
        if self._identify is None:
            return None if request is None else await self._gate.authenticate(request)
        return await identified(self._identify, ctx, credentials)

    async def _customer(self, admitted: Admitted, run: Run) -> Result:
        """Serve a customer, and book what the call used once its result is there."""
        desk, usage = self._gate.desk, Usage(admitted, "seat")
        try:
            result = await run(usage)
        except BaseException:
            with anyio.CancelScope(shield=True):  # a cancelled call is cancelled at each await until it ends
                await desk.release(admitted)
            raise
        with anyio.CancelScope(shield=True):
            result = await self._booked(admitted, usage, result)
        return result  # noqa: RET504  for mypy a scope may swallow what is raised in it

    async def _booked(self, admitted: Admitted, usage: Usage, result: Result) -> Result:
        desk = self._gate.desk
        try:
            units = billable_units(admitted.action, usage, result)
            if units is not None:
                await desk.capture(admitted, units)
        except StoreError as error:
            log.error("a tool's result was withheld: %s", error)
            result = refused(STORE_DOWN)
        finally:
            await desk.release(admitted)
        return result


def _with_key(credentials: Credentials, found: Any) -> Credentials:
    """A message's own key beside its request's credentials: two that differ are nobody's."""
    key = found.encode() if isinstance(found, str) else b""
    if credentials == STRANGER or credentials.key == key:
        return credentials._replace(key=key, present=True)
    return credentials._replace(key=b"", present=True)


def _as_result(found: HandlerResult) -> Result:
    """A tool's result as it goes over the wire."""
    if isinstance(found, dict):
        return found
    return {} if found is None else found.model_dump(by_alias=True, mode="json", exclude_none=True)


def _enveloped(result: Result, version: str) -> Result:
    """The result in the form of the connection's protocol: since 2026-07-28 each says that it is complete."""
    from mcp_types.version import MODERN_PROTOCOL_VERSIONS  # noqa: PLC0415  needs the `mcp` extra

    if version in MODERN_PROTOCOL_VERSIONS:
        return {"resultType": "complete", **result}
    return {name: value for name, value in result.items() if name != "resultType"}
