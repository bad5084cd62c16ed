"""A process that delivers to a webhook until it is killed: `python -m tests.service.delivering DB URL`."""

from __future__ import annotations

import asyncio
import os
import random
import sys

from headgate.overage.cloudevents import CloudEventsSink
from headgate.overage.signature import read_secrets
from headgate.service.deliver import Deliverer
from headgate.store.registry import Registry
from headgate.store.sqlite import SqliteDriver
from tests.overage.receiver import SECRET, real_us


async def main(path: str, url: str) -> None:
    driver = SqliteDriver(path)
    sink = CloudEventsSink(
        url, read_secrets(SECRET), real_us, source="urn:test", batch_size=7, timeout_us=2_000_000
    )
    deliverer = Deliverer(
        driver,
        Registry(driver),
        sink,
        real_us,
        owner=f"process {os.getpid()}",
        below=random.randrange,
        poll_us=10_000,
        lease_us=200_000,
    )
    await deliverer.run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
