"""Letting an agent without credentials past the seller's auth, on priced routes and to its receipts only.

Discovery is asked for through the auth: what the auth refuses is generated, so nothing behind it is shown.
Every other request meets the auth as before. Nothing is let past unless Headgate stands inside: middleware is
built from the inside out, so an `OptionalAuth` that is built before Headgate's middleware is in the wrong
place, and refuses to start (failure case 54).
"""

from __future__ import annotations

from typing import Any

from headgate.model.errors import ConfigError, ConfigProblem
from headgate.web.credentials import read_credentials
from headgate.web.middleware import Gate
from headgate.web.problems import App, Receive, Scope, Send

FIX = (
    "add Headgate first and the auth after it (the last one added runs first): "
    "app.add_middleware(gate.middleware, …); app.add_middleware(gate.optional_auth(YourAuth))"
)


class OptionalAuth:
    """The seller's auth, and the way past it."""

    def __init__(self, app: App, auth: App, gate: Gate) -> None:
        self._misplaced = not gate.installed
        self.app = app
        self.auth = auth
        self.gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._misplaced:
            await self._refuse(scope, receive, send)
        else:
            await (await self._way(scope))(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse to start in the server's own terms: an error raised here is taken for "no lifespan"."""
        wrong = "the auth runs inside Headgate, which so never sees who calls"
        error = ConfigError((ConfigProblem("application", "middleware", wrong, FIX),))
        if scope["type"] != "lifespan":
            raise error
        await receive()
        await send({"type": "lifespan.startup.failed", "message": str(error)})

    async def _way(self, scope: Scope) -> App:
        if scope["type"] != "http" or read_credentials(scope["headers"], self.gate.credential_names).present:
            return self.auth
        match = await self.gate.ready_match(scope)
        if match is not None and (match.action is not None or match.ambiguous):
            return self.app
        # A receipt is for payers, and its address is the secret.
        return self.gate.page(scope, self.auth) or self.auth


def optional_auth(gate: Gate, auth: Any) -> Any:
    """What `gate.optional_auth(ExistingAuth)` returns: takes the place of the class in `add_middleware`."""

    def build(app: App, *args: Any, **kwargs: Any) -> OptionalAuth:
        return OptionalAuth(app, auth(app, *args, **kwargs), gate)

    build.__name__ = getattr(auth, "__name__", "auth")
    return build
