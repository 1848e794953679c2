// `openid-client` with proof of possession (RFC 9449) and pushed requests (RFC 9126).
import * as client from "openid-client";
import { check, failure, issuer, visit } from "./browser.mjs";

const callback = "http://127.0.0.1:5999/back";
const app = await client.discovery(new URL(issuer), "app", undefined, client.None(), { execute: [client.allowInsecureRequests] });
const keys = await client.randomDPoPKeyPair("ES256");
const DPoP = client.getDPoPHandle(app, keys);

const verifier = client.randomPKCECodeVerifier();
const asked = {
  redirect_uri: callback,
  scope: "openid read",
  code_challenge: await client.calculatePKCECodeChallenge(verifier),
  code_challenge_method: "S256",
  state: client.randomState(),
};
const url = await client.buildAuthorizationUrlWithPAR(app, asked, { DPoP });
check(url.searchParams.get("request_uri").startsWith("urn:ietf:params:oauth:request_uri:"), "a pushed request");
const back = await visit(url);
const tokens = await client.authorizationCodeGrant(app, back, { pkceCodeVerifier: verifier, expectedState: asked.state }, undefined, { DPoP });
check(tokens.token_type === "dpop", "code with DPoP");
check((await client.fetchUserInfo(app, tokens.access_token, process.env.SUBJECT, { DPoP })).sub === process.env.SUBJECT, "userinfo with DPoP");
const plain = await fetch(`${issuer}/oauth2/userinfo`, { headers: { authorization: `Bearer ${tokens.access_token}` } });
check(plain.status === 401, "a bound token is no bearer token");

const next = await client.refreshTokenGrant(app, tokens.refresh_token, undefined, { DPoP });
check(next.token_type === "dpop", "refresh with DPoP");
const thief = client.getDPoPHandle(app, await client.randomDPoPKeyPair("ES256"));
const refused = await failure(() => client.refreshTokenGrant(app, next.refresh_token, undefined, { DPoP: thief }));
check(refused.error === "invalid_dpop_proof", "a refresh token of another key");
check((await client.refreshTokenGrant(app, next.refresh_token, undefined, { DPoP })).token_type === "dpop", "nothing was used up by that");
