"""Booked overage leaves the ledger: once or more, in order, nothing lost, whatever fails."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.model.event import Channel, Event, event_id
from headgate.overage.backoff import PAUSED_US
from headgate.overage.callback import CallbackSink
from headgate.overage.cloudevents import CloudEventsSink
from headgate.overage.signature import read_secrets
from headgate.overage.sink import DeliveryFailed
from headgate.overage.use import OverageUse
from headgate.service import deliver
from headgate.service.deliver import Delivered, Deliverer, ExportStatus
from headgate.store.driver import Driver
from headgate.store.exports import ExportState, Scope
from headgate.store.registry import Registry
from tests.overage.receiver import SECRET, Receiver, real_us, receiving
from tests.overage.selling import SECOND, Clock, Shop, new_shop, open_shop, until
from tests.registries import us

ROOT = Path(__file__).resolve().parents[2]


class Died(BaseException):
    """The process is gone: nothing of it runs any more."""


class Scripted:
    """A receiver that does as told: `take`, `fail`, `lost` (takes, and the answer is lost), `die` (takes, and
    the sender dies before it can move a cursor), `gone`, or a pause in seconds that it asks for."""

    name = "scripted"

    def __init__(self, batch_size: int = 3) -> None:
        self.batch_size = batch_size
        self.script: deque[str | int] = deque()
        self.taken: list[OverageUse] = []
        self.offered: list[int] = []

    async def deliver(self, uses: Sequence[OverageUse]) -> None:
        doing = self.script.popleft() if self.script else "take"
        self.offered.append(len(uses))
        if doing in {"take", "lost", "die"}:
            self.taken += uses
        if doing == "die":
            raise Died
        if doing == "gone":
            raise DeliveryFailed("answered 410", gone=True)
        if doing in {"fail", "lost"}:
            raise DeliveryFailed("answered 500")
        if isinstance(doing, int):
            raise DeliveryFailed("answered 503", retry_after_us=doing * SECOND)

    async def close(self) -> None:
        pass

    @property
    def ids(self) -> list[str]:
        return [use.event_id for use in self.taken]


def ids(events: Sequence[Event]) -> list[str]:
    return [event_id(event.booked_us, event.slot, event.seq) for event in events]


def deliverer(shop: Shop, sink: Any, *, owner: str = "a", **options: Any) -> Deliverer:
    return Deliverer(
        shop.driver, shop.registry, sink, shop.clock, owner=owner, below=lambda n: n - 1, **options
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def shop(driver: Driver, registry: Registry, clock: Clock) -> AsyncIterator[Shop]:
    found = await open_shop(driver, registry, clock)
    yield found
    await found.close()


@pytest.fixture
def new_ledger(shop: Shop, tmp_path: Path) -> Callable[[], Any]:
    return lambda: shop.ledger(tmp_path / "headgate.db")


@pytest.fixture
def sink() -> Scripted:
    return Scripted()


# --- what is delivered -----------------------------------------------------------------------------


async def test_a_row_as_the_receiver_sees_it(
    shop: Shop, new_ledger: Any, sink: Scripted, clock: Clock
) -> None:
    ledger = await new_ledger()
    await shop.use(ledger, 5)
    (event,) = await shop.use(ledger, 3)
    await deliverer(shop, sink).run_once()
    assert sink.taken[1] == OverageUse(
        event_id=event_id(event.booked_us, 1, 2),
        slot=1,
        seq=2,
        kind="usage",
        channel="overage",
        customer="acme",
        action="doc",
        units=3,
        charged_micros=240_000,
        list_micros=300_000,
        unit_micros=80_000,
        per=1,
        prior=5,
        catalog_version=1,
        subscription="sub_1",
        period_start_us=us("2026-04-01"),
        period_end_us=us("2026-05-01"),
        occurred_us=clock.us - 5 * SECOND,
        booked_us=clock.us,
        month=202604,
        late_for=None,
        request_id="00000000-0000-0000-0000-000000000000",
        references={"stripe": "cus_acme"},
    )
    assert sink.taken[1].charged_amount == "0.240000"
    assert sink.taken[1].occurred_at == "2026-04-15T23:59:55.000000Z"


async def test_a_correction_names_what_it_corrects_and_sums_come_out(
    shop: Shop, new_ledger: Any, sink: Scripted
) -> None:
    ledger = await new_ledger()
    (wrong, _) = await shop.use(ledger, 5, times=2)
    await shop.reverse(ledger, wrong)
    await deliverer(shop, sink).run_once()
    reversal = sink.taken[2]
    assert (reversal.kind, reversal.corrects, reversal.reason) == (
        "reversal",
        sink.taken[0].event_id,
        "served in error",
    )
    assert (reversal.units, reversal.charged_amount) == (-5, "-0.400000")
    assert sum(use.charged_micros for use in sink.taken) == 400_000


async def test_only_overage_leaves_unless_all_usage_is_asked_for(
    shop: Shop, new_ledger: Any, sink: Scripted
) -> None:
    ledger = await new_ledger()
    await shop.use(ledger, customer=2)
    await shop.use(ledger)
    await shop.use(ledger, customer=2)
    assert await deliverer(shop, sink).run_once() == Delivered(1, 0)
    assert [use.channel for use in sink.taken] == ["overage"]
    other = Scripted()
    other.name = "all"
    await deliverer(shop, other, scope=Scope.ALL_USAGE).run_once()
    assert [(use.channel, use.customer) for use in other.taken] == [
        ("seat", "rich"),
        ("overage", "acme"),
        ("seat", "rich"),
    ]


async def test_what_was_booked_before_the_start_stays(
    shop: Shop, new_ledger: Any, sink: Scripted, clock: Clock
) -> None:
    ledger = await new_ledger()
    await shop.use(ledger, times=4)
    clock.pass_s(60)
    booked = await shop.use(ledger, times=2)
    await deliverer(shop, sink, from_us=clock.us).run_once()
    assert sink.ids == ids(booked)


async def test_slots_are_merged_in_the_order_of_booking(
    shop: Shop, new_ledger: Any, sink: Scripted, clock: Clock
) -> None:
    one, two = await new_ledger(), await new_ledger()
    for ledger in (two, one, one, two, one):
        await shop.use(ledger)
        clock.pass_s(1)
    delivering = deliverer(shop, sink)
    assert await delivering.run_once() == Delivered(3, 0, more=True)
    assert await delivering.run_once() == Delivered(2, 0)
    assert await delivering.run_once() == Delivered(0, 0)
    assert sink.ids == ids(shop.overage)


# --- failures --------------------------------------------------------------------------------------


async def test_a_failure_is_visible_and_the_rows_stay(
    shop: Shop, new_ledger: Any, sink: Scripted, clock: Clock
) -> None:
    booked = await shop.use(await new_ledger(), times=2)
    delivering = deliverer(shop, sink)
    sink.script.extend(["fail", 600])
    assert await delivering.run_once() == Delivered(0, 2)
    error = f"answered 500 (at the head: event {ids(booked)[0]})"
    clock.pass_s(9)
    assert await delivering.status() == ExportStatus(
        "scripted", 2, clock.us - 9 * SECOND, 9 * SECOND, 1, None, paused=False, last_error=error
    )
    await delivering.run_once()
    status = await delivering.status()
    assert (status.failures, status.retry_us) == (2, clock.us + 600 * SECOND)
    clock.pass_s(599)
    assert await delivering.run_once() == Delivered(0, 0)  # the receiver asked for ten minutes
    clock.pass_s(1)
    assert await delivering.run_once() == Delivered(1, 0, more=True)
    assert await delivering.run_once() == Delivered(1, 0)
    assert sink.ids == ids(booked)
    assert await delivering.status() == ExportStatus(
        "scripted", 0, None, None, 0, None, paused=False, last_error=None
    )


async def test_the_wait_survives_the_process(
    shop: Shop, new_ledger: Any, sink: Scripted, clock: Clock
) -> None:
    """A restart does not hammer a receiver that is down."""
    await shop.use(await new_ledger())
    sink.script.extend(["fail"] * 3)
    first = deliverer(shop, sink)
    for seconds in (0, 1, 2):
        clock.pass_s(seconds)
        await first.run_once()
    await first.exports.release("a")
    clock.pass_s(3)
    assert await deliverer(shop, sink, owner="b").run_once() == Delivered(0, 0)
    clock.pass_s(1)
    assert await deliverer(shop, sink, owner="b").run_once() == Delivered(1, 0, more=True)


async def test_a_row_that_cannot_be_taken_ends_up_alone_at_the_head(
    shop: Shop, new_ledger: Any, clock: Clock
) -> None:
    booked = await shop.use(await new_ledger(), times=20)
    poison = ids(booked)[5]
    taken: list[str] = []

    def callback(uses: list[OverageUse]) -> None:
        names = [use.event_id for use in uses]
        if poison in names:
            raise ValueError("unknown meter")
        taken.extend(names)

    delivering = deliverer(shop, CallbackSink(callback, batch_size=10))
    for _ in range(30):
        await delivering.run_once()
        clock.pass_s(300)
    assert taken == ids(booked)[:5]
    status = await delivering.status()
    assert status.pending == 15
    assert status.failures > 5
    assert status.last_error is not None
    assert poison in status.last_error
    assert "ValueError: unknown meter" in status.last_error
    poison = ""
    while (await delivering.run_once()).more:
        pass
    assert taken == ids(booked)


async def test_gone_pauses_until_somebody_acts(
    shop: Shop, new_ledger: Any, sink: Scripted, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    booked = await shop.use(await new_ledger())
    sink.script.extend(["gone", "gone"])
    delivering = deliverer(shop, sink)
    await delivering.run_once()
    assert "is paused: answered 410" in caplog.text
    for _ in range(3):
        clock.pass_s(86_400)
        assert await delivering.run_once() == Delivered(0, 0)
    status = await delivering.status()
    assert (status.paused, status.retry_us, status.pending) == (True, None, 1)
    # another process (a restart) tries once, and is told the same
    other = deliverer(shop, sink, owner="b")
    assert await other.run_once() == Delivered(0, 1)
    clock.pass_s(86_400)
    assert await other.run_once() == Delivered(0, 0)
    assert len(sink.offered) == 2
    await delivering.resume()
    assert await delivering.run_once() == Delivered(1, 0, more=True)
    assert sink.ids == ids(booked)


async def test_a_row_of_nobody_is_an_error_that_is_seen(
    shop: Shop, new_ledger: Any, sink: Scripted, clock: Clock
) -> None:
    await shop.use(await new_ledger())
    async with shop.driver.write() as tx:
        tx._connection.execute("DELETE FROM customers WHERE id = 1")  # type: ignore[attr-defined]
    delivering = deliverer(shop, sink)
    assert await delivering.run_once() == Delivered(0, 1)
    assert "names customer 1, which this store does not have" in (
        (await delivering.status()).last_error or ""
    )


async def test_a_sink_that_breaks_is_a_failure_too(shop: Shop, new_ledger: Any, sink: Scripted) -> None:
    class Broken(Scripted):
        async def deliver(self, uses: Sequence[OverageUse]) -> None:
            raise ZeroDivisionError

    await shop.use(await new_ledger())
    delivering = deliverer(shop, Broken())
    assert await delivering.run_once() == Delivered(0, 1)
    assert "ZeroDivisionError" in ((await delivering.status()).last_error or "")


async def test_long_stretches_of_other_rows_are_passed_over_once(
    shop: Shop, new_ledger: Any, sink: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even while the receiver is down: else each retry would read them again."""
    monkeypatch.setattr(deliver, "SKIP_ROWS", 20)
    monkeypatch.setattr(deliver, "SCAN_ROWS", 7)
    ledger = await new_ledger()
    await shop.use(ledger, customer=2, times=50)
    booked = await shop.use(ledger)
    await shop.use(ledger, customer=2, times=10)
    delivering = deliverer(shop, sink)
    sink.script.append("fail")
    while (await delivering.run_once()).more:
        pass
    assert [tuple(one) for one in await delivering.exports.behind()] == [(1, 50, 61)]
    await delivering.resume()
    await delivering.run_once()
    assert sink.ids == ids(booked)
    assert [tuple(one) for one in await delivering.exports.behind()] in ([], [(1, 51, 61)])
    # a few rows of no interest are not worth a commit
    await shop.use(ledger, customer=2, times=5)
    before = await delivering.exports.state()
    assert await delivering.run_once() == Delivered(0, 0)
    assert await delivering.exports.state() == before
    # nor does passing over anything deliver a row twice
    await shop.use(ledger, customer=2, times=50)
    await shop.use(ledger)
    for _ in range(4):
        await delivering.run_once()
    assert sink.ids == ids(shop.overage)


