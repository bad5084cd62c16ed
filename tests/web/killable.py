"""A seller's process that kills itself at a given step of a payment; `test_killed.py` starts it.

    python -m tests.web.killable CONFIG STEP     prints its origin once it answers; STEP `-`: it lives

The handler appends a line to `handled` beside the configuration, so that runs can be counted across deaths.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from headgate import Headgate
from headgate.app import clock_us
from headgate.config import parse
from headgate.service.facilitators import make_takers
from headgate.service.flow import Flow
from headgate.service.stream import Streams
from headgate.store.ledger import Ledger
from headgate.store.operations import IntendPayment, KeepAgain, ServeAgain, SettlePayment
from tests.web.shop import serving

STEPS = ("claimed", "verified", "working", "served", "intended", "settled", "booked")
PREPAID_STEPS = ("claimed", "verified", "intended", "settled", "booked", "taken", "working", "done", "kept")
STREAM_STEPS = ("held", "begun", "flowing", "ending", "ended")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Deadly:
    """A facilitator's client that dies before or after it asks."""

    def __init__(self, facilitator: Any, step: str) -> None:
        self._facilitator = facilitator
        self._step = step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._facilitator, name)

    async def verify(self, *asked: Any) -> Any:
        if self._step == "claimed":
            die()
        answer = await self._facilitator.verify(*asked)
        if self._step == "verified":
            die()
        return answer

    async def settle(self, *asked: Any) -> Any:
        if self._step == "intended":
            die()
        answer = await self._facilitator.settle(*asked)
        if self._step == "settled":
            die()
        return answer


BEFORE = {"served": IntendPayment, "done": KeepAgain}
AFTER = {"booked": SettlePayment, "taken": ServeAgain, "kept": KeepAgain}
"""Steps that are told by what is about to be written, or was just written.

Where the work is paid before it: `taken` is after the booking and before the work, `done` when the work is
done and its answer not yet kept, `kept` when it is kept and has not left.
"""


def deadly_ledger(step: str) -> None:
    """Die with an operation not yet written, or just written."""
    submit, before, after = Ledger.submit, BEFORE.get(step), AFTER.get(step)

    def watched(self: Ledger, operation: Any) -> Any:
        if before is not None and isinstance(operation, before):
            die()
        future = submit(self, operation)
        if after is not None and isinstance(operation, after):
            future.add_done_callback(lambda _future: die())
        return future

    Ledger.submit = watched  # type: ignore[method-assign]


def deadly_streams(step: str) -> None:
    """Die before a stream is on disk, just after, or just before and after its end is booked."""
    for kind in (Streams, Flow):
        begin, end = kind.begin, kind.end  # type: ignore[attr-defined]

        async def begin_and_die(self: Any, *given: Any, begin: Any = begin) -> Any:
            if step == "held":
                die()
            result = await begin(self, *given)
            if step == "begun":
                die()
            return result

        async def end_and_die(self: Any, *given: Any, end: Any = end, **more: Any) -> Any:
            if step == "ending":
                die()
            result = await end(self, *given, **more)
            if step == "ended":
                die()
            return result

        kind.begin, kind.end = begin_and_die, end_and_die  # type: ignore[attr-defined]


def application(handled: Path, step: str) -> Starlette:
    def counted() -> int:
        with handled.open("a") as file:
            file.write("handled\n")
        return len(handled.read_text().split())

    async def handler(request: Request) -> Response:
        run = counted()
        if step == "working":
            die()
        return PlainTextResponse(f"answer {run} {await request.body()!r}")

    async def flow(_request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            yield b"12345"
            yield b"67"
            if step == "flowing":
                await asyncio.sleep(0.2)  # what was sent is on its way
                die()
            yield b"890"

        counted()
        return StreamingResponse(parts())

    methods = ["GET", "POST"]
    worked = [Route(path, handler, methods=methods) for path in ("/v1/doc", "/v1/first")]
    return Starlette(routes=[*worked, Route("/v1/flow", flow)])


async def main(path: Path, text: str, step: str) -> None:
    config = parse(text, file=str(path), environ={})
    facilitators = {
        network: Deadly(facilitator, step)
        for network, facilitator in make_takers(config, clock_us).facilitators.items()
    }
    gate = Headgate(config, facilitators=facilitators)
    deadly_ledger(step)
    deadly_streams(step)
    app = gate.middleware(application(path.parent / "handled", step))
    async with serving(app, lifespan="on") as url:
        sys.stdout.write(url + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[1]).read_text(), sys.argv[2]))
