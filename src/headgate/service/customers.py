"""Customers: create, list, show, update, archive. What each returns prints as a table row or as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headgate.model.calendar import format_us
from headgate.model.customer import (
    Customer,
    checked_email,
    checked_line,
    checked_ref,
    checked_system,
)
from headgate.model.errors import AlreadyExists, InputError, NotFound
from headgate.model.public_ids import SUBSCRIPTION, write_id
from headgate.model.subscription import contract_end_us
from headgate.store.registry import Registry, RegistryReader, RegistryWriter


@dataclass(frozen=True, slots=True)
class CustomerView:
    """A customer as shown; `references` maps other systems to its ids there. Times are RFC 3339 in UTC."""

    customer: str
    name: str | None
    email: str | None
    references: Mapping[str, str]
    created_at: str
    archived_at: str | None


async def find_customer(registry: RegistryReader, ref: str, *, archived: bool = False) -> Customer:
    """A customer by the seller's own id.

    Raises:
        NotFound: unknown, or archived (unless those are asked for too).
    """
    found = await registry.customer(ref)
    if found is None:
        raise NotFound(f"there is no customer {ref!r}; `headgate customers create {ref}` makes one")
    if found.archived_us is not None and not archived:
        raise NotFound(f"customer {ref!r} was archived on {format_us(found.archived_us)}")
    return found


async def create_customer(
    registry: Registry,
    ref: str,
    *,
    now_us: int,
    name: str = "",
    email: str = "",
    references: Mapping[str, str] | None = None,
) -> CustomerView:
    """A new customer under the seller's own id.

    Raises:
        AlreadyExists: there is one with this id, or one of the references is another customer's.
        InputError: a value that cannot be stored.
    """
    checked_ref(ref, "customer")
    async with registry.write() as writer:
        if await writer.customer(ref) is not None:
            raise AlreadyExists(
                f"customer {ref!r} exists already; `headgate customers update {ref}` changes it"
            )
        await add_customer(writer, ref, now_us=now_us, name=name, email=email, references=references or {})
    return await show_customer(registry, ref)


async def add_customer(
    writer: RegistryWriter, ref: str, *, now_us: int, name: str, email: str, references: Mapping[str, str]
) -> int:
    """Inside a transaction that saw no such customer: its number (the checks are `create_customer`'s)."""
    number = await writer.create_customer(
        checked_ref(ref, "customer"), checked_line(name, "name") or None, checked_email(email) or None, now_us
    )
    await set_references(writer, number, references)
    return number


async def update_customer(
    registry: Registry,
    ref: str,
    *,
    name: str | None = None,
    email: str | None = None,
    references: Mapping[str, str] | None = None,
) -> CustomerView:
    """Change what is given (None: leave as it is; empty: erase).

    Raises:
        NotFound, AlreadyExists, InputError: as for `create_customer`.
    """
    async with registry.write() as writer:
        found = await find_customer(writer, ref)
        await edit_customer(writer, found, name=name, email=email, references=references or {})
    return await show_customer(registry, ref)


async def edit_customer(
    writer: RegistryWriter,
    found: Customer,
    *,
    name: str | None,
    email: str | None,
    references: Mapping[str, str],
) -> tuple[str, ...]:
    """Inside a transaction: write what differs, and name it."""
    new_name = found.name if name is None else checked_line(name, "name") or None
    new_email = found.email if email is None else checked_email(email) or None
    changed = [
        word
        for word, before, after in (("name", found.name, new_name), ("email", found.email, new_email))
        if before != after
    ]
    if changed:
        await writer.update_customer(found.id, new_name, new_email)
    moved = {
        system: value for system, value in references.items() if found.references.get(system, "") != value
    }
    await set_references(writer, found.id, moved)
    return (*changed, *(f"ref_{system}" for system in moved))


async def set_references(writer: RegistryWriter, number: int, references: Mapping[str, str]) -> None:
    """Inside a transaction: set ids in other systems; each may belong to one customer only."""
    for system, value in references.items():
        value = checked_line(value, f"{checked_system(system)} id")
        holders = [holder for holder in await writer.reference_holders(system, value) if holder != number]
        if value and holders:
            holder = await writer.customer_by_id(holders[0])
            whose = repr(holder.ref) if holder else "another customer"
            raise AlreadyExists(
                f"{system}={value} belongs to customer {whose} already; remove it there first"
            )
        await writer.set_reference(number, system, value)


async def archive_customer(registry: Registry, ref: str, *, now_us: int) -> CustomerView:
    """Take a customer out of the lists and revoke its keys. Its events and its id stay; nothing is deleted.

    Raises:
        NotFound: no such customer, or archived before.
        InputError: a contract of it runs or is agreed for later; cancel that first.
    """
    async with registry.write() as writer:
        found = await find_customer(writer, ref)
        for contract in await writer.subscriptions(found.id):
            end_us = contract_end_us(contract)
            if end_us is None or end_us > max(now_us, contract.start_us):
                text = write_id(SUBSCRIPTION, contract.id)
                raise InputError(
                    f"customer {ref!r} is under contract; `headgate subscriptions cancel {text}` first"
                )
        await writer.archive_customer(found.id, now_us)
    return await show_customer(registry, ref)


async def show_customer(registry: RegistryReader, ref: str) -> CustomerView:
    """One customer, archived or not.

    Raises:
        NotFound: no such customer.
    """
    return _view(await find_customer(registry, ref, archived=True))


async def list_customers(
    registry: RegistryReader, *, after: str = "", limit: int = 1_000_000, archived: bool = False
) -> list[CustomerView]:
    """Customers in the order of their ids, from the one after `after` on; archived ones only if asked for."""
    return [_view(one) for one in await registry.customers(after=after, limit=limit, archived=archived)]


def _view(customer: Customer) -> CustomerView:
    return CustomerView(
        customer.ref,
        customer.name,
        customer.email,
        customer.references,
        format_us(customer.created_us),
        None if customer.archived_us is None else format_us(customer.archived_us),
    )
