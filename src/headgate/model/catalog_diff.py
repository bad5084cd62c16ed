"""What differs between two catalogs, one line a fact, for people to read before they publish."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from headgate.model.catalog import Action, Beyond, Catalog, Plan
from headgate.model.money import format_usd

_MONEY = frozenset({"price_micros", "price_per_seat_micros", "overage_cap_micros"})


@dataclass(frozen=True, slots=True)
class CatalogChange:
    """One difference. `where` is as in the configuration (`actions."doc".price`); None: not there."""

    where: str
    before: str | None
    after: str | None


def diff_catalogs(old: Catalog, new: Catalog) -> tuple[CatalogChange, ...]:
    """Every difference that publishing `new` after `old` would make; versions and times are not compared."""
    changes = _diff_things("actions", old.actions, new.actions) + _diff_things("plans", old.plans, new.plans)
    if set(old.free) != set(new.free):
        changes.append(CatalogChange("routes.free", _text("free", old.free), _text("free", new.free)))
    return tuple(changes)


def repriced_actions(old: Catalog, new: Catalog) -> tuple[str, ...]:
    """Actions of both whose list price or ceiling differs: quotes given out keep the old one for a while."""
    return tuple(
        name
        for name in sorted(old.actions.keys() & new.actions.keys())
        if _price(old.actions[name]) != _price(new.actions[name])
    )


def _price(action: Action) -> tuple[int, int, int | None]:
    return action.price_micros, action.per, action.max_units


def _diff_things(
    kind: str, old: Mapping[str, Action] | Mapping[str, Plan], new: Mapping[str, Action] | Mapping[str, Plan]
) -> list[CatalogChange]:
    changes = []
    for name in sorted(old.keys() | new.keys()):
        where, before, after = f'{kind}."{name}"', old.get(name), new.get(name)
        if before is None or after is None:
            changes.append(CatalogChange(where, _title(before), _title(after)))
            continue
        for one in fields(before):
            was, now = getattr(before, one.name), getattr(after, one.name)
            if was != now and not (one.name == "routes" and set(was) == set(now)):
                key = one.name.removesuffix("_micros")
                changes.append(CatalogChange(f"{where}.{key}", _text(one.name, was), _text(one.name, now)))
    return changes


def _title(thing: Action | Plan | None) -> str | None:
    return None if thing is None else thing.title


def _text(field: str, value: object) -> str | None:
    if value is None:
        return None
    if field in _MONEY and isinstance(value, int):
        return format_usd(value)
    if isinstance(value, Beyond):
        return value.value
    if field == "bill_on" and isinstance(value, tuple):
        return ", ".join(f"{first}-{last}" for first, last in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} = {value[name]}" for name in sorted(value))
    if isinstance(value, tuple):
        return ", ".join(sorted(str(one) for one in value))
    return str(value)
