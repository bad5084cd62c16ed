"""A Litestar application with Headgate behind its auth: `uvicorn main:app`.

Litestar runs its own middleware after routing, once per handler. Auth and Headgate stand around the whole
application instead, so that what Headgate answers by itself (`/.well-known/x402`) is reached too.
"""

from existing_auth import ExistingAuth
from litestar import Litestar, post

from headgate import Headgate

gate = Headgate.from_file("headgate.toml")


@post("/v1/summaries", status_code=200)
async def summarise(data: dict[str, str]) -> dict[str, str]:
    return {"summary": data["text"].partition(".")[0] + "."}


app = gate.middleware(Litestar([summarise]), identify=lambda request: request.state.customer_id)
app = gate.optional_auth(ExistingAuth)(app)  # outermost runs first: auth, then Headgate
