"""The story's bookkeeping: each request is sent, its answer held against what was foretold, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from headgate.demo import payments
from headgate.demo.calls import Answer, Asked
from headgate.demo.stage import INCLUDED, Key, Stage
from headgate.demo.tally import Tally, offer, usd
from headgate.demo.teller import Teller

BY_THE_APPLICATION: Final = frozenset({200, 415, 422})


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as it should be."""

    what: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its answer. `paid`: by an agent, whose answers carry a receipt of Headgate's."""

    who: str
    asked: Asked
    answer: Answer
    paid: bool


class Play:
    """What has happened so far on a stage."""

    def __init__(self, stage: Stage, teller: Teller) -> None:
        self.stage = stage
        self.teller = teller
        self.tally = Tally(INCLUDED)
        self.exchanges: list[Exchange] = []
        self.differences: list[Difference] = []

    async def nobody(self, asked: Asked, status: int) -> Answer:
        """Ask without credentials and without payment."""
        return self._heard("nobody", asked, await self.stage.gated.send(asked), status, "")

    async def customer(
        self, key: Key, asked: Sequence[Asked], status: int, *, payment: str = ""
    ) -> list[Answer]:
        """Ask with a key, for one thing after the other; told as one line."""
        headers = {"Authorization": f"Bearer {key.secret}"}
        if payment:
            headers[payments.HEADER] = payment
        answers, channels = [], []
        for one in asked:
            answer = await self.stage.gated.send(one, headers)
            channels.append(self.tally.customer(one.path, answer, key.customer, key.seat, key.key_id))
            answers.append(self._heard(key.customer, one, answer, status, channels[-1], told=False))
        self._tell_many(asked, answers, channels)
        return answers

    async def agent(self, asked: Asked, payment: str, status: int, *, label: str = "") -> Answer:
        """Ask with a payment."""
        answer = await payments.pay(self.stage.gated, asked, payment)
        channel = self.tally.agent(asked.path, answer)
        return self._heard("agent", asked, answer, status, channel, label=label)

    def check(self, what: str, expected: object, found: object) -> None:
        """Note a difference, if it is one."""
        if expected != found:
            self.differences.append(Difference(what, str(expected), str(found)))

    def _heard(
        self,
        who: str,
        asked: Asked,
        answer: Answer,
        status: int,
        channel: str,
        *,
        told: bool = True,
        label: str = "",
    ) -> Answer:
        self.exchanges.append(Exchange(who, asked, answer, who == "agent"))
        self.check(f"{who}: {asked.method} {asked.path} {asked.document}: status", status, answer.status)
        if told:
            self.teller.line(label or named(asked), str(answer.status), outcome(answer, channel))
        return answer

    def _tell_many(self, asked: Sequence[Asked], answers: Sequence[Answer], channels: Sequence[str]) -> None:
        alike = {(one.path, answer.status) for one, answer in zip(asked, answers, strict=True)}
        if len(asked) == 1 or len(alike) > 1:
            for one, answer, channel in zip(asked, answers, channels, strict=True):
                self.teller.line(named(one), str(answer.status), outcome(answer, channel))
            return
        sold = ", ".join(f"{channel} ×{times}" for channel, times in Counter(channels).items() if channel)
        what = f"POST {short(asked[0].path)}  {len(asked)} documents"
        self.teller.line(what, f"{answers[0].status} ×{len(asked)}", sold)


def named(asked: Asked) -> str:
    """A request in one short line."""
    return f"{asked.method} {short(asked.path)}  {asked.document}".rstrip()


def short(path: str) -> str:
    """A path by its last part."""
    return "…/" + path.rpartition("/")[2]


def outcome(answer: Answer, channel: str) -> str:
    """What became of a request: the channel it was sold through, the price asked, or why it was refused."""
    if channel:
        return channel
    offered = offer(answer)
    if offered is not None:
        reason = str(offered.get("error", ""))
        if reason == "payment_required":
            return f"pay {usd(asked_micros(offered))}"
        return (
            reason.removeprefix("invalid_exact_evm_").removeprefix("payload_").removeprefix("authorization_")
        )
    return reason_of(answer)


def asked_micros(offered: dict[str, object]) -> int:
    """The amount of the first thing an offer accepts."""
    accepts = offered.get("accepts")
    first = accepts[0] if isinstance(accepts, list) and accepts else {}
    return int(first.get("amount", 0))


def reason_of(answer: Answer) -> str:
    """A problem's name: Headgate's `code`, or the last word of the application's `type`."""
    if answer.header("content-type") != "application/problem+json":
        return ""
    problem = msgspec.json.decode(answer.body)
    return str(problem.get("code") or str(problem.get("type", "")).rpartition("/")[2])
