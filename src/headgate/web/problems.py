"""Headgate's own answers: RFC 9457 problems with stable types, never a word of anybody else's text.

A problem's `type` is `urn:headgate:problem:CODE`, and `code` repeats it; `detail` says what to do next.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]

_encode = msgspec.json.Encoder().encode
NO_STORE = (b"cache-control", b"no-store")
EXPOSED = (
    b"access-control-expose-headers",
    b"PAYMENT-REQUIRED, PAYMENT-RESPONSE, Headgate-Receipt, Retry-After",
)
_TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    402: "Payment required",
    403: "Forbidden",
    404: "Not found",
    408: "Request timeout",
    409: "Conflict",
    413: "Content too large",
    429: "Allowance exhausted",
    500: "Internal error",
    502: "Bad gateway",
    503: "Service unavailable",
}


def is_last(start: Message, message: Message) -> bool:
    """Whether a message ends the answer that `start` began (ASGI HTTP, trailers and path send extensions)."""
    kind = message["type"]
    if kind == "http.response.trailers":
        return not message.get("more_trailers", False)
    sends = kind in ("http.response.body", "http.response.pathsend", "http.response.zerocopysend")
    return sends and not message.get("more_body", False) and not start.get("trailers", False)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of Headgate's own. Made once, it can be sent often.

    `framed`: its headers say how long it is, or leave that open.
    """

    status: int
    headers: Headers
    body: bytes
    framed: bool = False
    _sent: Headers = field(init=False, repr=False)

    def __post_init__(self) -> None:
        length = ((b"content-length", str(len(self.body)).encode()),)
        without = self.framed or self.status in (204, 304)  # RFC 9110 §8.6
        object.__setattr__(self, "_sent", (*self.headers, *(() if without else length)))

    async def send(self, send: Send, *, head: bool = False) -> None:
        """Send it; without its body where the request was a HEAD."""
        # A list of its own each time: layers outside may add to it.
        await send({"type": "http.response.start", "status": self.status, "headers": list(self._sent)})
        await send({"type": "http.response.body", "body": b"" if head else self.body})


def with_added(reply: Reply, added: Headers) -> Reply:
    """The same answer with headers added."""
    names = {name.lower() for name, _ in added}
    kept = tuple(pair for pair in reply.headers if pair[0].lower() not in names)
    return Reply(reply.status, (*kept, *added), reply.body, reply.framed)


def problem(
    status: int, code: str, detail: str, *, headers: Iterable[tuple[bytes, bytes]] = (), **members: Any
) -> Reply:
    """A problem document (RFC 9457 §3.1) with `code` and further members."""
    body = {
        "type": f"urn:headgate:problem:{code}",
        "title": _TITLES[status],
        "status": status,
        "detail": detail,
        "code": code,
        **members,
    }
    fixed = ((b"content-type", b"application/problem+json"), NO_STORE, EXPOSED)
    return Reply(status, (*fixed, *headers), _encode(body))


def retry_after(seconds: int) -> tuple[bytes, bytes]:
    """A `Retry-After` header."""
    return b"retry-after", str(seconds).encode()
