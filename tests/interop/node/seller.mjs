// A seller as the documentation of @x402/express shows it.
//
//   node seller.mjs FACILITATOR_URL PAY_TO     prints its origin once it answers

import { HTTPFacilitatorClient } from "@x402/core/server";
import { ExactEvmScheme } from "@x402/evm/exact/server";
import { UptoEvmScheme } from "@x402/evm/upto/server";
import { paymentMiddleware, setSettlementOverrides, x402ResourceServer } from "@x402/express";
import express from "express";

const [url, payTo] = process.argv.slice(2);
const network = "eip155:84532";
const server = new x402ResourceServer(new HTTPFacilitatorClient({ url }))
  .register(network, new ExactEvmScheme())
  .register(network, new UptoEvmScheme());
const app = express();
app.use(
  paymentMiddleware(
    {
      "GET /weather": { accepts: { scheme: "exact", price: "$0.01", network, payTo } },
      "GET /tokens": { accepts: { scheme: "upto", price: "$0.10", network, payTo } },
    },
    server,
  ),
);
app.get("/weather", (_request, response) => response.json({ weather: "sunny" }));
app.get("/tokens", (_request, response) => {
  setSettlementOverrides(response, { amount: "30000" });
  response.json({ tokens: 30 });
});
const listener = app.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${listener.address().port}`));