async def test_looking_in_vain_writes_nothing(shop: Shop, new_ledger: Any, sink: Scripted) -> None:
    await shop.use(await new_ledger(), customer=2, times=9)
    delivering = deliverer(shop, sink)
    assert await delivering.run_once() == Delivered(0, 0)
    assert await shop.driver.rows("exports_all") == []


# --- crashes and rivals ------------------------------------------------------------------------------


async def test_death_between_delivery_and_cursor_delivers_the_same_ids_again(
    shop: Shop, new_ledger: Any, sink: Scripted, clock: Clock
) -> None:
    booked = await shop.use(await new_ledger(), times=5)
    sink.script.append("die")
    with pytest.raises(Died):
        await deliverer(shop, sink, owner="dead").run_once()
    heir = deliverer(shop, sink, owner="heir")
    assert await heir.run_once() == Delivered(0, 0)  # the dead one's lease
    clock.pass_s(30)
    while (await heir.run_once()).more:
        pass
    assert sink.ids == ids(booked)[:3] + ids(booked)


async def test_cancelled_between_delivery_and_cursor(shop: Shop, new_ledger: Any) -> None:
    booked = await shop.use(await new_ledger(), times=2)
    taken: list[str] = []

    async def callback(uses: list[OverageUse]) -> None:
        taken.extend(use.event_id for use in uses)
        if len(taken) == 2:
            task = asyncio.current_task()
            assert task is not None
            task.get_loop().call_soon(task.cancel)

    delivering = deliverer(shop, CallbackSink(callback))
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(delivering.run_once())
    assert await delivering.run_once() == Delivered(2, 0)
    assert taken == ids(booked) * 2


