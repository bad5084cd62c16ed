"""A facilitator on loopback that does what a test says: refuses, lies, hangs, loses its answer, goes away.

Unscripted it says yes to everything. `script.settle.append(drop)` makes its next /settle do that instead.
It remembers what it was asked (`asked`) and which payments it settled, also those whose answer it then lost.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

Json = dict[str, Any]
SETTLER = "0x0000000000000000000000000000000000FAc111"
NETWORKS = ("eip155:84532", "eip155:137", "eip155:8453", "eip155:80002")


class Drop(Exception):
    """Close the connection without another byte."""


class Hang(Exception):
    """Say nothing until the other side gives up."""


@dataclass(slots=True)
class Answer:
    """A status and a body; `raw` replaces the whole HTTP answer, `delay_s` comes first."""

    body: bytes = b""
    status: int = 200
    headers: str = ""
    raw: bytes | None = None
    delay_s: float = 0.0


Step = Callable[["ScriptedFacilitator", str, Json], Answer]


def answering(body: Any, status: int = 200, headers: str = "", delay_s: float = 0.0) -> Step:
    """Answer with this JSON (or these bytes), whatever was asked."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda _facilitator, _step, _asked: Answer(text, status, headers, delay_s=delay_s)


def refusing(reason: str, status: int = 200, **more: Any) -> Step:
    """Say no with a reason."""

    def step(_facilitator: ScriptedFacilitator, endpoint: str, _asked: Json) -> Answer:
        if endpoint == "verify":
            return Answer(json.dumps({"isValid": False, "invalidReason": reason, **more}).encode(), status)
        body = {"success": False, "errorReason": reason, "transaction": "", "network": "", **more}
        return Answer(json.dumps(body).encode(), status)

    return step


def lying(**changes: Any) -> Step:
    """Settle, and say so with these members changed (`...` leaves one out)."""

    def step(facilitator: ScriptedFacilitator, endpoint: str, asked: Json) -> Answer:
        body = json.loads(facilitator.yes(endpoint, asked).body) | changes
        return Answer(json.dumps({name: value for name, value in body.items() if value is not ...}).encode())

    return step


def late(delay_s: float) -> Step:
    """Say yes, but only then."""

    def step(facilitator: ScriptedFacilitator, endpoint: str, asked: Json) -> Answer:
        answer = facilitator.yes(endpoint, asked)
        answer.delay_s = delay_s
        return answer

    return step


def raw(text: bytes) -> Step:
    """Send exactly these bytes and close."""
    return lambda _facilitator, _step, _asked: Answer(raw=text)


def drop(_facilitator: ScriptedFacilitator, _endpoint: str, _asked: Json) -> Answer:
    """Close the connection instead of answering; nothing is settled."""
    raise Drop


def hang(_facilitator: ScriptedFacilitator, _endpoint: str, _asked: Json) -> Answer:
    """Never answer; nothing is settled."""
    raise Hang


def settle_and_lose(facilitator: ScriptedFacilitator, endpoint: str, asked: Json) -> Answer:
    """Settle, then close the connection instead of saying so."""
    facilitator.yes(endpoint, asked)
    raise Drop


@dataclass(slots=True)
class Script:
    """What comes next for each endpoint; when it runs out, the facilitator says yes."""

    verify: deque[Step] = field(default_factory=deque)
    settle: deque[Step] = field(default_factory=deque)
    supported: deque[Step] = field(default_factory=deque)


class ScriptedFacilitator:
    """An x402 v2 facilitator to be mean with, within `async with`; `go` and `come_back` in between."""

    def __init__(self) -> None:
        self.script = Script()
        self.asked: list[tuple[str, Json]] = []
        self.settled: dict[str, Json] = {}
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self._port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Its origin."""
        return f"http://127.0.0.1:{self._port}"

    def count(self, endpoint: str) -> int:
        """How often an endpoint was asked."""
        return sum(1 for name, _ in self.asked if name == endpoint)

    async def __aenter__(self) -> Self:
        await self.come_back()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.go()

    async def come_back(self) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def go(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def yes(self, endpoint: str, asked: Json) -> Answer:
        """The honest answer to a good payment; settling the same payment again gives the same transaction."""
        if endpoint == "supported":
            return Answer(json.dumps(_supported()).encode())
        payload = asked["paymentPayload"]["payload"]
        signed = payload.get("authorization") or payload["permit2Authorization"]
        if endpoint == "verify":
            return Answer(json.dumps({"isValid": True, "payer": signed["from"]}).encode())
        wanted = asked["paymentRequirements"]
        number = len(self.settled) + 1
        fresh = {
            "success": True,
            "transaction": f"0x{number:064x}" if int(wanted["amount"]) else "",
            "network": wanted["network"],
            "payer": signed["from"],
            "amount": wanted["amount"],
        }
        return Answer(json.dumps(self.settled.setdefault(str(signed["nonce"]), fresh)).encode())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while await self._serve_one(reader, writer):
                pass
        except (Drop, ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.headers.append(headers)
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        endpoint = request.split(" ")[1].rpartition("/")[2]
        asked: Json = json.loads(body) if body else {}
        self.asked.append((endpoint, asked))
        steps: deque[Step] = getattr(self.script, endpoint)
        try:
            answer = (steps.popleft() if steps else type(self).yes)(self, endpoint, asked)
        except Hang:
            await reader.read()
            return False
        await asyncio.sleep(answer.delay_s)
        if answer.raw is not None:
            writer.write(answer.raw)
            await writer.drain()
            writer.close()
            return False
        writer.write(
            f"HTTP/1.1 {answer.status} X\r\nContent-Type: application/json\r\n{answer.headers}"
            f"Content-Length: {len(answer.body)}\r\n\r\n".encode()
            + answer.body
        )
        await writer.drain()
        return True


def _supported() -> Json:
    kinds: list[Json] = [{"x402Version": 2, "scheme": "exact", "network": network} for network in NETWORKS]
    kinds += [
        {"x402Version": 2, "scheme": "upto", "network": n, "extra": {"facilitatorAddress": SETTLER}}
        for n in NETWORKS
    ]
    return {"kinds": kinds, "extensions": [], "signers": {"eip155:*": [SETTLER]}}
