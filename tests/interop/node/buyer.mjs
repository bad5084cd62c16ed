// Buys once with an official client for JavaScript, and prints what came back as one JSON object.
//
//   node buyer.mjs fetch|axios METHOD URL BODY     the wallet's key is in HEADGATE_WALLET_KEY

import { ExactEvmScheme, UptoEvmScheme } from "@x402/evm";
import { wrapFetchWithPaymentFromConfig } from "@x402/fetch";
import { wrapAxiosWithPaymentFromConfig } from "@x402/axios";
import axios from "axios";
import { privateKeyToAccount } from "viem/accounts";

const [client, method, url, body] = process.argv.slice(2);
const account = privateKeyToAccount(process.env.HEADGATE_WALLET_KEY);
const schemes = [
  { network: "eip155:*", client: new ExactEvmScheme(account) },
  { network: "eip155:*", client: new UptoEvmScheme(account) },
];
const config = { schemes };
const sent = body ? { "content-type": "application/json" } : {};

async function withFetch() {
  const pay = wrapFetchWithPaymentFromConfig(fetch, config);
  const answer = await pay(url, { method, headers: sent, body: body || undefined });
  return { status: answer.status, headers: Object.fromEntries(answer.headers), body: await answer.text() };
}

async function withAxios() {
  const api = wrapAxiosWithPaymentFromConfig(axios.create({ transformResponse: [] }), config);
  const asked = { method, url, headers: sent, data: body || undefined, responseType: "text" };
  const answer = await api.request(asked).catch((error) => {
    if (!error.response) throw error;
    return error.response;
  });
  return { status: answer.status, headers: { ...answer.headers }, body: answer.data };
}

process.stdout.write(JSON.stringify(await (client === "fetch" ? withFetch() : withAxios())));
