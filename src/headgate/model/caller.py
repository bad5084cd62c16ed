"""Whom a request is served to: what `identify` returns, and what a handler can read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """What the seller's auth knows: the customer, and where known the seat (a named user) and the key.

    All are the seller's own ids, except `key` where the caller used one of Headgate's API keys (`key_12`).
    """

    customer: str
    seat: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is served in a handler (contract §9).

    `channel` is `seat` for a customer (whether units become `overage` is decided when they are booked),
    `x402` for a payer, `free` where nothing is owed. `operation_id` is the same on every retry of the same
    operation.
    """

    channel: str
    customer: str | None
    seat: str | None
    payer: str | None
    request_id: str
    operation_id: str
