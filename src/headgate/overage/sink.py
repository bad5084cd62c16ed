"""What carries rows to a receiver, and the one way it says that a delivery failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headgate.model.errors import HeadgateError
from headgate.overage.use import OverageUse


class DeliveryFailed(HeadgateError):
    """The receiver did not take the batch; it stays at the head and is tried again.

    `retry_after_us`: the receiver asked for so much time. `gone`: the receiver wants nothing more; delivery
    pauses until the operator acts.
    """

    def __init__(self, message: str, *, retry_after_us: int | None = None, gone: bool = False) -> None:
        self.retry_after_us = retry_after_us
        self.gone = gone
        super().__init__(message)


class Sink(Protocol):
    """A receiver. `name` is the export's in the store: each sink has cursors of its own."""

    @property
    def name(self) -> str:
        """Stable for ever: under another name everything would be delivered anew."""
        ...

    @property
    def batch_size(self) -> int:
        """At most so many rows at once, at least 1."""
        ...

    async def deliver(self, uses: Sequence[OverageUse]) -> None:
        """Return once the receiver has taken all of the batch, within a bounded time.

        Raises:
            DeliveryFailed: it has not, or it is not known whether it has.
        """
        ...

    async def close(self) -> None:
        """Give connections back."""
        ...
