"""Rows of `streams`: a use as it is kept while its stream flows, and streams that change hands.

A use is kept as JSON with every field by place, as `headgate.model.booking.Use` has them.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from headgate.model.booking import Use, counter_key
from headgate.model.hold import CounterKey
from headgate.store.driver import Tx


def write_use(use: Use) -> bytes:
    """A use as it is kept."""
    return msgspec.json.encode(use)


def read_use(text: bytes) -> Use:
    """A kept use."""
    return msgspec.json.decode(text, type=Use)


async def adopt_streams(tx: Tx, slot: int, by_slot: int) -> Counter[CounterKey]:
    """Make the streams of a slot those of another (or of its new owner); the units they hold, by counter."""
    kept: Counter[CounterKey] = Counter()
    for _, _, held, text in await tx.rows("streams_of_slot", (slot,)):
        use = read_use(text)
        kept[counter_key(use.standing, use.action)] += int(held)
    if slot != by_slot:
        await tx.run("streams_adopt", (by_slot, slot))
    return kept
