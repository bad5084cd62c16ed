"""Requests and answers over real HTTP, as plain values. Nothing here knows of Headgate or of money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from yarl import URL

from headgate.demo.documents import Sample

FORMATS: Final = "/v1/documents/formats"
PROCESS: Final = "/v1/documents/process"
SUMMARISE: Final = "/v1/documents/summarise"
_DIFFERS_ANYWAY: Final = frozenset({"date"})


@dataclass(frozen=True, slots=True)
class Asked:
    """A request without credentials or payment. `document` is what people call the body."""

    method: str
    path: str
    document: str = ""
    media_type: str = ""
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it came; header names in lower case, in order, repeated ones repeated."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)

    def header(self, name: str) -> str | None:
        """The first header of that (lower-case) name."""
        return next((value for known, value in self.headers if known == name), None)

    @property
    def lasting_headers(self) -> tuple[tuple[str, str], ...]:
        """The headers that two answers to the same request have in common: all but the time."""
        return tuple(pair for pair in self.headers if pair[0] not in _DIFFERS_ANYWAY)


def ask(path: str, sample: Sample) -> Asked:
    """A request that sends one of the sample documents."""
    return Asked("POST", path, sample.name, sample.media_type, sample.read())


class Line:
    """A connection to one server, for customers and agents alike."""

    def __init__(self, session: aiohttp.ClientSession, origin: str) -> None:
        self._session = session
        self.origin = origin

    async def send(self, asked: Asked, headers: Mapping[str, str] | None = None) -> Answer:
        """Send a request, with these headers besides its own, and read the whole answer."""
        sent = dict(headers or {})
        if asked.media_type:
            sent["Content-Type"] = asked.media_type
        body = asked.body if asked.method == "POST" else None
        url = URL(self.origin + asked.path, encoded=True)
        async with self._session.request(asked.method, url, data=body, headers=sent) as got:
            pairs = tuple(
                (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in got.raw_headers
            )
            return Answer(got.status, pairs, await got.read())


def connections() -> aiohttp.ClientSession:
    """One client for everybody: answers exactly as they are sent, redirects and proxies left alone."""
    return aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=60))
