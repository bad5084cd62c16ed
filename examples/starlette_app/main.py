"""A Starlette application with Headgate behind its auth: `uvicorn main:app`."""

from existing_auth import ExistingAuth
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from headgate import Headgate

gate = Headgate.from_file("headgate.toml")


async def summarise(request: Request) -> JSONResponse:
    text = (await request.json())["text"]
    return JSONResponse({"summary": text.partition(".")[0] + "."})


app = Starlette(
    routes=[Route("/v1/summaries", summarise, methods=["POST"])],
    middleware=[  # first in the list runs first: auth, then Headgate
        Middleware(gate.optional_auth(ExistingAuth)),
        Middleware(gate.middleware, identify=lambda request: request.state.customer_id),
    ],
)