async def test_a_paused_owner_cannot_move_the_cursor_back_or_ahead(
    shop: Shop, new_ledger: Any, clock: Clock
) -> None:
    ledger = await new_ledger()
    booked = await shop.use(ledger, times=3)
    entered, wake = asyncio.Event(), asyncio.Event()

    async def slow(uses: list[OverageUse]) -> None:
        entered.set()
        await wake.wait()

    class Slow(CallbackSink):
        name = Scripted.name

    quick = Scripted(batch_size=2)
    paused = asyncio.create_task(deliverer(shop, Slow(slow), owner="paused").run_once())
    await entered.wait()
    clock.pass_s(31)
    rival = deliverer(shop, quick, owner="rival")
    assert await rival.run_once() == Delivered(2, 0, more=True)
    wake.set()
    assert (await paused).count == 3  # it did deliver, and may say so; the cursor is not its any more
    assert [tuple(one) for one in await rival.exports.behind()] == [(1, 2, 3)]
    booked += await shop.use(ledger, times=2)
    while (await rival.run_once()).more:
        pass
    assert quick.ids == ids(booked)


async def test_the_lease_is_kept_while_a_receiver_takes_its_time(shop: Shop, new_ledger: Any) -> None:
    await shop.use(await new_ledger())
    seen: list[int] = []

    async def slow(uses: list[OverageUse]) -> None:
        before = (await delivering.exports.state()).lease_until_us

        async def renewed() -> bool:
            return (await delivering.exports.state()).lease_until_us > before

        await until(renewed)
        seen.append(1)

    shop.clock = real_us
    delivering = deliverer(shop, CallbackSink(slow), lease_us=30_000)
    assert await delivering.run_once() == Delivered(1, 0)
    assert seen == [1]


