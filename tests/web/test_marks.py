"""Prices written on handlers: what is not published, or sold twice, is never given away."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as AppRoute

from headgate.model.catalog import Action, Catalog, Route
from headgate.model.errors import ConfigError
from headgate.web.marks import mark, with_marks


def catalog(*actions: Action, free: tuple[Route, ...] = ()) -> Catalog:
    return Catalog(actions={action.name: action for action in actions}, plans={}, free=free, version=3)


def sold(name: str, *routes: Route) -> Action:
    return Action(name, name, "unit", 100_000, routes=routes)


def app(**marks: str) -> Starlette:
    """One handler a path, each marked with an action."""

    def handler(name: str) -> object:
        async def answer(_request: Request) -> Response:
            return Response()

        return mark(answer, name)

    return Starlette(routes=[AppRoute(f"/{path}", handler(name)) for path, name in marks.items()])  # type: ignore[arg-type]


def test_a_mark_adds_its_route_to_the_published_action() -> None:
    marked = with_marks(catalog(sold("read", Route("GET", "/listed"))), app(docs="read"), "headgate.toml")
    assert marked.actions["read"].routes == (Route("GET", "/listed"), Route("GET", "/docs"))


def test_a_mark_that_is_not_published_gives_nothing_away() -> None:
    with pytest.raises(ConfigError) as refused:
        with_marks(catalog(sold("read")), app(docs="write"), "headgate.toml")
    (problem,) = refused.value.problems
    assert "GET /docs" in problem.where
    assert "catalog version 3 does not have" in problem.what
    assert "headgate publish" in problem.fix


@pytest.mark.parametrize(
    "listed",
    [
        catalog(sold("read"), sold("write", Route("GET", "/docs"))),
        catalog(sold("read"), free=(Route("GET", "/docs"),)),
    ],
    ids=["another action", "free"],
)
def test_a_marked_route_that_is_sold_as_something_else(listed: Catalog) -> None:
    with pytest.raises(ConfigError, match="is sold as"):
        with_marks(listed, app(docs="read"), "headgate.toml")
