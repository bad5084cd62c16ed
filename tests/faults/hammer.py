"""One process that uses a store as hard as it can; `test_processes.py` starts several and kills them.

    python -m tests.faults.hammer STORE burst CUSTOMER COUNT     COUNT requests at once; prints the decisions
    python -m tests.faults.hammer STORE forever NAME FIRST       works until it is killed

`burst` says when it is ready and waits for a line, so that several begin together. What `forever` has been
told is booked it writes down, a line each, before it does anything else: `use REQUEST UNITS` for a request,
`record N` for the record `NAME-N`; records are counted from FIRST.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import sys
import time
from collections import Counter
from typing import Any

from headgate.model.admission import Decision, always_yes
from headgate.model.booking import Use
from headgate.model.calendar import AccountingCalendar
from headgate.model.caller import Identity
from headgate.model.errors import AllowanceExhausted
from headgate.service.admit import Desk, Presented
from headgate.service.directory import Directory
from headgate.service.ids import RequestIds
from headgate.store.ledger import Ledger
from headgate.store.names import Names
from headgate.store.registry import Registry
from headgate.store.sqlite import SqliteDriver
from tests.registries import DOC

CUSTOMERS = ("open", "capped", "block", "payer")


def now_us() -> int:
    return time.time_ns() // 1000


async def open_desk(path: str) -> Desk:
    driver = SqliteDriver(path)
    ledger = Ledger(driver, AccountingCalendar("UTC"), now_us)
    await ledger.open()
    driver.start()
    directory = Directory(Registry(driver), mode="test", zone="UTC", grace_us=0)
    return Desk(directory, ledger, Names(driver), now_us, RequestIds(), "pass")


async def request(desk: Desk, customer: str, decide: random.Random) -> tuple[Decision, bytes, int]:
    """One request: admitted, worked on, then captured, or released where the application failed."""
    await desk.directory.refresh()
    admitted = await desk.admit(DOC, "POST /docs", Presented(None, Identity(customer), credentials=True))
    if admitted.decision not in (Decision.COUNT, Decision.HELD):
        return admitted.decision, admitted.request_id, 0
    await asyncio.sleep(decide.random() / 200)
    if decide.random() < 0.1:
        await desk.release(admitted)
        return admitted.decision, admitted.request_id, 0
    events = await desk.capture(admitted, 1)
    return admitted.decision, admitted.request_id, sum(event.units for event in events)


async def burst(desk: Desk, customer: str, count: int) -> None:
    always = random.Random()
    always.random = lambda: 0.5  # type: ignore[method-assign]  no failures: every unit counts
    answers = await asyncio.gather(*(request(desk, customer, always) for _ in range(count)))
    tell(json.dumps(Counter(decision.name for decision, _, _ in answers)))


def tell(line: str) -> None:
    os.write(1, line.encode() + b"\n")


async def keep_requesting(desk: Desk, decide: random.Random) -> None:
    while True:
        _, identifier, units = await request(desk, decide.choice(CUSTOMERS), decide)
        if units:
            tell(f"use {identifier.hex()} {units}")


async def keep_recording(desk: Desk, name: str, number: int) -> None:
    while True:
        await desk.directory.refresh()
        at_us = now_us()
        ref = CUSTOMERS[number % 2]
        customer = await desk.directory.customer(ref, at_us)
        standing = await desk.directory.standing(customer, DOC.name, at_us)
        use: Any = Use(
            *(standing, await desk.names.action(DOC.name), None, 1 + number % 3, 0, 0, None, None),
            *(desk.ids.new(at_us), at_us),
            record=(hashlib.sha256(f"{name}-{number}".encode()).digest(), b"content"),
            must_fit=not always_yes(standing),
        )
        try:
            await desk.ledger.submit(use)
            tell(f"record {number}")
        except AllowanceExhausted:
            tell(f"refused {number}")
        number += 1


async def main(path: str, mode: str, who: str, number: int) -> None:
    desk = await open_desk(path)
    if mode == "burst":
        tell("ready")
        sys.stdin.readline()
        await burst(desk, who, number)
        await desk.ledger.close()
        await desk.ledger.driver.close()
        return
    await desk.ledger.recover_dead()
    decide = random.Random()
    async with asyncio.TaskGroup() as group:
        for _ in range(12):
            group.create_task(keep_requesting(desk, decide))
        group.create_task(keep_recording(desk, who, number))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4], int(sys.argv[4])))  # type: ignore[misc]
