"""A FastAPI application whose auth is a middleware. The lines marked with a number are Headgate's.

Run it with `uvicorn main:app`.

With a token a request is served as it always was, and counted. Without one it used to get 401: on the route
that is sold it now gets 402 with an offer, and is served once it has paid.
"""

from existing_auth import ExistingAuth
from fastapi import FastAPI
from pydantic import BaseModel

from headgate import Headgate  # 1

gate = Headgate.from_file("headgate.toml")  # 2
app = FastAPI(title="Acme Summaries")
app.add_middleware(gate.middleware, identify=lambda request: request.state.customer_id)  # 3
app.add_middleware(gate.optional_auth(ExistingAuth))  # 4: was ExistingAuth; last added runs first


class Text(BaseModel):
    text: str


@app.post("/v1/summaries")
@gate.action("summaries.create")  # 5
async def summarise(body: Text) -> dict[str, str]:
    return {"summary": body.text.partition(".")[0] + "."}


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}