async def test_what_a_rival_learnt_meanwhile_counts(shop: Shop, new_ledger: Any, sink: Scripted) -> None:
    """Between looking and leasing another process tried and failed: its backoff holds for this one too."""
    await shop.use(await new_ledger())
    rival, slow = deliverer(shop, sink, owner="rival"), deliverer(shop, sink, owner="slow")
    sink.script.append("fail")
    look = slow._worth_a_lease

    async def look_and_linger(state: ExportState) -> bool:
        found = await look(state)
        await rival.run_once()
        await rival.exports.release("rival")
        return found

    slow._worth_a_lease = look_and_linger  # type: ignore[method-assign]
    assert await slow.run_once() == Delivered(0, 0)
    assert sink.offered == [1]


async def test_two_at_once_deliver_everything_once(tmp_path: Path) -> None:
    """Two processes' deliverers on one store, while two ledgers book: the lease saves double work."""
    shop = await new_shop(tmp_path / "headgate.db", real_us)
    other = Shop(type(shop.driver)(tmp_path / "headgate.db"), shop.registry, real_us)  # type: ignore[call-arg]
    other.registry = Registry(other.driver)
    ledgers = [await shop.ledger(tmp_path / "headgate.db") for _ in range(2)]
    sink, stop = Scripted(batch_size=4), asyncio.Event()
    both = [
        deliverer(one, sink, owner=name, poll_us=2_000, gather_us=0)
        for one, name in ((shop, "a"), (other, "b"))
    ]
    runs = [asyncio.create_task(one.run(stop)) for one in both]
    for n in range(30):
        await shop.use(ledgers[n % 2], times=1 + n % 3)
        both[n % 2].notify()
        await asyncio.sleep(0.001)

    async def empty() -> bool:
        return not (await both[0].status()).pending

    await until(empty)
    stop.set()
    await asyncio.gather(*runs)
    assert Counter(sink.ids) == Counter(ids(shop.overage))
    assert (await both[0].exports.state()).lease_until_us == 0  # given back
    await shop.close()
    await other.driver.close()
    await shop.driver.close()


