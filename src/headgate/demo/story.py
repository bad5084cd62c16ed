"""`headgate demo`: the whole story on one machine, told, checked, and left open for a visitor to try.

A document API stands behind Headgate; customers with keys and agents with wallets use it over real HTTP; then
the books are held against what was really served. Everything happens on loopback and with play money.
"""

from __future__ import annotations

import asyncio
import importlib.util
import io
import logging
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from headgate.demo.books import Books
    from headgate.demo.play import Difference
    from headgate.demo.stage import Stage
    from headgate.demo.teller import Teller

_EXTRA: Final = {"eth": "py-evm", "fastapi": "fastapi", "python_multipart": "python-multipart"}
_PACE_S: Final = 0.6
_INTRO: Final = (
    "Acme Documents reads documents for money: 0.10 USD to process one, 0.25 to summarise one, the same "
    "for everybody. Customers come with keys, agents come with wallets. Everything is real but the money: "
    "a server, its clients and a chain on this machine, and HTTP between them."
)


async def run(*, once: bool, out: TextIO) -> bool:
    """Tell the story on `out`; whether the ledger holds exactly what was served.

    On a terminal it then stays up until Ctrl-C, unless `once`; elsewhere it returns at once.

    Raises:
        ModuleNotFoundError: the `demo` extra is not installed; the message says how to.
        InputError: this machine has no free ports.
    """
    _require_extra()
    # Only now, because each of these needs what the extra brings.
    from headgate.demo.stage import open_stage  # noqa: PLC0415
    from headgate.demo.teller import Teller  # noqa: PLC0415
    from headgate.demo.visit import stay  # noqa: PLC0415

    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(errors="replace")  # a terminal without UTF-8 gets question marks, not a traceback
    # The official SDK logs each payment it refuses; where nobody set up logging it would talk into the story.
    logging.getLogger("x402").addHandler(logging.NullHandler())
    stays = out.isatty() and not once
    teller = Teller(out)
    teller.title("Headgate demo: one API, three channels, one ledger", _INTRO)
    async with open_stage() as stage:
        good = await _tell(stage, teller, pace_s=_PACE_S if stays else 0)
        if stays:
            await stay(stage, teller)
    return good


async def _tell(stage: Stage, teller: Teller, *, pace_s: float) -> bool:
    from headgate.demo.audit import Audit  # noqa: PLC0415
    from headgate.demo.play import Play  # noqa: PLC0415
    from headgate.demo.scenes import Story  # noqa: PLC0415

    play = Play(stage, teller)
    before = stage.balances()
    for step in Story(play).steps():
        await step()
        await asyncio.sleep(pace_s)
    books, verdicts = await Audit(play, before, stage.delivered).run()
    teller.rule(f"The report for {stage.month}")
    _show_report(books, teller)
    for verdict in verdicts:
        teller.verdict(verdict.good, verdict.what, verdict.found)
    _show_differences(play.differences, teller)
    return not play.differences


def _show_report(books: Books, teller: Teller) -> None:
    """The report's table, without the columns of corrections, which are all zero here."""
    from headgate.model.report import to_table  # noqa: PLC0415

    named = {"channel": "channel", "action": "action", "events": "events", "units": "units"}
    named |= {"list_amount": "list USD", "charged_amount": "charged", "settled_amount": "settled"}
    header, *rows, total = to_table(books.report)
    places = [header.index(column) for column in named]
    last = ["total", *(total[place] for place in places[1:])]
    teller.report(list(named.values()), [[row[place] for place in places] for row in rows], last)


def _show_differences(differences: list[Difference], teller: Teller) -> None:
    if not differences:
        return
    teller.say()
    teller.say(f"Not as it should be ({len(differences)}):", "bold red")
    for one in differences:
        teller.difference(one.what, one.expected, one.found)


def _require_extra() -> None:
    missing = [name for module, name in _EXTRA.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ModuleNotFoundError(
            f"the demo needs {', '.join(missing)}, not installed here: pip install 'headgate[demo]'",
            name=missing[0],
        )
