"""Keys: shown once, expiring, rotated with overlap, revoked at once."""

from __future__ import annotations

import pytest

from headgate.model.errors import InputError, NotFound
from headgate.model.keys import KeyState, read_key
from headgate.service.customers import create_customer
from headgate.service.keys import CreatedKey, create_key, list_keys, revoke_key, rotate_key
from headgate.store.driver import Driver
from headgate.store.registry import Registry
from tests.registries import DAY, NOW, us

ENTROPY = iter(bytes([number]) * 32 for number in range(256))


async def make(registry: Registry, seat: str | None = None, expires_us: int | None = None) -> CreatedKey:
    return await create_key(
        registry, "acme", mode="test", entropy=next(ENTROPY), now_us=NOW, seat=seat, expires_us=expires_us
    )


async def rotate(registry: Registry, key_id: str, at_us: int, overlap_us: int = 0) -> CreatedKey:
    found = await rotate_key(
        registry, key_id, mode="test", entropy=next(ENTROPY), now_us=at_us, overlap_us=overlap_us
    )
    return CreatedKey(found.key_id, found.key, found.customer, found.seat_id, found.expires_at)


@pytest.fixture(autouse=True)
async def acme(registry: Registry) -> None:
    await create_customer(registry, "acme", now_us=NOW)


async def state(registry: Registry, key: CreatedKey, at_us: int) -> KeyState:
    """As a process sees it that is asked with the secret."""
    text = read_key(key.key)
    assert text is not None
    owner = await registry.key_by_digest(text.digest)
    assert owner is not None
    return owner.key.state_at(at_us)


async def test_create(registry: Registry) -> None:
    key = await make(registry, "ann", NOW + DAY)
    assert (key.key_id, key.customer, key.seat_id) == ("key_1", "acme", "ann")
    assert key.expires_at == "2026-04-17T00:00:00.000000Z"
    listed = (await list_keys(registry, now_us=NOW))[0]
    assert (listed.key_id, listed.seat_id, listed.status) == ("key_1", "ann", "active")
    assert key.key.startswith(listed.hint.removesuffix("…"))
    assert key.key not in repr(listed)
    assert [one.status for one in await list_keys(registry, now_us=NOW + DAY)] == ["expired"]


async def test_what_no_key_is_made_for(registry: Registry) -> None:
    with pytest.raises(NotFound, match="no customer 'other'"):
        await create_key(registry, "other", mode="test", entropy=b"k" * 32, now_us=NOW)
    with pytest.raises(InputError, match="is past"):
        await make(registry, expires_us=NOW)
    with pytest.raises(InputError, match="seat id"):
        await make(registry, seat=" ann")
    with pytest.raises(NotFound):
        await list_keys(registry, now_us=NOW, customer="other")
    assert await list_keys(registry, now_us=NOW) == []


async def test_revocation_is_seen_by_every_process_and_stands(driver: Driver, registry: Registry) -> None:
    """Failure case 36: what another process remembers is told to be out of date by the generation."""
    key, other_process = await make(registry), Registry(driver)
    remembered = await other_process.generation()
    view = await revoke_key(registry, key.key_id, now_us=NOW + 1)
    assert (view.status, view.revoked_at) == ("revoked", "2026-04-16T00:00:00.000001Z")
    assert await other_process.generation() > remembered
    assert await state(other_process, key, NOW + 1) is KeyState.REVOKED
    assert await revoke_key(registry, key.key_id, now_us=NOW + 9) == view
    for missing in ("key_9", "key_x", "sub_1", ""):
        with pytest.raises(NotFound):
            await revoke_key(registry, missing, now_us=NOW)


@pytest.mark.parametrize("overlap_us", [0, 1, DAY])
async def test_rotation_overlaps(registry: Registry, overlap_us: int) -> None:
    old = await make(registry, "ann")
    new = await rotate(registry, old.key_id, NOW + 5, overlap_us)
    assert (new.key_id, new.seat_id, new.expires_at) == ("key_2", "ann", None)
    assert new.key != old.key
    assert await state(registry, new, NOW + 5) is KeyState.ACTIVE
    end = NOW + 5 + overlap_us
    assert await state(registry, old, end - 1) is KeyState.ACTIVE
    assert await state(registry, old, end) is KeyState.EXPIRED
    assert [one.replaces for one in await list_keys(registry, now_us=NOW, customer="acme")] == [None, "key_1"]


async def test_rotation_keeps_the_lifetime_and_never_prolongs_the_old_key(registry: Registry) -> None:
    old = await make(registry, expires_us=NOW + 10 * DAY)
    new = await rotate(registry, old.key_id, NOW + 9 * DAY, overlap_us=5 * DAY)
    assert await state(registry, old, NOW + 10 * DAY) is KeyState.EXPIRED
    assert await state(registry, new, us("2026-05-05") - 1) is KeyState.ACTIVE
    assert new.expires_at == "2026-05-05T00:00:00.000000Z"


async def test_what_is_not_rotated(registry: Registry) -> None:
    key = await make(registry)
    with pytest.raises(InputError, match="negative"):
        await rotate(registry, key.key_id, NOW, -1)
    await rotate(registry, key.key_id, NOW, DAY)
    with pytest.raises(InputError, match="replaced by key_2"):
        await rotate(registry, key.key_id, NOW, DAY)
    await revoke_key(registry, "key_2", now_us=NOW)
    with pytest.raises(InputError, match="key_2 is revoked"):
        await rotate(registry, "key_2", NOW)
    with pytest.raises(InputError, match="key_1 is expired"):
        await rotate(registry, "key_1", NOW + DAY)
    with pytest.raises(NotFound, match="key_7"):
        await rotate(registry, "key_7", NOW)
    assert len(await list_keys(registry, now_us=NOW)) == 2