# --- the loop --------------------------------------------------------------------------------------


async def test_the_loop_wakes_up_when_told(shop: Shop, new_ledger: Any) -> None:
    arrived, stop = asyncio.Event(), asyncio.Event()

    async def callback(uses: list[OverageUse]) -> None:
        arrived.set()

    delivering = deliverer(shop, CallbackSink(callback), poll_us=3600 * SECOND, gather_us=0)
    run = asyncio.create_task(delivering.run(stop))
    await asyncio.sleep(0.02)
    await shop.use(await new_ledger())
    delivering.notify()
    await arrived.wait()
    stop.set()
    await run
    assert (await delivering.status()).pending == 0


async def test_the_loop_outlives_a_store_out_of_reach(
    shop: Shop, new_ledger: Any, sink: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headgate.model.errors import StoreUnavailable

    await shop.use(await new_ledger())
    delivering = deliverer(shop, sink, poll_us=1_000, gather_us=0)
    broken = iter([StoreUnavailable(), RuntimeError("a fault of ours")])
    whole = delivering.run_once

    async def run_once() -> Delivered:
        for error in broken:
            raise error
        return await whole()

    monkeypatch.setattr(delivering, "run_once", run_once)
    stop = asyncio.Event()
    run = asyncio.create_task(delivering.run(stop))
    await until(lambda: sink.taken)
    stop.set()
    await run


# --- a real receiver ---------------------------------------------------------------------------------


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as found:
        yield found


async def test_a_receiver_on_a_bad_day(shop: Shop, new_ledger: Any, receiver: Receiver, clock: Clock) -> None:
    """500, no answer, a lost answer, 429, a redirect, then 200: each row arrives, in order, the same ids."""
    booked = await shop.use(await new_ledger(), times=6)
    receiver.now_us = clock
    receiver.script.extend([500, "hang", "lost", {"Retry-After": "60"}, "redirect", 200])
    sink = CloudEventsSink(
        receiver.url, read_secrets(SECRET), clock, source="urn:test", batch_size=4, timeout_us=1_000_000
    )
    delivering = deliverer(shop, sink)
    outcomes = []
    for _ in range(40):
        done = await delivering.run_once()
        outcomes.append((done.count, done.failed))
        clock.pass_s(15)
    await sink.close()
    assert [one for one in outcomes if one != (0, 0)] == [
        (0, 4), (0, 2), (0, 1), (0, 1), (0, 1), (1, 0), (4, 0), (1, 0),
    ]  # fmt: skip
    assert receiver.ids == ids(booked)[:1] + ids(booked)
    assert {headers["webhook-id"] for headers, content in receiver.requests if len(content) == 1} == {
        ids(booked)[0],
        ids(booked)[5],
    }
    assert (await delivering.status()).pending == 0


async def test_an_outage_longer_than_the_receivers_memory_stays_exact(
    shop: Shop, new_ledger: Any, sink: Scripted, clock: Clock
) -> None:
    """Failure case 48: the answer is lost, then two days of outage; the receiver has forgotten the ids by
    then, but not the highest `seq` of each slot."""
    one, two = await new_ledger(), await new_ledger()
    await shop.use(one, times=5)
    await shop.use(two, times=5)
    sink.script.extend(["lost", "fail", "lost", "fail", 3600, "lost"])
    delivering = deliverer(shop, sink)
    for _ in range(20):
        await delivering.run_once()
        await shop.use(one)
        clock.pass_s(2 * 86_400)
    while (await delivering.run_once()).more:
        pass
    highest: dict[int, int] = {}
    units = 0
    for use in sink.taken:
        if use.seq > highest.get(use.slot, 0):
            highest[use.slot] = use.seq
            units += use.units
    assert len(sink.taken) > units
    assert units == sum(event.units for event in shop.overage) == 30


async def test_kill_9_at_any_moment(tmp_path: Path, receiver: Receiver) -> None:
    """A delivering process is killed again and again, before and after its answers arrive."""
    path = tmp_path / "headgate.db"
    shop = await new_shop(path, real_us)
    ledger = await shop.ledger(path)
    running: list[asyncio.subprocess.Process] = []

    def kill() -> None:
        if running[-1].returncode is None:
            os.kill(running[-1].pid, signal.SIGKILL)

    loop = asyncio.get_running_loop()
    for delay_ms in (0, 1, 3, None):  # before the answer leaves, then some time after; at last it may live
        await shop.use(ledger, times=40)
        receiver.on_taken = lambda: None
        countdown = iter(range(2, -1, -1))

        def on_taken(countdown: Any = countdown, delay_ms: int | None = delay_ms) -> None:
            if delay_ms is not None and next(countdown, 1) == 0:
                kill() if delay_ms == 0 else loop.call_later(delay_ms / 1000, kill)

        receiver.on_taken = on_taken
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.service.delivering", str(path), receiver.url, cwd=ROOT
        )
        running.append(process)
        watch = deliverer(shop, CloudEventsSink(receiver.url, [b"x" * 32], real_us, source="urn:test"))

        async def over(
            process: Any = process, watch: Deliverer = watch, lives: bool = delay_ms is None
        ) -> bool:
            return process.returncode is not None or (lives and not (await watch.status()).pending)

        await until(over)
        kill()
        await process.wait()
    assert [process.returncode for process in running] == [-signal.SIGKILL] * 4
    assert set(receiver.ids) == set(ids(shop.overage))
    first = list(dict.fromkeys(receiver.ids))
    assert first == ids(shop.overage)
    assert len(receiver.ids) > len(first), "no kill came between a delivery and its cursor"
    await shop.close()
    await shop.driver.close()


