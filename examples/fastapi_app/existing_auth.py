"""The auth this application had before Headgate: bearer tokens, on every route but the health check."""

from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

TOKENS = {"token-of-ada": "northwind", "token-of-ben": "contoso"}


def customer_of(request: Request) -> str | None:
    """The customer a request's token belongs to."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return TOKENS.get(token) if scheme.lower() == "bearer" else None


class ExistingAuth(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        request.state.customer_id = customer_of(request)
        if request.state.customer_id is None and request.url.path != "/healthz":
            return JSONResponse({"detail": "Who are you?"}, 401, {"WWW-Authenticate": "Bearer"})
        return await call_next(request)
