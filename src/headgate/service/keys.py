"""API keys: create, list, revoke, rotate. A secret is returned once, by what made it, and stored nowhere."""

from __future__ import annotations

from dataclasses import dataclass

from headgate.model.calendar import format_us
from headgate.model.customer import checked_ref
from headgate.model.errors import InputError, NotFound
from headgate.model.keys import KeyState, new_key
from headgate.model.public_ids import KEY, read_id, write_id
from headgate.service.customers import find_customer
from headgate.store.registry import KeyOwner, Registry, RegistryReader


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A new key; `key` is its secret, shown this once."""

    key_id: str
    key: str
    customer: str
    seat_id: str | None
    expires_at: str | None


@dataclass(frozen=True, slots=True)
class RotatedKey:
    """A new key and the one it replaces, which works until `replaced_expires_at`."""

    key_id: str
    key: str
    customer: str
    seat_id: str | None
    expires_at: str | None
    replaces: str
    replaced_expires_at: str


@dataclass(frozen=True, slots=True)
class KeyView:
    """A key as shown: `hint` is its beginning, `status` is active, expired or revoked."""

    key_id: str
    customer: str
    seat_id: str | None
    hint: str
    status: str
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    replaces: str | None


async def create_key(
    registry: Registry,
    customer: str,
    *,
    mode: str,
    entropy: bytes,
    now_us: int,
    seat: str | None = None,
    expires_us: int | None = None,
) -> CreatedKey:
    """A new key of a customer, or of one of its seats (which comes into being with its first key).

    `mode` is the store's, `entropy` 32 random bytes.

    Raises:
        NotFound: no such customer.
        InputError: it would expire at once, or a value that cannot be stored.
    """
    if expires_us is not None and expires_us <= now_us:
        raise InputError(f"the key would expire at {format_us(expires_us)}, which is past; give a later time")
    key = new_key(mode, entropy)
    async with registry.write() as writer:
        owner = await find_customer(writer, customer)
        seat_number = None
        if seat is not None:
            seat_number = (await writer.ensure_seat(owner.id, checked_ref(seat, "seat"))).id
        number = await writer.create_key(owner.id, seat_number, key, now_us=now_us, expires_us=expires_us)
    return CreatedKey(write_id(KEY, number), key.secret, customer, seat, _time(expires_us))


async def rotate_key(
    registry: Registry, key_id: str, *, mode: str, entropy: bytes, now_us: int, overlap_us: int = 0
) -> RotatedKey:
    """A new key in place of one that goes on working for the overlap, at most until it would have expired.

    The new key is the same customer's and seat's. If the old one was made to expire, the new one gets the
    same lifetime, counted from now.

    Raises:
        NotFound: no such key.
        InputError: it is revoked, expired or replaced already, or the overlap is negative.
    """
    if overlap_us < 0:
        raise InputError("the overlap cannot be negative")
    key = new_key(mode, entropy)
    async with registry.write() as writer:
        owner = await _find(writer, key_id)
        old = owner.key
        state = old.state_at(now_us)
        if state is not KeyState.ACTIVE:
            raise InputError(
                f"{old.text} is {state.value}; `headgate keys create {owner.customer}` makes a new one"
            )
        successor = await writer.key_successor(old.id)
        if successor is not None:
            newer = write_id(KEY, successor)
            raise InputError(f"{old.text} was replaced by {newer} already; rotate or revoke that one")
        expires_us = None if old.expires_us is None else now_us + old.expires_us - old.created_us
        until_us = now_us + overlap_us if old.expires_us is None else min(old.expires_us, now_us + overlap_us)
        number = await writer.create_key(
            old.customer, old.seat or None, key, now_us=now_us, expires_us=expires_us, replaces=old.id
        )
        await writer.expire_key(old.id, until_us)
    return RotatedKey(
        write_id(KEY, number),
        key.secret,
        owner.customer,
        owner.seat,
        _time(expires_us),
        old.text,
        format_us(until_us),
    )


async def revoke_key(registry: Registry, key_id: str, *, now_us: int) -> KeyView:
    """End a key now, in every process. Revoking it again changes nothing.

    Raises:
        NotFound: no such key.
    """
    async with registry.write() as writer:
        found = await _find(writer, key_id)
        if found.key.revoked_us is None:
            await writer.revoke_key(found.key.id, now_us)
        return _view(await _find(writer, key_id), now_us)


async def list_keys(registry: RegistryReader, *, now_us: int, customer: str | None = None) -> list[KeyView]:
    """The keys of a customer, or of all, oldest first.

    Raises:
        NotFound: no such customer.
    """
    number = None if customer is None else (await find_customer(registry, customer, archived=True)).id
    return [_view(one, now_us) for one in await registry.keys(number)]


async def _find(registry: RegistryReader, key_id: str) -> KeyOwner:
    found = await registry.key(read_id(KEY, key_id))
    if found is None:
        raise NotFound(f"there is no key {key_id}; `headgate keys list` shows them")
    return found


def _view(owner: KeyOwner, now_us: int) -> KeyView:
    key = owner.key
    return KeyView(
        key_id=key.text,
        customer=owner.customer,
        seat_id=owner.seat,
        hint=key.hint,
        status=key.state_at(now_us).value,
        created_at=format_us(key.created_us),
        expires_at=_time(key.expires_us),
        revoked_at=_time(key.revoked_us),
        replaces=write_id(KEY, key.replaces) if key.replaces else None,
    )


def _time(at_us: int | None) -> str | None:
    return None if at_us is None else format_us(at_us)
