"""A sink that posts CloudEvents 1.0 as JSON, signed by Standard Webhooks.

One request carries a batch (`application/cloudevents-batch+json`, an array even of one), or, with a batch
size of 1, a single event in structured mode. An event's `id` is the ledger row's `event_id`; `partitionkey`
is its slot and `sequence` its place in it, in fourteen digits so that they sort as text. `webhook-id` names
the message: the row's id, or a digest of all ids of a batch, so that a repetition of the same rows has the
same id and any other selection another one.

2xx means taken. No redirect is followed. 410 says that the receiver is gone for good. Of the answer no more
is read than an error message needs.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence

import aiohttp
import msgspec
from yarl import URL

from headgate.model.duration import SECOND_US
from headgate.model.errors import InputError, described
from headgate.overage.backoff import read_retry_after
from headgate.overage.signature import sign
from headgate.overage.sink import DeliveryFailed
from headgate.overage.use import OverageUse, use_to_json

SINGLE = "application/cloudevents+json; charset=utf-8"
SEVERAL = "application/cloudevents-batch+json; charset=utf-8"
_ANSWER_BYTES = 2048
_SHOWN = 200
_CONNECT_S = 5
_encode = msgspec.json.Encoder().encode


def cloud_event(use: OverageUse, source: str) -> dict[str, object]:
    """A row as a CloudEvent; `data` is as in `use_to_json`."""
    return {
        "specversion": "1.0",
        "id": use.event_id,
        "source": source,
        "type": f"headgate.{use.channel}.{use.kind}",
        "subject": use.customer,
        "time": use.occurred_at,
        "datacontenttype": "application/json",
        "partitionkey": str(use.slot),
        "sequence": f"{use.seq:014d}",
        "data": use_to_json(use),
    }


def message_id(uses: Sequence[OverageUse]) -> str:
    """The id of the message that carries these rows."""
    if len(uses) == 1:
        return uses[0].event_id
    digest = hashlib.sha256("|".join(use.event_id for use in uses).encode())
    return f"msg_{digest.hexdigest()[:32]}"


class CloudEventsSink:
    """Posts batches to one URL. `secrets` come from `read_secrets`; `source` is a URI that never changes."""

    name = "cloudevents"

    def __init__(
        self,
        url: str,
        secrets: Sequence[bytes],
        now_us: Callable[[], int],
        *,
        source: str,
        batch_size: int = 100,
        timeout_us: int = 15 * SECOND_US,
    ) -> None:
        if not secrets:
            raise InputError("a webhook is never sent without a signature; set HEADGATE_OVERAGE_SECRET")
        self.batch_size = batch_size
        self._url = URL(url)
        self._secrets = tuple(secrets)
        self._now_us = now_us
        self._source = source
        self._timeout_s = timeout_us / SECOND_US
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def deliver(self, uses: Sequence[OverageUse]) -> None:
        """Post the batch once.

        Raises:
            DeliveryFailed: the answer was not 2xx, or there was none in time.
        """
        events = [cloud_event(use, self._source) for use in uses]
        body = _encode(events[0] if self.batch_size == 1 else events)
        headers = {
            "content-type": SINGLE if self.batch_size == 1 else SEVERAL,
            "user-agent": "headgate",
            **sign(self._secrets, message_id(uses), self._now_us() // SECOND_US, body),
        }
        try:
            async with self._opened().post(
                self._url, data=body, headers=headers, allow_redirects=False
            ) as response:
                if not 200 <= response.status < 300:
                    text = await response.content.read(_ANSWER_BYTES)
                    raise self._refused(response, text)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise DeliveryFailed(f"{self._host} gave no answer: {described(error)}") from error

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @property
    def _host(self) -> str:
        """The receiver as it may be shown: a path or query may hold a secret."""
        return f"the receiver at {self._url.host}:{self._url.port}"

    def _refused(self, response: aiohttp.ClientResponse, body: bytes) -> DeliveryFailed:
        said = "".join(c for c in body.decode("utf-8", "replace")[:_SHOWN] if c.isprintable())
        message = f"{self._host} answered {response.status}" + (f": {said}" if said else "")
        if response.status == 410:
            return DeliveryFailed(
                f"{message}. It wants no more events, so delivery is paused and nothing is lost: set "
                "[overage] webhook_url to a receiver that does, then restart",
                gone=True,
            )
        if 300 <= response.status < 400:
            message += "; redirects are not followed: write the final address in [overage] webhook_url"
        after_us = read_retry_after(response.headers.get("Retry-After"), self._now_us())
        return DeliveryFailed(message, retry_after_us=after_us)

    def _opened(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            self._loop = loop
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=_CONNECT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session
