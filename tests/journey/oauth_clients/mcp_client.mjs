// The MCP SDK, client and server, with the gateway between them: it finds the gateway from a 401 alone, registers, logs in
// and calls a tool through the gateway's proxy door.
import { createServer } from "node:http";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { UnauthorizedError } from "@modelcontextprotocol/sdk/client/auth.js";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { check, failure, visit } from "./browser.mjs";

// The server behind the gateway: it knows nothing of OAuth, and who calls from a header of the gateway.
let caller;
const upstream = createServer(async (request, response) => {
  caller = request.headers["x-auth-subject"];
  const server = new McpServer({ name: "tools", version: "1" });
  server.registerTool("whoami", { description: "who calls" }, async () => ({ content: [{ type: "text", text: caller }] }));
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined, enableJsonResponse: true });
  response.on("close", () => transport.close());
  await server.connect(transport);
  await transport.handleRequest(request, response);
});
await new Promise((done) => upstream.listen(Number(process.env.UPSTREAM_PORT), "127.0.0.1", done));

const seen = {};
const provider = {
  redirectUrl: "http://127.0.0.1:5999/back",
  clientMetadata: {
    client_name: "MCP test client",
    redirect_uris: ["http://127.0.0.1:5999/back"],
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
    token_endpoint_auth_method: "none",
  },
  state: () => "a-state",
  clientInformation: () => seen.client,
  saveClientInformation: (client) => void (seen.client = client),
  tokens: () => seen.tokens,
  saveTokens: (tokens) => void (seen.tokens = tokens),
  redirectToAuthorization: (url) => void (seen.url = url),
  saveCodeVerifier: (verifier) => void (seen.verifier = verifier),
  codeVerifier: () => seen.verifier,
};
const address = new URL(process.env.RESOURCE);
const open = () => new StreamableHTTPClientTransport(address, { authProvider: provider });

const first = open();
const refused = await failure(() => new Client({ name: "test", version: "1" }).connect(first));
check(refused instanceof UnauthorizedError, "a client without a token is sent to log in");
check(seen.client.client_id.startsWith("dyn_"), "it registered itself");
check(seen.url.searchParams.get("resource") === process.env.RESOURCE, "it asks for the resource");
const back = await visit(seen.url);
await first.finishAuth(back.searchParams.get("code"));
check(seen.tokens.token_type.toLowerCase() === "bearer", "it has tokens");

const client = new Client({ name: "test", version: "1" });
await client.connect(open());
const answer = await client.callTool({ name: "whoami" });
check(answer.content[0].text === process.env.SUBJECT, "a tool is called through the gateway");
await client.close();

seen.tokens = { ...seen.tokens, access_token: "eyJhbGciOiJFUzI1NiJ9.e30.AAAA" };
const former = seen.tokens.refresh_token;
const later = new Client({ name: "test", version: "1" });
await later.connect(open());
check(seen.tokens.refresh_token !== former, "it refreshes by itself");
await later.callTool({ name: "whoami" });
await later.close();
upstream.closeAllConnections();
upstream.close();
check(true, "done");
