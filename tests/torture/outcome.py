"""What a run saw, and every way in which it was wrong; and which 5xx are Headgate's own, on purpose."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

CLIENTS = 24
ON_PURPOSE = frozenset({
    (502, "settlement_unverified"),
    (503, "payment_pending"),
    (503, "facilitator_unavailable"),
})  # fmt: skip
"""And no others, not even at a kill. Not `store_unavailable`: no store fails in a run, and whoever is killed
leaves no lock behind. Not `offers_not_ready`: what a facilitator has said is kept for the next start, and the
first time is waited for. Not `paid_work_failed`: the framework answers for a handler that fails."""
TOLD = 50


class Answer(NamedTuple):
    """One answer, whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def good(self) -> bool:
        """Whether it is one that is billed."""
        return 200 <= self.status < 300

    @property
    def code(self) -> str:
        """The code of a problem document; empty where it is none."""
        if self.headers.get("content-type") != "application/problem+json":
            return ""
        return str(json.loads(self.body).get("code", ""))


@dataclass
class Outcome:
    """What a run saw. `events` counts the ledger's rows by channel."""

    seed: int
    answers: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    kills: int = 0
    transfers: int = 0
    events: Counter[str] = field(default_factory=Counter)
    states: dict[int, int] = field(default_factory=dict)

    def wrong(self, what: str) -> None:
        """One more fault; the first of them are told."""
        if len(self.faults) < TOLD:
            self.faults.append(what)

    def failed(self, kind: str, answer: Answer) -> None:
        """An answer of 500 or above that no handler was told to give."""
        self.codes[answer.code] += 1
        if (answer.status, answer.code) not in ON_PURPOSE:
            self.wrong(f"{kind}: {answer.status} {answer.code or answer.body[:80]!r} is not ours on purpose")
