"""Bare FastAPI: the ground the SDK's middleware stands on."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from benchmarks.sellers.thing import PATH, THING


def build() -> FastAPI:
    """A new application with nothing in front of it."""
    application = FastAPI()

    @application.get(PATH)
    async def thing() -> dict[str, Any]:
        return THING

    return application


app = build()
