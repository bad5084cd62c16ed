"""The load generator: a closed loop over keep-alive connections, in a process of its own.

It knows HTTP/1.1 as far as a status line, a length and an end of body. It sends prebuilt bytes and does
nothing per answer but find its end, check its status and note the time, so that it stays faster than any
seller here; `LoadResult.busy` says how near it came to its own limit.

An answer that is not the one expected ends the run with `UnexpectedAnswerError`: a seller that refuses or
replays would otherwise look fast.
"""

from __future__ import annotations

import asyncio
import gc
import re
import resource
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Self, cast

import uvloop

from benchmarks.ready import BrokenError

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_SILENCE_SECONDS = 30.0
_CONNECTS_AT_ONCE = 200


class UnexpectedAnswerError(BrokenError):
    """A seller answered with another status, without a needed header, or not at all."""


@dataclass(frozen=True, slots=True)
class LoadJob:
    """What one slice of load sends, and the answers that are allowed.

    `requests` is repeated for ever where `repeat` is true; otherwise each is sent once and the slice ends
    when they are used up. `seconds` of None means no end but that one. Connections are spread over `ports`.
    """

    ports: tuple[int, ...]
    connections: int
    requests: tuple[bytes, ...]
    repeat: bool
    expect: frozenset[int]
    seconds: float | None = None
    needed_header: bytes = b""
    """Lower-case; each answer must carry it, e.g. `b"payment-response:"`."""


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What one slice measured; times in microseconds, `seconds` from first byte sent to last answer read."""

    answers: int
    seconds: float
    statuses: dict[int, int]
    p50_us: float
    p90_us: float
    p99_us: float
    max_us: float
    busy: float
    """CPU time of the load generator ÷ wall time; near 1 means it was the bottleneck."""
    histogram: dict[int, int] = field(default_factory=dict)
    """Answers by latency: the key is the upper bound in microseconds, a power of two."""

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.answers / self.seconds


class LoadGenerator:
    """The parent's handle on the load process; use as a context manager."""

    def __enter__(self) -> Self:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(target=_serve_jobs, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        return self

    def __exit__(self, *exc: object) -> None:
        self._pipe.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def run(self, job: LoadJob) -> LoadResult:
        """Runs one slice and returns what it measured.

        Raises:
            UnexpectedAnswerError: an answer was not one that `job` allows; the text quotes it.
        """
        self._pipe.send(job)
        outcome: LoadResult | str = self._pipe.recv()
        if isinstance(outcome, str):
            raise UnexpectedAnswerError(outcome)
        return outcome


def _serve_jobs(pipe: Connection) -> None:
    """The load process: one job after another until the pipe closes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else soft, hard))
    gc.disable()  # a pause here would be read as a slow seller
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        while True:
            try:
                job: LoadJob = pipe.recv()
            except (EOFError, KeyboardInterrupt):
                return
            try:
                outcome: LoadResult | str = runner.run(_run_slice(job))
            except (OSError, UnexpectedAnswerError) as error:
                outcome = f"{error.__class__.__name__}: {error}" if isinstance(error, OSError) else str(error)
            pipe.send(outcome)
            gc.collect()


async def _run_slice(job: LoadJob) -> LoadResult:
    return await _Slice(job).run()


class _Slice:
    """One job under way: what its connections share."""

    def __init__(self, job: LoadJob) -> None:
        self.job = job
        self.expect = job.expect
        self.running = True
        self.statuses: Counter[int] = Counter()
        self.latencies_ns: list[int] = []
        self.last_ns = 0
        self.open = job.connections
        self._next = _forever(job.requests[0]) if job.repeat else iter(job.requests)
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> LoadResult:
        """Connects, sends until the time or the requests run out, waits for the last answers."""
        loop = asyncio.get_running_loop()
        clients = await self._connect(loop)
        try:
            cpu_before, started_ns = time.process_time(), time.perf_counter_ns()
            for client in clients:
                client.send_next()
            if self.job.seconds is not None:
                loop.call_later(self.job.seconds, self.stop)
            await self._wait_for_end()
            cpu = time.process_time() - cpu_before
            return self._result((self.last_ns - started_ns) / 1e9, cpu)
        finally:
            for client in clients:
                client.close()

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> list[_Client]:
        ports, clients = self.job.ports, []
        for first in range(0, self.job.connections, _CONNECTS_AT_ONCE):
            batch = range(first, min(first + _CONNECTS_AT_ONCE, self.job.connections))
            clients += await asyncio.gather(
                *(
                    loop.create_connection(lambda: _Client(self), "127.0.0.1", ports[index % len(ports)])
                    for index in batch
                )
            )
        return [client for _, client in clients]

    async def _wait_for_end(self) -> None:
        """Waits for the last answer; a seller that stays silent for long is an error, not a slow one."""
        while not self._done.done():
            seen = len(self.latencies_ns)
            await asyncio.wait([self._done], timeout=_SILENCE_SECONDS)
            if not self._done.done() and len(self.latencies_ns) == seen:
                raise UnexpectedAnswerError(
                    f"no answer for {_SILENCE_SECONDS:.0f} s; {seen} answers before that"
                )
        self._done.result()

    def stop(self) -> None:
        """No new requests; those under way are still answered and counted."""
        self.running = False

    def next_request(self) -> bytes | None:
        """The bytes to send next, or None where this connection has done its part."""
        request = next(self._next, None) if self.running else None
        if request is None:
            self.open -= 1
            if self.open == 0 and not self._done.done():
                self._done.set_result(None)
        return request

    def fail(self, reason: str) -> None:
        """Ends the slice with an error."""
        self.running = False
        if not self._done.done():
            self._done.set_exception(UnexpectedAnswerError(reason))

    def _result(self, seconds: float, cpu: float) -> LoadResult:
        ordered = sorted(self.latencies_ns)
        histogram = Counter(1 << (nanos // 1000).bit_length() for nanos in ordered)
        return LoadResult(
            answers=len(ordered),
            seconds=seconds,
            statuses=dict(self.statuses),
            p50_us=_percentile_us(ordered, 50),
            p90_us=_percentile_us(ordered, 90),
            p99_us=_percentile_us(ordered, 99),
            max_us=ordered[-1] / 1000,
            busy=cpu / seconds,
            histogram=dict(sorted(histogram.items())),
        )


class _Client(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    __slots__ = ("_buffer", "_expect", "_needed", "_sent_ns", "_slice", "_transport", "_waiting")

    def __init__(self, running: _Slice) -> None:
        self._slice = running
        self._expect = running.expect
        self._needed = running.job.needed_header
        self._buffer = b""
        self._sent_ns = 0
        self._waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it

    def send_next(self) -> None:
        request = self._slice.next_request()
        self._waiting = request is not None
        if request is not None:
            self._sent_ns = time.perf_counter_ns()
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        head_end = data.find(b"\r\n\r\n")
        if head_end < 0 or not _is_complete(data, head_end):
            self._buffer = data
            return
        now = time.perf_counter_ns()
        self._buffer = b""
        status = int(data[9:12])
        if status not in self._expect or (self._needed and self._needed not in data[:head_end].lower()):
            self._slice.fail(f"unexpected answer: {data[:1500].decode('latin-1')}")
            return
        running = self._slice
        running.statuses[status] += 1
        running.latencies_ns.append(now - self._sent_ns)
        running.last_ns = now
        self.send_next()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting:
            self._slice.fail(f"the seller closed a connection with a request under way ({exc})")

    def close(self) -> None:
        self._waiting = False
        self._transport.close()


def _is_complete(data: bytes, head_end: int) -> bool:
    """Whether `data` holds the whole answer whose head ends at `head_end`."""
    length = _LENGTH.search(data, 0, head_end)
    if length is not None:
        return len(data) >= head_end + 4 + int(length[1])
    if _CHUNKED.search(data, 0, head_end):
        return data.endswith(b"\r\n0\r\n\r\n") or data[head_end + 4 :] == b"0\r\n\r\n"
    return data[9:12] == b"204"


def _forever(request: bytes) -> Iterator[bytes]:
    while True:
        yield request


def _percentile_us(ordered_ns: list[int], percent: int) -> float:
    """The smallest sample with at least `percent` of all samples at or below it."""
    return ordered_ns[max(0, -(-len(ordered_ns) * percent // 100) - 1)] / 1000


def get_request(path: str, host: str, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """The bytes of one GET."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Accept: application/json",
        "User-Agent: headgate-bench",
    ]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
