"""A sink that calls a function of the seller's (`gate.on_overage`).

The function gets a list of `OverageUse` and takes all of it by returning; raising means that none was taken,
and the same rows come again. It may be a coroutine function, which runs on the event loop and is cancelled
when its time is over, or a plain one, which runs in a thread. A thread cannot be stopped: when its time is
over the delivery counts as failed, and the function is not called again before that call has ended.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence

from headgate.model.duration import MINUTE_US, SECOND_US
from headgate.overage.sink import DeliveryFailed
from headgate.overage.use import OverageUse

log = logging.getLogger("headgate.overage")
OnOverage = Callable[[list[OverageUse]], Awaitable[object] | object]


class CallbackSink:
    """Hands batches to a function of the seller's, one call at a time."""

    name = "on_overage"

    def __init__(self, callback: OnOverage, *, batch_size: int = 100, timeout_us: int = MINUTE_US) -> None:
        self.batch_size = batch_size
        self._callback = callback
        self._timeout_s = timeout_us / SECOND_US
        self._called: asyncio.Future[object] | None = None
        self._on_loop = any(map(inspect.iscoroutinefunction, (callback, type(callback).__call__)))

    async def deliver(self, uses: Sequence[OverageUse]) -> None:
        """Call the function and wait for its end.

        Raises:
            DeliveryFailed: it raised, or its time is over.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._call(list(uses))
        except TimeoutError as error:
            raise DeliveryFailed(f"{self._described} did not return in {self._timeout_s:g} s") from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise DeliveryFailed(f"{self._described} was cancelled from inside") from error

    async def close(self) -> None:
        """Nothing to give back; a call that still runs is left alone."""

    @property
    def _described(self) -> str:
        return f"on_overage ({getattr(self._callback, '__qualname__', type(self._callback).__name__)})"

    async def _call(self, uses: list[OverageUse]) -> None:
        if self._called is not None and not self._called.done():
            raise DeliveryFailed(f"{self._described} has not returned from an earlier call; see why it hangs")
        try:
            if self._on_loop:
                answer = self._callback(uses)
            else:
                self._called = _in_thread(self._callback, uses)
                answer = await asyncio.shield(self._called)
            if inspect.isawaitable(answer):
                await answer
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> DeliveryFailed:
        log.warning("%s raised; the rows stay at the head", self._described, exc_info=error)
        return DeliveryFailed(f"{self._described} raised {type(error).__name__}: {error}")


def _in_thread(callback: OnOverage, uses: list[OverageUse]) -> asyncio.Future[object]:
    """Run a function in a daemon thread: one that hangs must not keep the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[object] = loop.create_future()

    def finish(answer: object, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is None:
            future.set_result(answer)
            return
        future.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))
        future.exception()  # nobody may be waiting any more: that is not a second error

    def run() -> None:
        try:
            outcome: tuple[object, BaseException | None] = (callback(uses), None)
        except BaseException as error:  # noqa: BLE001 - a thread's last words
            outcome = (None, error)
        if not loop.is_closed():
            try:
                loop.call_soon_threadsafe(finish, *outcome)
            except RuntimeError:
                log.info("on_overage ended after its event loop; its rows come again")

    threading.Thread(target=run, name="headgate-on-overage", daemon=True).start()
    return future
