// The x402 SDK's facilitator for JavaScript over HTTP, unmodified, on any node.
//
//   node facilitator.mjs RPC_URL PRIVATE_KEY     prints its origin once it answers

import { x402Facilitator } from "@x402/core/facilitator";
import { toFacilitatorEvmSigner } from "@x402/evm";
import { ExactEvmScheme } from "@x402/evm/exact/facilitator";
import { UptoEvmScheme } from "@x402/evm/upto/facilitator";
import express from "express";
import { createWalletClient, http, publicActions } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { baseSepolia } from "viem/chains";

const [rpcUrl, key] = process.argv.slice(2);
const account = privateKeyToAccount(key);
const transport = http(rpcUrl);
const client = createWalletClient({ account, chain: baseSepolia, transport, pollingInterval: 50 }).extend(publicActions);
const signer = toFacilitatorEvmSigner({ ...client, address: account.address });
const facilitator = new x402Facilitator()
  .register("eip155:84532", new ExactEvmScheme(signer))
  .register("eip155:84532", new UptoEvmScheme(signer));

const app = express();
app.use(express.json());
const asked = (ask) => async (request, response) => {
  try {
    response.json(await ask(request.body.paymentPayload, request.body.paymentRequirements));
  } catch (error) {
    response.status(500).json({ error: String(error) });
  }
};
app.post("/verify", asked((payload, requirements) => facilitator.verify(payload, requirements)));
app.post("/settle", asked((payload, requirements) => facilitator.settle(payload, requirements)));
app.get("/supported", (_request, response) => response.json(facilitator.getSupported()));
const listener = app.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${listener.address().port}`));
