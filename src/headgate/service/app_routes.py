"""What an ASGI application routes: (method, path, handler) of Starlette, FastAPI and Litestar applications.

Read from their route tables, by shape and not by class: no framework is imported. Mounted applications,
included routers and class-based endpoints count. A wildcard of a kind Headgate does not know is read as the
rest of the path: a gate that is wider than the router is safe.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from headgate.model.path_pattern import SEGMENT_KINDS

_WILD = re.compile(r"\{([^{}:]*):([^{}]*)\}")
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True)
class AppRoute:
    """One route: an upper-case method, a path in Headgate's spelling, and the handler behind it."""

    method: str
    path: str
    handler: Any

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def app_routes(app: Any) -> Iterator[AppRoute]:
    """Every route of an application, in its own order; HEAD and OPTIONS are left out, WebSockets too."""
    for method, path, handler in _walk(getattr(app, "routes", None) or (), ""):
        if method not in ("HEAD", "OPTIONS"):
            yield AppRoute(method, _spelled(path), handler)


def _walk(routes: Any, prefix: str) -> Iterator[tuple[str, str, Any]]:
    for route in routes:
        if hasattr(route, "effective_route_contexts"):  # a router that FastAPI included
            effective = (found.starlette_route or found for found in route.effective_route_contexts())
            yield from _walk(effective, prefix)
            continue
        path = prefix + str(getattr(route, "path", None) or "")
        if hasattr(route, "route_handler_map"):  # Litestar
            for method, (handler, *_) in route.route_handler_map.items():
                yield str(method), path, getattr(handler, "fn", handler)
        elif callable(getattr(route, "endpoint", None)) and hasattr(route, "methods"):
            for method in sorted(route.methods or _methods_of(route.endpoint)):
                yield method, path, route.endpoint
        elif getattr(route, "routes", None):
            yield from _walk(route.routes, path)
        elif getattr(route, "app", None) is not None and not hasattr(
            route, "endpoint"
        ):  # a mounted black box
            for method in _METHODS:
                yield method, path + "/{path:path}", route.app


def _methods_of(endpoint: Any) -> tuple[str, ...]:
    """The methods of a class-based endpoint; all of them where nothing tells."""
    return tuple(method for method in _METHODS if hasattr(endpoint, method.lower())) or _METHODS


def _spelled(path: str) -> str:
    spelled = _WILD.sub(
        lambda found: f"{{{found[1]}}}" if found[2] in SEGMENT_KINDS else f"{{{found[1]}:path}}", path
    )
    return spelled.rstrip("/") or "/"
