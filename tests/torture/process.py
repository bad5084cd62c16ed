"""The seller's processes, and one request to them."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from multidict import CIMultiDict

from tests.torture.outcome import Answer, Outcome

ROOT = Path(__file__).parents[2]


class Seller:
    """The seller's process, whichever life it is in; `name` and `seed` make its failures and answers."""

    def __init__(self, config: Path, name: str, seed: int) -> None:
        self._config = config
        self._name = name
        self._seed = seed
        self._process: asyncio.subprocess.Process | None = None
        self._changing = asyncio.Lock()
        self.up = asyncio.Event()
        self.url = ""
        self.lives = 0

    async def die_and_rise(self) -> None:
        """Killed in the middle of everything, and started again."""
        async with self._changing:
            await self.kill()
            await self.start()

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        given = (str(self._config), f"{self._name}{self.lives}", str(self._seed))
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.torture.seller", *given),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            self.url = (await self._process.stdout.readline()).decode().strip()
        if not self.url.startswith("http"):
            raise RuntimeError("the seller's process did not start")
        self.lives += 1
        self.up.set()

    async def kill(self) -> None:
        """`kill -9`."""
        self.up.clear()
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()


@dataclass(frozen=True, slots=True)
class Call:
    """One request; with a body it is a POST. `may_break`: its answer may end early without a death."""

    kind: str
    target: str
    headers: Iterable[tuple[str, str]] = ()
    body: bytes | None = None
    may_break: bool = False
    patience_s: float = 30


async def send(session: aiohttp.ClientSession, seller: Seller, call: Call, outcome: Outcome) -> Answer | None:
    """Send it to a process that lives; None where no whole answer came, which is wrong unless that died."""
    await seller.up.wait()
    life = seller.lives
    method = "GET" if call.body is None else "POST"
    try:
        async with (
            asyncio.timeout(call.patience_s),
            session.request(
                *(method, seller.url + call.target),
                headers=CIMultiDict(call.headers),
                data=call.body,
                allow_redirects=False,
            ) as answer,
        ):
            found = Answer(answer.status, answer.headers, await answer.read())
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        if not call.may_break and life == seller.lives and seller.up.is_set():
            outcome.wrong(f"{call.kind}: no answer ({type(error).__name__}: {error})")
        outcome.answers[f"{call.kind}: none"] += 1
        return None
    outcome.answers[f"{call.kind}: {found.status}"] += 1
    return found
