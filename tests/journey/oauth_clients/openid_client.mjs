// `openid-client` against the gateway: discovery, code with PKCE, refresh, DPoP, PAR, introspection, revocation, userinfo.
import * as client from "openid-client";
import { check, failure, issuer, sleep, visit, within } from "./browser.mjs";

const callback = "http://127.0.0.1:5999/back";
const insecure = { execute: [client.allowInsecureRequests] };
const web = await client.discovery(new URL(issuer), "web", process.env.SECRET, client.ClientSecretPost(process.env.SECRET), insecure);
const app = await client.discovery(new URL(issuer), "app", undefined, client.None(), insecure);
check(web.serverMetadata().issuer === issuer, "discovery");

async function logIn(config, { parameters = {}, par = false, options } = {}) {
  const verifier = client.randomPKCECodeVerifier();
  const asked = {
    redirect_uri: callback,
    scope: "openid profile read offline_access",
    code_challenge: await client.calculatePKCECodeChallenge(verifier),
    code_challenge_method: "S256",
    state: client.randomState(),
    nonce: client.randomNonce(),
    ...parameters,
  };
  const url = par ? await client.buildAuthorizationUrlWithPAR(config, asked, options) : client.buildAuthorizationUrl(config, asked);
  const back = await visit(url);
  const tokens = await client.authorizationCodeGrant(
    config,
    back,
    { pkceCodeVerifier: verifier, expectedState: asked.state, expectedNonce: asked.nonce, idTokenExpected: true },
    undefined,
    options,
  );
  return { tokens, back, verifier, asked };
}

const first = await logIn(web);
check(first.tokens.claims().sub === process.env.SUBJECT, "code with PKCE");
check(first.tokens.token_type === "bearer" && first.tokens.refresh_token !== undefined, "tokens");

const info = await client.fetchUserInfo(web, first.tokens.access_token, process.env.SUBJECT);
check(info.sub === process.env.SUBJECT, "userinfo");

const seen = await client.tokenIntrospection(web, first.tokens.access_token);
check(seen.active && seen.client_id === "web" && seen.scope.includes("read"), "introspect");
check((await client.tokenIntrospection(web, first.tokens.refresh_token)).active, "introspect a refresh token");

const second = await client.refreshTokenGrant(web, first.tokens.refresh_token);
check(second.refresh_token !== first.tokens.refresh_token, "refresh rotates");
const [one, other] = await Promise.all([
  client.refreshTokenGrant(web, second.refresh_token),
  client.refreshTokenGrant(web, second.refresh_token),
]);
check(one.refresh_token === other.refresh_token, "two refreshes at once");

await client.tokenRevocation(web, one.access_token);
const isOver = (token) => async () => !(await client.tokenIntrospection(web, token)).active;
await within(1000, isOver(one.access_token), "revoke an access token");
await client.tokenRevocation(web, one.refresh_token);
await within(1000, isOver(other.access_token), "revoke a refresh token and all beside it");
check((await failure(() => client.refreshTokenGrant(web, one.refresh_token))).error === "invalid_grant", "a revoked one is refused");

const third = await logIn(web);
const rotated = await client.refreshTokenGrant(web, third.tokens.refresh_token);
await sleep(Number(process.env.GRACE_S) * 1000 + 1100);
check((await failure(() => client.refreshTokenGrant(web, third.tokens.refresh_token))).error === "invalid_grant", "reuse is refused");
check((await failure(() => client.refreshTokenGrant(web, rotated.refresh_token))).error === "invalid_grant", "reuse ends the family");
await within(1000, isOver(rotated.access_token), "reuse ends access tokens");
check(true, "done with bearer tokens");

const denied = await visit(
  client.buildAuthorizationUrl(web, { redirect_uri: callback, scope: "openid", prompt: "consent", code_challenge: "a".repeat(42) + "A", code_challenge_method: "S256", state: "s" }),
  { agree: false },
);
check(denied.searchParams.get("error") === "access_denied", "a user who does not agree");
