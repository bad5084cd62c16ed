"""The same application with its auth as a dependency: `uvicorn main_depends:app`.

A dependency runs after every middleware, so Headgate cannot stand behind it. It asks the same function
instead (`identify=customer_of`), answers 401 or 402 itself on priced routes, and the dependency lets through
whom Headgate let through: a customer, or an agent that has paid and has no token.
"""

from typing import Annotated

from existing_auth import customer_of
from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel

from headgate import Caller, Headgate

gate = Headgate.from_file("headgate.toml")
app = FastAPI(title="Acme Summaries")
app.add_middleware(gate.middleware, identify=customer_of)


def current_customer(request: Request) -> str:
    """The auth this application had before Headgate; routes that are not sold keep it."""
    customer = customer_of(request)
    if customer is None:
        raise HTTPException(401, "Who are you?", {"WWW-Authenticate": "Bearer"})
    return customer


def customer_or_payer(request: Request, caller: Annotated[Caller, Depends(gate.caller)]) -> str:
    """The same for routes that are sold: whoever paid for this request is welcome too."""
    return caller.payer if caller.channel == "x402" and caller.payer else current_customer(request)


class Text(BaseModel):
    text: str


@app.post("/v1/summaries")
@gate.action("summaries.create")
async def summarise(body: Text, who: Annotated[str, Depends(customer_or_payer)]) -> dict[str, str]:
    return {"summary": body.text.partition(".")[0] + ".", "for": who}


@app.get("/v1/me")
async def me(customer: Annotated[str, Depends(current_customer)]) -> dict[str, str]:
    return {"customer": customer}
