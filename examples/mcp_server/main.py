"""An MCP server that sells a tool. The lines marked with a number are Headgate's.

Run it over HTTP with `uvicorn main:app`, or over stdio with `python main.py`.

A customer's calls are counted: its API key comes with the HTTP request, or under `_meta["headgate/key"]`.
Whoever has no key is made an offer, and is served once it has paid (`agent.py` does).
"""

import asyncio

from mcp.server.mcpserver import MCPServer

from headgate import Headgate  # 1

gate = Headgate.from_file("headgate.toml")  # 2
server = MCPServer("Acme Summaries")
gate.mcp(server)  # 3


@server.tool()
@gate.tool("summaries.create")  # 4
async def summarise(text: str) -> dict[str, str]:
    """The first sentence of a text."""
    return {"summary": text.partition(".")[0] + "."}


@server.tool()
async def prices() -> str:
    """What a summary costs; to ask is free."""
    return "A summary costs 0.10 USD."


app = gate.middleware(server.streamable_http_app())  # 5: opens and closes the store, answers for receipts


async def over_stdio() -> None:
    async with gate:  # 5, where there is no application
        await server.run_stdio_async()


if __name__ == "__main__":
    asyncio.run(over_stdio())
