"""The webhook: what is on the wire, and what each answer means."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from headgate.model.errors import InputError
from headgate.overage.cloudevents import CloudEventsSink, cloud_event, message_id
from headgate.overage.signature import read_secrets
from headgate.overage.sink import DeliveryFailed
from tests.overage.receiver import SECRET, Receiver, real_us, receiving
from tests.overage.uses import USE, uses

SOURCE = "https://api.acme.example"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as found:
        yield found


@pytest.fixture
async def sink(receiver: Receiver) -> AsyncIterator[CloudEventsSink]:
    found = _sink(receiver.url)
    yield found
    await found.close()


def _sink(url: str, **options: Any) -> CloudEventsSink:
    return CloudEventsSink(url, read_secrets(SECRET), real_us, source=SOURCE, **options)


async def test_a_batch_as_it_is_on_the_wire(receiver: Receiver, sink: CloudEventsSink) -> None:
    """Money as decimal strings, time as RFC 3339, attributes as CloudEvents 1.0 spells them."""
    await sink.deliver([USE])
    headers, content = receiver.requests[0]
    assert headers["content-type"] == "application/cloudevents-batch+json; charset=utf-8"
    assert headers["webhook-id"] == USE.event_id
    assert content == [
        {
            "specversion": "1.0",
            "id": USE.event_id,
            "source": SOURCE,
            "type": "headgate.overage.usage",
            "subject": "acme",
            "time": "2026-04-15T23:59:59.999999Z",
            "datacontenttype": "application/json",
            "partitionkey": "3",
            "sequence": "00000000000007",
            "data": {
                "event_id": USE.event_id,
                "slot": 3,
                "seq": 7,
                "kind": "usage",
                "channel": "overage",
                "customer": "acme",
                "references": {"stripe": "cus_1"},
                "subscription": "sub_7",
                "action": "doc",
                "units": 2,
                "unit_price": "0.080000",
                "per": 1,
                "prior": 500,
                "catalog_version": 1,
                "list_amount": "0.200000",
                "charged_amount": "0.160000",
                "charged_micros": 160_000,
                "currency": "USD",
                "billing_period": {
                    "start": "2026-04-01T00:00:00.000000Z",
                    "end": "2026-05-01T00:00:00.000000Z",
                },
                "occurred_at": "2026-04-15T23:59:59.999999Z",
                "booked_at": "2026-04-16T00:00:00.000000Z",
                "month": "2026-04",
                "late_for": None,
                "request_id": "00000000-0000-0000-0000-000000000000",
                "corrects": None,
                "reason": None,
            },
        }
    ]


async def test_one_by_one(receiver: Receiver) -> None:
    """With a batch size of 1: structured mode."""
    sink = _sink(receiver.url, batch_size=1)
    await sink.deliver([USE])
    headers, content = receiver.requests[0]
    assert headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert content == cloud_event(USE, SOURCE)
    await sink.close()


def test_the_message_id_names_exactly_these_rows() -> None:
    """A receiver that knows messages by their id must not take a longer batch for a repetition."""
    three = uses(3)
    assert message_id(three) == message_id(uses(3))
    assert len({message_id(part) for part in (three, three[:2], three[1:], three[:1], three[1:2])}) == 5
    assert "." not in message_id(three)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_2xx_is_taken(receiver: Receiver, sink: CloudEventsSink, status: int) -> None:
    receiver.script.append(status)
    await sink.deliver(uses(2))
    assert receiver.ids == [use.event_id for use in uses(2)]


@pytest.mark.parametrize(
    ("doing", "says", "after_us", "gone"),
    [
        (500, "answered 500: as scripted", None, False),
        (400, "answered 400", None, False),
        (404, "answered 404", None, False),
        (304, "redirects are not followed", None, False),
        ("redirect", "redirects are not followed", None, False),
        (410, "paused and nothing is lost", None, True),
        ({"Retry-After": "7"}, "answered 503", 7_000_000, False),
        ({"Retry-After": "99999"}, "answered 503", 3_600_000_000, False),
        ({"Retry-After": "later"}, "answered 503", None, False),
        ("hang", "gave no answer", None, False),
        ("lost", "gave no answer", None, False),
        ("long", r"answered 500: \[31mnox+$", None, False),
    ],
)
async def test_everything_else_is_not(
    receiver: Receiver, sink: CloudEventsSink, doing: Any, says: str, after_us: int | None, gone: bool
) -> None:
    receiver.script.append(doing)
    hasty = _sink(receiver.url, timeout_us=100_000)
    with pytest.raises(DeliveryFailed, match=says) as raised:
        await (hasty if doing == "hang" else sink).deliver(uses(1))
    await hasty.close()
    assert (raised.value.retry_after_us, raised.value.gone) == (after_us, gone)
    assert len(receiver.requests) == 1
    assert len(str(raised.value)) < 500
    await sink.deliver(uses(1))  # the sink is none the worse for it


async def test_nobody_listens() -> None:
    async with receiving() as receiver:
        url = receiver.url
    sink = _sink(url)
    with pytest.raises(DeliveryFailed, match=r"127\.0\.0\.1.*gave no answer"):
        await sink.deliver(uses(1))
    await sink.close()


async def test_errors_do_not_show_what_the_url_holds(receiver: Receiver) -> None:
    receiver.script.append(500)
    sink = _sink(receiver.url + "?token=hunter2")
    with pytest.raises(DeliveryFailed) as raised:
        await sink.deliver(uses(1))
    assert "hunter2" not in str(raised.value)
    await sink.close()


def test_nothing_is_sent_unsigned() -> None:
    with pytest.raises(InputError, match="HEADGATE_OVERAGE_SECRET"):
        CloudEventsSink("https://example.com", (), real_us, source=SOURCE)
