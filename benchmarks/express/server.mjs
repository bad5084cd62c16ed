// `@x402/express` as its documentation shows, in front of the same handler as the other sellers.
// node server.mjs READY_FILE; BENCH_FACILITATOR_URL, BENCH_PAY_TO, BENCH_PRICE, BENCH_NETWORK in the environment.
import { renameSync, writeFileSync } from "node:fs";
import express from "express";
import { HTTPFacilitatorClient } from "@x402/core/server";
import { ExactEvmScheme } from "@x402/evm/exact/server";
import { paymentMiddleware, x402ResourceServer } from "@x402/express";

const { BENCH_FACILITATOR_URL, BENCH_NETWORK, BENCH_PAY_TO, BENCH_PATH, BENCH_PRICE, BENCH_THING } = process.env;
const thing = JSON.parse(BENCH_THING);
const app = express();
const server = new x402ResourceServer(new HTTPFacilitatorClient({ url: BENCH_FACILITATOR_URL })).register(
  BENCH_NETWORK,
  new ExactEvmScheme(),
);
const accepts = { scheme: "exact", price: `$${BENCH_PRICE}`, network: BENCH_NETWORK, payTo: BENCH_PAY_TO };
app.use(
  paymentMiddleware(
    { [`GET ${BENCH_PATH}`]: { accepts, description: "Thing read", mimeType: "application/json" } },
    server,
  ),
);
app.get(BENCH_PATH, (_request, response) => response.json(thing));

const listener = app.listen(0, "127.0.0.1", () => {
  const ready = process.argv[2];
  writeFileSync(`${ready}.partial`, String(listener.address().port));
  renameSync(`${ready}.partial`, ready);
});
