"""A catalog's canonical JSON: the form in which published versions are kept, compared and digested.

Keys are sorted, routes too; money is a decimal string with six places; what has its default value is left
out, so that a key added by a later Headgate changes no older digest. Version and effective time are no part
of it: they belong to a publication, not to what is sold.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from headgate.model.catalog import Accept, Action, Beyond, Catalog, Measure, Plan, Route
from headgate.model.errors import InputError
from headgate.model.money import format_usd, parse_usd
from headgate.model.path_pattern import parse_route

FORMAT = 1
_MICROS = "_micros"


def catalog_to_json(catalog: Catalog) -> str:
    """Canonical JSON of what is sold: equal texts exactly where nothing that matters differs."""
    body = {
        "format": FORMAT,
        "actions": {name: _written(action) for name, action in catalog.actions.items()},
        "plans": {name: _written(plan) for name, plan in catalog.plans.items()},
        "free": _route_texts(catalog.free),
    }
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def catalog_from_json(text: str, *, version: int = 0, effective_us: int = 0) -> Catalog:
    """Read canonical JSON; its publication is handed in.

    Raises:
        InputError: not a catalog, or one in a format this version does not know.
    """
    try:
        body = json.loads(text)
        if body["format"] != FORMAT:
            raise InputError(
                f"this catalog has format {body['format']!r}, not {FORMAT}; upgrade this process"
            )
        return Catalog(
            actions={name: Action(**_read(Action, entry)) for name, entry in body["actions"].items()},
            plans={name: Plan(**_read(Plan, entry)) for name, entry in body["plans"].items()},
            free=_routes(body["free"]),
            version=version,
            effective_us=effective_us,
        )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"this is not a catalog as Headgate writes it ({error!r}); restore it") from error


def _written(thing: Action | Plan) -> dict[str, Any]:
    """The fields that differ from their default."""
    return {
        _key(one): _plain(one.name, getattr(thing, one.name))
        for one in fields(thing)
        if getattr(thing, one.name) != _default(one)
    }


def _key(one: Field[Any]) -> str:
    return one.name.removesuffix(_MICROS)


def _default(one: Field[Any]) -> Any:
    return one.default_factory() if one.default_factory is not MISSING else one.default


def _plain(name: str, value: Any) -> Any:
    """A field's value as JSON has it."""
    if name.endswith(_MICROS) and value is not None:
        return format_usd(value)
    if name == "routes":
        return _route_texts(value)
    if name == "accepts":
        return [
            {"scheme": one.scheme, "network": one.network, "description": one.description} for one in value
        ]
    if isinstance(value, Beyond):
        return value.value
    if isinstance(value, Measure):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    return value


def _read(kind: type[Action | Plan], entry: dict[str, Any]) -> dict[str, Any]:
    """Constructor arguments from JSON."""
    by_key = {_key(one): one.name for one in fields(kind)}
    unknown = sorted(entry.keys() - by_key.keys())
    if unknown:
        raise InputError(
            f"this catalog says {', '.join(unknown)}, which this version does not know; upgrade it"
        )
    return {by_key[key]: _valued(by_key[key], value) for key, value in entry.items()}


def _valued(name: str, value: Any) -> Any:
    if name.endswith(_MICROS) and value is not None:
        return parse_usd(value)
    if name == "routes":
        return _routes(value)
    if name == "accepts":
        return tuple(Accept(**one) for one in value)
    if name == "bill_on":
        return tuple((first, last) for first, last in value)
    if name in ("beyond", "beyond_cap"):
        return Beyond(value)
    if name == "measure" and value is not None:
        kind, _, pointer = value.partition(":")
        return Measure(kind, pointer)
    return value


def _route_texts(routes: Iterable[Route]) -> list[str]:
    return sorted(map(str, routes))


def _routes(texts: Iterable[str]) -> tuple[Route, ...]:
    return tuple(parse_route(text) for text in texts)
