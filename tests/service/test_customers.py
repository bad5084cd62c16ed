"""Customers: what is refused, what is kept, what changes."""

from __future__ import annotations

import pytest

from headgate.model.errors import AlreadyExists, InputError, NotFound
from headgate.service.customers import (
    CustomerView,
    archive_customer,
    create_customer,
    list_customers,
    show_customer,
    update_customer,
)
from headgate.service.keys import create_key, list_keys
from headgate.service.subscribe import Agreement, cancel_subscription, create_subscription
from headgate.store.registry import Registry
from tests.registries import GRACE, NOW


async def test_create_show_list(registry: Registry) -> None:
    made = await create_customer(
        registry, "acme", now_us=NOW, name=" Acme ", email="a@acme.test", references={"stripe": "cus_1"}
    )
    assert made == CustomerView(
        "acme", "Acme", "a@acme.test", {"stripe": "cus_1"}, "2026-04-16T00:00:00.000000Z", None
    )
    assert await show_customer(registry, "acme") == made
    assert await list_customers(registry) == [made]
    with pytest.raises(AlreadyExists, match="'acme' exists already"):
        await create_customer(registry, "acme", now_us=NOW)
    with pytest.raises(NotFound, match="no customer 'x'"):
        await show_customer(registry, "x")


@pytest.mark.parametrize(
    "wrong",
    [
        {"ref": ""},
        {"ref": " a"},
        {"ref": "a\n"},
        {"ref": "a\x00b"},
        {"ref": "x" * 256},
        {"name": "a\x1bb"},
        {"name": "x" * 256},
        {"email": "nobody"},
        {"email": "@host"},
        {"email": "a b@host"},
        {"references": {"Stripe": "cus_1"}},
        {"references": {"": "cus_1"}},
        {"references": {"stripe": "a\tb"}},
    ],
)
async def test_what_cannot_be_stored_is_refused(registry: Registry, wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        await create_customer(registry, **{"ref": "acme", "now_us": NOW, **wrong})  # type: ignore[arg-type]
    assert await list_customers(registry, archived=True) == []


async def test_a_reference_belongs_to_one_customer(registry: Registry) -> None:
    await create_customer(registry, "one", now_us=NOW, references={"stripe": "cus_1"})
    with pytest.raises(AlreadyExists, match="stripe=cus_1 belongs to customer 'one'"):
        await create_customer(registry, "two", now_us=NOW, references={"stripe": "cus_1"})
    assert [one.customer for one in await list_customers(registry)] == ["one"]
    await create_customer(registry, "two", now_us=NOW, references={"crm": "cus_1"})
    with pytest.raises(AlreadyExists):
        await update_customer(registry, "two", references={"stripe": "cus_1"})
    await update_customer(registry, "one", references={"stripe": ""})
    assert (await update_customer(registry, "two", references={"stripe": "cus_1"})).references == {
        "crm": "cus_1",
        "stripe": "cus_1",
    }


async def test_update_changes_what_is_given_and_erases_what_is_empty(registry: Registry) -> None:
    await create_customer(registry, "acme", now_us=NOW, name="Acme", email="a@acme.test")
    assert (await update_customer(registry, "acme", name="Acme Inc.")).email == "a@acme.test"
    erased = await update_customer(registry, "acme", name="", email="")
    assert (erased.name, erased.email) == (None, None)
    before = await registry.generation()
    await update_customer(registry, "acme", name="")
    assert await registry.generation() == before
    with pytest.raises(NotFound):
        await update_customer(registry, "other", name="x")


async def test_archiving_ends_keys_and_needs_the_contract_to_be_over(registry: Registry) -> None:
    await create_customer(registry, "acme", now_us=NOW)
    await create_key(registry, "acme", mode="test", entropy=b"k" * 32, now_us=NOW)
    await create_subscription(registry, "acme", Agreement("team"), now_us=NOW, grace_us=GRACE)
    with pytest.raises(InputError, match="cancel sub_1"):
        await archive_customer(registry, "acme", now_us=NOW + 1)
    await cancel_subscription(registry, "sub_1", now_us=NOW + 1, grace_us=GRACE)
    assert (await archive_customer(registry, "acme", now_us=NOW + 2)).archived_at is not None
    assert [key.status for key in await list_keys(registry, now_us=NOW + 2)] == ["revoked"]
    assert await list_customers(registry) == []
    assert [one.customer for one in await list_customers(registry, archived=True)] == ["acme"]
    with pytest.raises(NotFound, match="was archived"):
        await archive_customer(registry, "acme", now_us=NOW + 3)
    with pytest.raises(NotFound, match="was archived"):
        await create_subscription(registry, "acme", Agreement("team"), now_us=NOW, grace_us=GRACE)
    with pytest.raises(AlreadyExists):
        await create_customer(registry, "acme", now_us=NOW)


async def test_a_customer_whose_contract_is_agreed_for_later_is_not_archived(registry: Registry) -> None:
    await create_customer(registry, "acme", now_us=NOW)
    later = Agreement("team", start_us=NOW + 1000)
    await create_subscription(registry, "acme", later, now_us=NOW, grace_us=GRACE)
    with pytest.raises(InputError, match="under contract"):
        await archive_customer(registry, "acme", now_us=NOW)
    await cancel_subscription(registry, "sub_1", now_us=NOW + 1, grace_us=GRACE)
    await archive_customer(registry, "acme", now_us=NOW + 2)
