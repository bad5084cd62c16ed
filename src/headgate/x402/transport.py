"""One bounded HTTP question: who was reached, what was said, and whether it may have been acted on.

Connections are kept alive and shared by all questions to one peer in one event loop. No redirect is followed,
no cookie kept, no answer decompressed, and no more of it read than was allowed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from headgate.model.errors import described

# Most servers drop idle connections after 5 s; one dropped under a question leaves its outcome unknown.
KEEP_ALIVE_S = 4
FIELD_BYTES = 64 * 1024
"""How long one header may be: offers travel in one, and some servers' policies are long."""


class NotReached(Exception):
    """No connection could be made: nothing was asked."""


class NoAnswer(Exception):
    """The question may have arrived; no whole answer did. `dropped`: the connection ended before any byte."""

    def __init__(self, message: str, *, dropped: bool = False) -> None:
        self.dropped = dropped
        super().__init__(message)


class _Dropped(aiohttp.ClientError):
    """The connection ended under a question; its cause says how."""


class Reply:
    """Status, headers, and the body, cut at the bound."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: CIMultiDictProxy[str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class Connections:
    """Kept-alive connections, opened when first needed and again after `close` or in another event loop."""

    def __init__(self, *, max_answer_bytes: int, connect_timeout_ms: int = 3_000) -> None:
        self._max_answer_bytes = max_answer_bytes
        self._connect_timeout_ms = connect_timeout_ms
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def timeout(self, total_ms: int) -> aiohttp.ClientTimeout:
        """A bound on a whole question; the one on connecting ends first, as it tells that none was asked."""
        connect_ms = min(self._connect_timeout_ms, total_ms * 9 // 10)
        return aiohttp.ClientTimeout(total=total_ms / 1000, sock_connect=connect_ms / 1000)

    async def ask(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
        body: bytes | None = None,
    ) -> Reply:
        """Ask once.

        Raises:
            NotReached: nothing was sent.
            NoAnswer: something may have been.
        """
        session = self._opened()
        try:
            async with session.request(
                method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                answer = await _bounded(response.content, self._max_answer_bytes)
                return Reply(response.status, response.headers, answer)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            raise NotReached(described(error)) from error
        except _Dropped as error:
            raise NoAnswer(described(error.__cause__ or error), dropped=True) from error
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            dropped = isinstance(error, (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError))
            raise NoAnswer(described(error), dropped=dropped) from error

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _opened(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            self._loop = loop
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S, ttl_dns_cache=60),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                middlewares=(_once,),
                max_line_size=FIELD_BYTES,
                max_field_size=FIELD_BYTES,
            )
        return self._session


async def _once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Asked once is asked once: by itself aiohttp asks again, unheard, when a GET's connection ends."""
    try:
        return await send(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _Dropped from error


async def _bounded(content: aiohttp.StreamReader, limit: int) -> bytes:
    first = await content.readany()
    if content.at_eof():
        return first[:limit]
    parts = bytearray(first)
    while len(parts) <= limit:
        part = await content.readany()
        if not part:
            break
        parts += part
    return bytes(parts[:limit])
