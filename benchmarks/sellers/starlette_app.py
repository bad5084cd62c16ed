"""Bare Starlette: what every gated figure is measured against."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks.sellers.thing import PATH, THING


async def thing(_: Request) -> JSONResponse:
    """The handler that is sold."""
    return JSONResponse(THING)


def build() -> Starlette:
    """A new application with nothing in front of it."""
    return Starlette(routes=[Route(PATH, thing)])


app = build()
