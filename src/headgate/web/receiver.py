"""The request's body on its way to the application: watched, never buffered."""

from __future__ import annotations

import asyncio
import hashlib

from headgate.web.problems import Message, Receive


class BodyTooLarge(Exception):
    """A payer's request body is larger than the configured bound."""


class Receiver:
    """Stands in for the server's `receive`: sees disconnects, and for payers digests and bounds the body."""

    __slots__ = ("_digest", "_kept", "_limit", "_receive", "_size", "complete", "gone")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: list[Message] = []
        self._digest: hashlib._Hash | None = None
        self._limit = 0
        self._size = 0
        self.complete = False
        self.gone = False

    def watch_body(self, limit: int) -> None:
        """From now on digest the body as the handler reads it, and stop at `limit` bytes."""
        self._digest = hashlib.sha256()
        self._limit = limit

    @property
    def too_large(self) -> bool:
        """Whether the body went over its bound."""
        return self._digest is not None and self._size > self._limit

    @property
    def body_digest(self) -> bytes | None:
        """SHA-256 of the body, once it was read to its end."""
        return self._digest.digest() if self._digest is not None and self.complete else None

    async def __call__(self) -> Message:
        message = self._kept.pop(0) if self._kept else await self._receive()
        self._note(message)
        return message

    def _note(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self.gone = True
        elif message["type"] == "http.request":
            self.complete = not message.get("more_body", False)
            if self._digest is not None:
                body = message.get("body", b"")
                self._size += len(body)
                if self._size > self._limit:
                    raise BodyTooLarge
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
