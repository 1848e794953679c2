// `openid-client` logs its user out (OpenID Connect RP-Initiated Logout 1.0).
import * as client from "openid-client";
import { check, issuer, visit, within } from "./browser.mjs";

const callback = "http://127.0.0.1:5999/back";
const goodbye = "http://127.0.0.1:5999/goodbye";
const insecure = { execute: [client.allowInsecureRequests] };
const web = await client.discovery(new URL(issuer), "web", process.env.SECRET, client.ClientSecretPost(process.env.SECRET), insecure);

const verifier = client.randomPKCECodeVerifier();
const asked = {
  redirect_uri: callback,
  scope: "openid",
  code_challenge: await client.calculatePKCECodeChallenge(verifier),
  code_challenge_method: "S256",
};
const tokens = await client.authorizationCodeGrant(web, await visit(client.buildAuthorizationUrl(web, asked)), { pkceCodeVerifier: verifier });
check(tokens.id_token !== undefined, "an id token");

const leaving = client.buildEndSessionUrl(web, { id_token_hint: tokens.id_token, post_logout_redirect_uri: goodbye, state: "s-1" });
const back = await visit(leaving);
check(back.href === `${goodbye}?state=s-1`, "back after a log-out");
const isOver = async () => !(await client.tokenIntrospection(web, tokens.access_token)).active;
await within(1000, isOver, "the tokens of the session are over");
const silent = await visit(client.buildAuthorizationUrl(web, { ...asked, prompt: "none" }));
check(silent.searchParams.get("error") === "login_required", "nobody is logged in");
