"""The auth this application had before Headgate: bearer tokens, as a pure ASGI middleware."""

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

TOKENS = {"token-of-ada": "northwind", "token-of-ben": "contoso"}


class ExistingAuth:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        customer = TOKENS.get(token) if scheme.lower() == "bearer" else None
        if customer is None:
            refusal = JSONResponse({"detail": "Who are you?"}, 401, {"WWW-Authenticate": "Bearer"})
            return await refusal(scope, receive, send)
        scope.setdefault("state", {})["customer_id"] = customer
        return await self.app(scope, receive, send)
