"""The seller's function: every way to write it, and every way it can fail."""

from __future__ import annotations

import asyncio
import functools
import threading

import pytest

from headgate.overage.callback import CallbackSink
from headgate.overage.sink import DeliveryFailed
from headgate.overage.use import OverageUse
from tests.overage.selling import until
from tests.overage.uses import uses

TOOK: list[list[OverageUse]] = []


@pytest.fixture(autouse=True)
def _empty() -> None:
    TOOK.clear()


def plain(batch: list[OverageUse]) -> None:
    assert threading.current_thread() is not threading.main_thread(), (
        "a plain function must not block the loop"
    )
    TOOK.append(batch)


async def coroutine(batch: list[OverageUse]) -> None:
    assert threading.current_thread() is threading.main_thread()
    await asyncio.sleep(0)
    TOOK.append(batch)


class Plain:
    def __call__(self, batch: list[OverageUse]) -> None:
        plain(batch)

    async def method(self, batch: list[OverageUse]) -> None:
        await coroutine(batch)


class Coroutine:
    async def __call__(self, batch: list[OverageUse]) -> None:
        await coroutine(batch)


@pytest.mark.parametrize(
    "callback",
    [
        plain,
        coroutine,
        Plain(),
        Plain().method,
        Coroutine(),
        functools.partial(coroutine),
        functools.partial(plain),
        lambda batch: coroutine(list(batch)),
        TOOK.append,
    ],
)
async def test_any_callable_takes_a_list_of_rows(callback: object) -> None:
    batch = uses(3)
    await CallbackSink(callback).deliver(tuple(batch))  # type: ignore[arg-type]
    assert [batch] == TOOK


def raises(batch: list[OverageUse]) -> None:
    raise KeyError("no such invoice")


async def raises_later(batch: list[OverageUse]) -> None:
    raise TimeoutError("the biller is slow")


async def cancels(batch: list[OverageUse]) -> None:
    raise asyncio.CancelledError


def exits(batch: list[OverageUse]) -> None:
    raise SystemExit(1)


@pytest.mark.parametrize(
    ("callback", "says"),
    [
        (raises, "raises.*KeyError: 'no such invoice'"),
        (raises_later, "raises_later.*TimeoutError: the biller is slow"),
        (cancels, "cancelled from inside"),
        (exits, "SystemExit"),
    ],
)
async def test_whatever_it_raises_is_a_failed_delivery(callback: object, says: str) -> None:
    with pytest.raises(DeliveryFailed, match=says):
        await CallbackSink(callback).deliver(uses(1))  # type: ignore[arg-type]


async def test_a_coroutine_that_hangs_is_cancelled() -> None:
    ended = asyncio.Event()

    async def hangs(batch: list[OverageUse]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    sink = CallbackSink(hangs, timeout_us=20_000)
    for _ in range(2):
        ended.clear()
        with pytest.raises(DeliveryFailed, match=r"did not return in 0\.02 s"):
            await sink.deliver(uses(1))
        assert ended.is_set()


async def test_a_thread_that_hangs_is_not_joined_by_a_second_one() -> None:
    release, calls = threading.Event(), []

    def hangs(batch: list[OverageUse]) -> None:
        calls.append(batch)
        release.wait(30)

    sink = CallbackSink(hangs, timeout_us=20_000)
    with pytest.raises(DeliveryFailed, match="did not return"):
        await sink.deliver(uses(1))
    with pytest.raises(DeliveryFailed, match="has not returned from an earlier call"):
        await sink.deliver(uses(1))
    assert len(calls) == 1
    release.set()
    await until(lambda: sink._called is not None and sink._called.done())
    await sink.deliver(uses(1))
    assert len(calls) == 2


async def test_being_stopped_is_not_a_failure() -> None:
    started = asyncio.Event()

    async def waits(batch: list[OverageUse]) -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(CallbackSink(waits).deliver(uses(1)))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
