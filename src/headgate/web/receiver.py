"""The request's body on its way to the application: watched, never buffered."""

from __future__ import annotations

import asyncio
import hashlib

from headgate.web.problems import Message, Receive, Reply, problem


class BodyRefused(Exception):
    """A payer's request body is larger, or comes more slowly, than it may."""


class Receiver:
    """Stands in for the server's `receive`: sees disconnects, and for payers digests and bounds the body.

    `refused` is what the payer is answered if its body went over a bound.
    """

    __slots__ = ("_digest", "_kept", "_limit", "_receive", "_size", "_until", "complete", "gone", "refused")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: list[Message] = []
        self._digest: hashlib._Hash | None = None
        self._limit = 0
        self._size = 0
        self._until = 0.0
        self.complete = False
        self.gone = False
        self.refused: Reply | None = None

    def watch_body(self, limit: int, within_s: float) -> None:
        """From now on digest the body as the handler reads it; stop at `limit` bytes, or after `within_s`."""
        self._digest = hashlib.sha256()
        self._limit = limit
        self._until = asyncio.get_running_loop().time() + within_s

    @property
    def body_digest(self) -> bytes | None:
        """SHA-256 of the body, once it was read to its end."""
        return self._digest.digest() if self._digest is not None and self.complete else None

    async def __call__(self) -> Message:
        if self._kept:
            message = self._kept.pop(0)
        elif self._digest is None or self.complete:
            message = await self._receive()
        else:
            message = await self._receive_in_time()
        self._note(message)
        return message

    async def _receive_in_time(self) -> Message:
        try:
            async with asyncio.timeout_at(self._until):
                return await self._receive()
        except TimeoutError:
            self.refused = self.refused or problem(
                408,
                "body_too_slow",
                "The body did not arrive in time. Send it faster; the same payment can be used again, while "
                "it is valid for long enough or if it has settled already.",
            )
            raise BodyRefused from None

    def _note(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self.gone = True
        elif message["type"] == "http.request":
            self.complete = not message.get("more_body", False)
            if self._digest is not None:
                body = message.get("body", b"")
                self._size += len(body)
                if self._size > self._limit:
                    self.refused = problem(
                        413, "body_too_large", f"The body may have at most {self._limit} bytes."
                    )
                    raise BodyRefused
                self._digest.update(body)

    def hung_up(self) -> bool | None:
        """Whether the client has hung up, where the server tells without being asked (uvicorn does)."""
        if self.gone:
            return True
        known = getattr(getattr(self._receive, "__self__", None), "disconnected", None)
        return known if isinstance(known, bool) else None

    async def client_gone(self) -> bool:
        """Whether the client has hung up. Nothing is taken from what the application may still read."""
        known = self.hung_up()
        if known is not None:
            return known
        while not self._kept or not self._kept[-1].get("more_body", False):
            asking = asyncio.ensure_future(self._receive())
            for _ in range(3):
                await asyncio.sleep(0)
            if not asking.done():
                asking.cancel()
                await asyncio.wait([asking])
                if asking.cancelled():
                    return False
            message = asking.result()
            self._kept.append(message)
            if message["type"] == "http.disconnect":
                self.gone = True
                return True
        return False