# --- whatever happens --------------------------------------------------------------------------------

RECEIVED = st.sampled_from(["take", "take", "fail", "lost", "die", "gone", 30])
STEP = st.one_of(
    st.tuples(st.just("book"), st.integers(0, 1), st.integers(1, 5)),
    st.tuples(st.just("seat"), st.integers(0, 1), st.integers(1, 5)),
    st.tuples(st.just("reverse"), st.integers(0, 1), st.integers(0, 99)),
    st.tuples(st.just("deliver"), st.integers(0, 1), RECEIVED),
    st.tuples(st.just("deliver"), st.integers(0, 1), RECEIVED),
    st.tuples(st.just("wait"), st.integers(0, 1), st.integers(1, 400)),
    st.tuples(st.just("resume"), st.just(0), st.just(0)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, max_size=40), st.integers(1, 5))
def test_every_row_arrives_at_least_once_in_slot_order(
    steps: list[tuple[str, int, Any]], batch_size: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_play(Path(folder) / "headgate.db", steps, batch_size))


async def _play(path: Path, steps: list[tuple[str, int, Any]], batch_size: int) -> None:
    clock = Clock()
    shop = await new_shop(path, clock)
    ledgers = [await shop.ledger(path) for _ in range(2)]
    sink = Scripted(batch_size)
    born = 2
    rivals = [deliverer(shop, sink, owner=str(n)) for n in range(2)]
    for what, which, how in steps:
        if what in {"book", "seat"}:
            await shop.use(ledgers[which], 1, customer=1 if what == "book" else 2, times=how)
        elif what == "reverse" and shop.overage:
            event = shop.overage[how % len(shop.overage)]
            if event.corrects_seq is None and not any(
                (one.corrects_slot, one.corrects_seq) == (event.slot, event.seq) for one in shop.booked
            ):
                await shop.reverse(ledgers[which], event)
        elif what == "deliver":
            sink.script.append(how)
            try:
                await rivals[which].run_once()
            except Died:
                rivals[which], born = deliverer(shop, sink, owner=str(born)), born + 1
            sink.script.clear()
        elif what == "wait":
            clock.pass_s(how)
        elif what == "resume":
            await rivals[0].resume()
        _judge(sink, shop, await rivals[0].exports.state())
    await rivals[1].resume()
    for _ in range(2 * len(shop.booked) + 4):
        clock.pass_s(3600)
        for rival in rivals:
            await rival.run_once()
    _judge(sink, shop, await rivals[0].exports.state())
    assert set(sink.ids) == set(ids(shop.overage))
    assert await rivals[0].exports.pending() == (0, None)
    assert (await rivals[0].status()).last_error is None
    await shop.close()
    await shop.driver.close()


def _judge(sink: Scripted, shop: Shop, state: Any) -> None:
    """First deliveries come in slot order without a gap, and nothing comes that is not overage."""
    wanted: dict[int, list[str]] = {}
    for event in sorted(shop.overage):
        assert event.channel == Channel.OVERAGE
        wanted.setdefault(event.slot, []).append(*ids([event]))
    got: dict[int, list[str]] = {}
    for use in {use.event_id: use for use in reversed(sink.taken)}.values():
        got.setdefault(use.slot, [])
    for identifier in dict.fromkeys(sink.ids):
        slot = next(use.slot for use in sink.taken if use.event_id == identifier)
        got[slot].append(identifier)
    for slot, first in got.items():
        assert first == wanted[slot][: len(first)]
    assert (state.failures == 0) is (state.last_error is None)
    assert state.retry_us in {0, PAUSED_US} or state.failures
