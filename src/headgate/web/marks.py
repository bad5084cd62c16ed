"""Actions marked where they are written: `@gate.action("name")`, read back from an application's route table.

Starlette, FastAPI and Litestar keep the handler in their route table; a mark on the handler thus prices every
route that leads to it, under whatever prefix it was mounted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from headgate.model.catalog import Route

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__headgate_action__"


def mark(function: F, action: str) -> F:
    """Write the action's name on a handler, and hand the same handler back."""
    setattr(function, _MARK, action)
    return function


def marked_routes(app: Any) -> Iterator[tuple[str, Route]]:
    """(action, route) of every marked handler an application routes to."""
    for method, path, handler in handlers(app):
        action = _mark_of(handler)
        if action is not None:
            yield action, Route(method, path)


def handlers(app: Any, prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """(method, path pattern, handler) of every route of a Starlette, FastAPI or Litestar application."""
    for route in getattr(app, "routes", None) or ():
        path = prefix + getattr(route, "path", "")
        if hasattr(route, "route_handler_map"):  # Litestar
            for method, (handler, _) in route.route_handler_map.items():
                yield str(method), _plain(route.path_format), getattr(handler, "fn", handler)
        elif getattr(route, "methods", None) and hasattr(route, "endpoint"):
            for method in route.methods:
                if method != "HEAD":
                    yield method, _plain(path), route.endpoint
        elif hasattr(route, "routes"):
            yield from handlers(route, path)


def _plain(path: str) -> str:
    """A framework's path pattern in Headgate's form: `{id:int}` becomes `{id}`, `{rest:path}` stays."""
    parts = []
    for part in path.split("/"):
        if part.startswith("{") and part.endswith("}") and ":" in part:
            name, _, kind = part[1:-1].partition(":")
            parts.append(f"{{{name}:path}}" if kind == "path" else f"{{{name}}}")
        else:
            parts.append(part)
    return "/".join(parts)


def _mark_of(handler: Any) -> str | None:
    while handler is not None:
        found = getattr(handler, _MARK, None)
        if isinstance(found, str):
            return found
        handler = getattr(handler, "__wrapped__", None) or getattr(handler, "func", None)
    return None
