"""Actions marked where they are written: `@gate.action("name")`, read back from an application's route table.

Starlette, FastAPI and Litestar keep the handler in their route table; a mark on the handler thus prices every
route that leads to it, under whatever prefix it was mounted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from headgate.config import Config
from headgate.model.catalog import Catalog, Route
from headgate.model.errors import ConfigError, ConfigProblem, UnknownAction
from headgate.model.routing import clashes, routes_of
from headgate.service.app_routes import app_routes

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__headgate_action__"


def check_action(name: str, config: Config) -> None:
    """Refuse a name that is none of the configuration's actions. Raises UnknownAction."""
    if name not in config.catalog.actions:
        known = ", ".join(sorted(config.catalog.actions)) or "none"
        raise UnknownAction(f'{config.path} has no action {name!r} (it has: {known}); add [actions."{name}"]')


def mark(function: F, action: str) -> F:
    """Write the action's name on a handler, and hand the same handler back."""
    setattr(function, _MARK, action)
    return function


def marked_routes(app: Any) -> Iterator[tuple[str, Route]]:
    """(action, route) of every marked handler an application routes to."""
    for found in app_routes(app):
        action = _mark_of(found.handler)
        if action is not None:
            path = found.path.rstrip("/") or "/"  # a trailing slash is gated as the same route
            yield action, Route(found.method, path)


def with_marks(catalog: Catalog, app: Any, file: str) -> Catalog:
    """A published catalog with the routes of an application's marked handlers added to their actions.

    Raises:
        ConfigError: a mark names an action that is not published, which would give the route away, or a
            marked route is sold as something else already.
    """
    actions = dict(catalog.actions)
    wrong = []
    for name, route in marked_routes(app):
        action = actions.get(name)
        if action is None:
            found = f"is marked with {name}, which catalog version {catalog.version} does not have"
            wrong.append(ConfigProblem(file, f"route {route}", found, "publish it first: `headgate publish`"))
        elif route not in action.routes:
            actions[name] = replace(action, routes=(*action.routes, route))
    marked = replace(catalog, actions=actions)
    listed = [(route, "free" if action is None else action.name) for route, action in routes_of(marked)]
    wrong += [
        ConfigProblem(
            file,
            f"route {clash.first}",
            f"is sold as {clash.first_where} and as {clash.second_where} ({clash.second})",
            "mark the handler with the action its route is listed under, or take the route off the list",
        )
        for clash in clashes(listed)
        if clash.first_where != clash.second_where
    ]
    if wrong:
        raise ConfigError(tuple(wrong))
    return marked


def _mark_of(handler: Any) -> str | None:
    while handler is not None:
        found = getattr(handler, _MARK, None)
        if isinstance(found, str):
            return found
        handler = getattr(handler, "__wrapped__", None) or getattr(handler, "func", None)
    return None
