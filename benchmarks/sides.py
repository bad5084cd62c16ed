"""Who is measured: sellers (a process each) and sides (one kind of request to one seller)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.request import urlopen

from benchmarks import express, garbage, headgate_store, payments
from benchmarks.load import LoadGenerator, LoadJob, LoadResult, UnexpectedAnswerError, get_request
from benchmarks.ready import BrokenError, DidNotStartError, NotAvailableError, Running, python_module, start
from benchmarks.sellers.thing import PATH

Kind = Literal["bare", "seat", "402", "garbage", "expired", "paid"]

BASE = "bare-starlette"
"""The side that every other is compared with."""

_EXPECT: Mapping[Kind, tuple[int, bytes]] = {
    "bare": (200, b""),
    "seat": (200, b""),
    "402": (402, b"payment-required:"),
    "garbage": (400, b""),
    "expired": (402, b"payment-required:"),
    "paid": (200, b"payment-response:"),
}


_EXPIRED = 200

_GARBAGE = {
    "headgate-garbage": garbage.SHORT,
    **{f"headgate-garbage-{number}": (text,) for number, text in enumerate(garbage.LARGE.values(), 1)},
}
"""What is sent to each of those sides, in turn."""


@dataclass(frozen=True, slots=True)
class Side:
    """One row of the table: requests of one kind to one seller."""

    name: str
    seller: str
    kind: Kind
    what: str


SIDES = (
    Side(BASE, "starlette", "bare", "Starlette, nothing in front"),
    Side("bare-fastapi", "fastapi", "bare", "FastAPI, nothing in front"),
    Side("headgate-seat", "headgate", "seat", "a customer inside the plan, event on disk before the answer"),
    Side("headgate-402", "headgate", "402", "no credentials, no payment"),
    Side("headgate-garbage", "headgate", "garbage", "a payment header that holds no payment: 400"),
    *(
        Side(f"headgate-garbage-{number}", "headgate", "garbage", f"the same, large: {kind}")
        for number, kind in enumerate(garbage.LARGE, 1)
    ),
    Side("headgate-expired", "headgate", "expired", "a payment that is over: 402, and nobody is asked"),
    Side("sdk-402", "sdk", "402", "x402 SDK's FastAPI middleware, no payment"),
    Side("express-402", "express", "402", "@x402/express, no payment"),
    Side("headgate-paid", "headgate", "paid", "fresh payments; claim, intent and event on disk"),
    Side("sdk-paid", "sdk", "paid", "x402 SDK's FastAPI middleware, fresh payments, nothing kept"),
    Side("express-paid", "express", "paid", "@x402/express, fresh payments, nothing kept"),
)


def choose(only: Iterable[str]) -> tuple[Side, ...]:
    """The sides that `only` names by side, seller or kind (all, where it is empty), and the base."""
    wanted = set(only)
    return tuple(
        side
        for side in SIDES
        if not wanted or side.name == BASE or wanted & {side.name, side.seller, side.kind}
    )


class Sellers:
    """The seller processes of a run, the request of each side, and what could not be started."""

    def __init__(self, directory: Path, cache: Path, facilitator: Running, signer: payments.Signer) -> None:
        self._directory, self._cache = directory, cache
        self._facilitator = facilitator
        self._signer = signer
        self._offers: dict[str, payments.Offer] = {}
        self._seat_key = ""
        self.running: dict[str, Running] = {}
        self.skipped: dict[str, str] = {}
        self.broken: dict[str, str] = {}
        self.headgate: headgate_store.HeadgateStore | None = None

    @property
    def facilitator_url(self) -> str:
        """Where sellers find the stub facilitator."""
        return f"http://127.0.0.1:{self._facilitator.port}"

    def start(self, sides: Iterable[Side]) -> tuple[Side, ...]:
        """Starts what `sides` need; returns those that run, `skipped` and `broken` say why others do not."""
        starters: dict[str, Callable[[], Running]] = {
            "starlette": lambda: self._python("starlette", "starlette_app"),
            "fastapi": lambda: self._python("fastapi", "fastapi_app"),
            "sdk": lambda: self._python("sdk", "sdk_app", BENCH_FACILITATOR_URL=self.facilitator_url),
            "express": self._express,
            "headgate": self._headgate,
        }
        for seller in dict.fromkeys(side.seller for side in sides):
            try:
                self.running[seller] = starters[seller]()
            except NotAvailableError as reason:
                self.skipped[seller] = str(reason)
            except BrokenError as reason:
                self.broken[seller] = str(reason)
        return tuple(side for side in sides if side.seller in self.running)

    def stop(self) -> None:
        """Ends every seller."""
        for seller in self.running.values():
            seller.stop()

    def _python(self, name: str, module: str, **environment: str) -> Running:
        return start(
            name, python_module("benchmarks.sellers", module), self._directory, environment=environment
        )

    def _express(self) -> Running:
        script = express.install(self._cache)
        environment = express.environment(self.facilitator_url)
        try:
            return start("express", ["node", str(script)], self._directory, environment=environment)
        except DidNotStartError as reason:  # an old node, say: a peer's trouble, not ours
            raise NotAvailableError(str(reason)) from reason

    def _headgate(self) -> Running:
        headgate_store.require_installed()
        self.headgate = headgate_store.HeadgateStore(
            self._directory / "headgate",
            self.facilitator_url,
            included=10**12,
            beyond=("overage",),
        )
        self._seat_key = self.headgate.add_customers({"acme": "overage"})["acme"]
        return self._python("headgate", "headgate_app", **self.headgate.environment)

    def load(
        self, generator: LoadGenerator, side: Side, connections: int, seconds: float, payments_ready: int
    ) -> LoadResult:
        """One slice of load on one side; a paid slice ends early if `payments_ready` are used up.

        Raises:
            UnexpectedAnswerError: another answer than this kind allows, or payments and settlements differ.
        """
        status, header = _EXPECT[side.kind]
        paid = side.kind == "paid"
        requests = self._requests(side, payments_ready)
        job = LoadJob(
            ports=(self.running[side.seller].port,),
            connections=connections,
            requests=requests,
            repeat=not paid,
            expect=frozenset({status}),
            seconds=seconds,
            needed_header=header,
        )
        settled_before = self.payments_settled() if paid else 0
        verified_before = self.payments_verified()
        try:
            result = generator.run(job)
        except UnexpectedAnswerError as error:
            raise UnexpectedAnswerError(f"{side.name}: {error}") from error
        if paid and (settled := self.payments_settled() - settled_before) != result.answers:
            raise UnexpectedAnswerError(
                f"{side.name}: {result.answers} answers, but {settled} payments settled"
            )
        if not paid and self.payments_verified() != verified_before:
            raise UnexpectedAnswerError(f"{side.name}: the facilitator was asked, which costs a call each")
        return result

    def _requests(self, side: Side, payments_ready: int) -> tuple[bytes, ...]:
        port = self.running[side.seller].port
        host = f"127.0.0.1:{port}"
        if side.kind in ("paid", "expired"):
            if side.seller not in self._offers:
                self._offers[side.seller] = self._offer(side)
            offer = self._offers[side.seller]
            if side.kind == "expired":
                return payments.expired_requests(offer, PATH, host, _EXPIRED)
            return self._signer.requests(offer, PATH, host, payments_ready)
        if side.kind == "garbage":
            texts = _GARBAGE[side.name]
            return tuple(get_request(PATH, host, [("PAYMENT-SIGNATURE", text)]) for text in texts)
        credentials = [("Authorization", f"Bearer {self._seat_key}")] if side.kind == "seat" else []
        return (get_request(PATH, host, credentials),)

    def _offer(self, side: Side) -> payments.Offer:
        offer = payments.fetch_offer(self.running[side.seller].port, PATH)
        if not payments.agrees_with_sdk(offer):
            sys.exit(
                f"{side.name}: the benchmark's payments differ from the official client's; mend payments.py"
            )
        return offer

    def payments_settled(self) -> int:
        """Distinct payments that the stub facilitator has settled so far."""
        return self._counts()["payments"]

    def payments_verified(self) -> int:
        """How often the stub facilitator was asked to verify so far."""
        return self._counts()["verified"]

    def _counts(self) -> dict[str, int]:
        with urlopen(f"{self.facilitator_url}/counts", timeout=10) as answer:
            counts: dict[str, int] = json.load(answer)
            return counts
