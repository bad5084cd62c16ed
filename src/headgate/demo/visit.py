"""After the story: all stays up, with lines to try by hand, and each row they make is told as it lands."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from headgate.demo.stage import Stage
from headgate.demo.teller import Teller
from headgate.service.events import events

_LOOK_EVERY_S: Final = 0.3
_DOCUMENT: Final = "-H content-type:text/plain -d 'Well. Done.'"


async def stay(stage: Stage, teller: Teller) -> None:
    """Say what to try, tell what comes of it, until Ctrl-C."""
    invite(stage, teller)
    async with _politely_stopped() as stopped:
        told = len(await _rows(stage))
        while not stopped.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), _LOOK_EVERY_S)
            told = await _tell_new(stage, teller, told)
    teller.say()
    teller.say("The demo has ended; its store and its chain are gone.")


def invite(stage: Stage, teller: Teller) -> None:
    """The lines to try. They are for copying, so none is broken."""
    command = shlex.quote(_command())
    config = shlex.quote(str(stage.config_path))
    teller.rule("Your turn")
    teller.say(
        "All of it is still running, and each row you make is shown here. In another terminal "
        "(Ctrl-C in this one ends the demo):"
    )
    for heading, lines in (
        (
            "",
            (
                f"URL={stage.gated.origin}/v1/documents/process",
                f"ADA={stage.ada.secret}",
                f"CONTOSO={stage.contoso.secret}",
            ),
        ),
        (
            "a seat, an overage, an offer (402):",
            (_curl("ADA"), _curl("CONTOSO"), f"curl -i $URL {_DOCUMENT}"),
        ),
        (
            "pay as an agent does, with play money:",
            (
                f"{command} pay $URL --dev --method POST \\",
                "  --header content-type:text/plain --body 'Well. Paid.'",
            ),
        ),
        (
            "the books:",
            (
                f"CONFIG={config}",
                *(f"{command} {what} -c $CONFIG" for what in ("report", "events", "verify")),
            ),
        ),
    ):
        teller.say(heading, "dim")
        for line in lines:
            teller.copyable(line)
    teller.say()


def _curl(key: str) -> str:
    return f'curl $URL -H "X-API-Key: ${key}" {_DOCUMENT}'


async def _rows(stage: Stage) -> list[dict[str, Any]]:
    store = stage.gate.store
    assert store is not None
    return [row async for row in events(store.driver, store.registry)]


async def _tell_new(stage: Stage, teller: Teller, told: int) -> int:
    """Tell the rows after the first `told`; how many there are now."""
    rows = await _rows(stage)
    for row in rows[told:]:
        who = row["customer"] or f"{row['payer'][:8]}…{row['payer'][-4:]}"
        teller.row(row["occurred_at"][11:19], row["channel"], row["action"], who, row["charged_amount"])
    return len(rows)


@asynccontextmanager
async def _politely_stopped() -> AsyncIterator[asyncio.Event]:
    """An event that is set by Ctrl-C, or by whoever stops this process politely."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    caught = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # not in a thread
            loop.add_signal_handler(number, stopped.set)
            caught.append(number)
    try:
        yield stopped
    finally:
        for number in caught:
            loop.remove_signal_handler(number)


def _command() -> str:
    """How the visitor calls `headgate`: by name where that is this one, else by its path."""
    beside = Path(sys.executable).with_name("headgate")
    if shutil.which("headgate") == str(beside) or not beside.exists():
        return "headgate"
    with contextlib.suppress(ValueError):
        beside = beside.relative_to(Path.cwd())
    return str(beside)
