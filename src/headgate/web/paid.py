"""A paid answer: kept back whole until its payment has settled, in memory and then on disk.

An answer that left cannot be taken back, so nothing of it leaves before the transfer is proven and booked
(contract §4, steps 6 to 9). The application's messages go out as they came, with the receipt added.
"""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import IO

import msgspec

from headgate.config import Limits
from headgate.service.pay import Receipt
from headgate.store.operations import KeptAnswer
from headgate.web.problems import EXPOSED, Headers, Message, Scope, Send, is_last

IN_MEMORY_BYTES = 1024 * 1024
RECEIPT = b"Headgate-Receipt"
_RECEIPT = RECEIPT.lower()
_OWN = frozenset({b"payment-response", b"payment-required", _RECEIPT})


def kept_bytes(limits: Limits, scope: Scope) -> int:
    """How large an answer may be to be kept; -1: none is.

    The answer to a HEAD is not that to its GET, which the same payment opens: that one is still to be served.
    """
    return -1 if scope["method"] == "HEAD" else limits.kept_answer_bytes


class PaidAnswer:
    """Stands in for the server's `send` and gathers the answer of one paid request."""

    __slots__ = ("_file", "_kept_bytes", "_others", "_when_whole", "_whole", "size", "start")

    def __init__(self, kept_bytes: int, when_whole: Callable[[], Awaitable[None]]) -> None:
        self.start: Message | None = None
        self.size = 0
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115
        self._others: list[Message] = []
        self._kept_bytes = kept_bytes
        self._whole = False
        self._when_whole = when_whole

    async def send(self, message: Message) -> None:
        """Take one message of the application; with the last one the answer is whole."""
        if self._whole:
            return
        if message["type"] == "http.response.start":
            if self.start is not None:  # a time-out cancelled its first answer: nothing of that counts
                self._file.seek(0)
                self._file.truncate()
                self.size = 0
                self._others.clear()
            self.start = message
        elif message["type"] == "http.response.body":
            body = message.get("body", b"")
            self.size += len(body)
            self._file.write(body)
        elif self.start is not None:  # before the start stand hints at an answer that may never leave
            self._others.append(message)  # a file to be sent, trailers
        if self.start is not None and is_last(self.start, message):
            self._whole = True
            await self._when_whole()

    @property
    def whole(self) -> bool:
        """Whether the application has said all of it."""
        return self._whole

    @property
    def status(self) -> int:
        """The application's status; 500 if it never answered."""
        return 500 if self.start is None else int(self.start["status"])

    def body(self) -> bytes:
        """The whole body (of an answer small enough to be kept or measured)."""
        self._file.seek(0)
        return self._file.read()

    def messages(self) -> Iterator[Message]:
        """The answer once more, to be measured: its body in pieces, however large it is, then the rest."""
        self._file.seek(0)
        while chunk := self._file.read(IN_MEMORY_BYTES):
            yield {"type": "http.response.body", "body": chunk, "more_body": True}
        yield from self._others

    def kept(self, until_us: int) -> KeptAnswer:
        """What is kept for the payer: status, headers, and the body unless it is too large."""
        assert self.start is not None
        complete = self.size <= self._kept_bytes and not self._others
        return KeptAnswer(
            self.status,
            encode_headers(self.start.get("headers", ())),
            self.body() if complete else None,
            until_us,
        )

    async def release(self, send: Send, added: Headers = ()) -> None:
        """Let the answer out; one that the application cut off stays cut off."""
        if self.start is None:
            return
        if added:
            self.start["headers"] = with_receipt(self.start.get("headers", ()), added)
        await send(self.start)
        self._file.seek(0)
        ends_with_body = not any(message["type"].endswith("send") for message in self._others)
        left = self.size
        while left > 0:
            chunk = self._file.read(IN_MEMORY_BYTES)
            left -= len(chunk)
            more = left > 0 or not self._whole
            await send({"type": "http.response.body", "body": chunk, "more_body": more})
        if self.size == 0 and ends_with_body and self._whole:
            await send({"type": "http.response.body", "body": b""})
        for message in self._others:
            await send(message)

    def close(self) -> None:
        """Give the spooled body's memory or file back."""
        self._file.close()


def receipt_headers(receipt: Receipt, url: str) -> Headers:
    """What a payer gets with the answer."""
    return ((b"PAYMENT-RESPONSE", receipt.header), (b"Headgate-Receipt", url.encode()), EXPOSED)


def with_receipt(headers: Iterable[Sequence[bytes]], added: Headers) -> list[tuple[bytes, bytes]]:
    """An application's headers for a paid answer: never public in a cache, and with the receipt.

    Repeated headers stay repeated. The application's own private caching policy stays; anything that a shared
    cache could keep becomes `private, no-store` (failure case 26).
    """
    kept = [(bytes(name), bytes(value)) for name, value in headers if not _is_withheld(name.lower())]
    policies = [value for name, value in kept if name.lower() == b"cache-control"]
    if not policies or not all(_is_private(policy) for policy in policies):
        kept = [pair for pair in kept if pair[0].lower() != b"cache-control"]
        kept.append((b"cache-control", b"private, no-store"))
    return [*kept, *added]


def _is_withheld(name: bytes) -> bool:
    """Headgate's own headers, and policies for shared caches alone, which go before `Cache-Control` there."""
    return name in _OWN or name == b"surrogate-control" or name.endswith(b"cdn-cache-control")


def _is_private(policy: bytes) -> bool:
    """Whether a policy keeps shared caches out. `private="…"` does so for the headers it names only."""
    directives = [word.strip() for word in policy.lower().split(b",")]
    names = {each.partition(b"=")[0] for each in directives}
    return not names & {b"public", b"s-maxage"} and bool({b"private", b"no-store"}.intersection(directives))


def encode_headers(headers: Iterable[Sequence[bytes]]) -> bytes:
    """Headers as they are kept."""
    return msgspec.msgpack.encode([(bytes(name), bytes(value)) for name, value in headers])


def decode_headers(kept: bytes) -> list[tuple[bytes, bytes]]:
    """Kept headers."""
    return msgspec.msgpack.decode(kept, type=list[tuple[bytes, bytes]])
