// `oauth4webapi`, which checks every answer to the letter: metadata, `iss`, id tokens, DPoP nonces, private_key_jwt.
import * as oauth from "oauth4webapi";
import { check, issuer, visit } from "./browser.mjs";

const open = { [oauth.allowInsecureRequests]: true };
const callback = "http://127.0.0.1:5999/back";
for (const algorithm of ["oidc", "oauth2"]) {
  const answer = await oauth.discoveryRequest(new URL(issuer), { algorithm, ...open });
  await oauth.processDiscoveryResponse(new URL(issuer), answer);
  check(true, `discovery by ${algorithm}`);
}
const as = await oauth.processDiscoveryResponse(new URL(issuer), await oauth.discoveryRequest(new URL(issuer), open));

const signer = { client_id: "signer" };
const jwk = JSON.parse(process.env.SIGNER_JWK);
const key = await crypto.subtle.importKey("jwk", jwk, { name: "ECDSA", namedCurve: "P-256" }, false, ["sign"]);
const assertion = oauth.PrivateKeyJwt({ key, kid: jwk.kid });
const own = await oauth.processClientCredentialsResponse(
  as,
  signer,
  await oauth.clientCredentialsGrantRequest(as, signer, assertion, new URLSearchParams({ scope: "read" }), open),
);
check(own.token_type === "bearer" && own.scope === "read", "client credentials by private_key_jwt");

const app = { client_id: "app" };
const DPoP = oauth.DPoP(app, await oauth.generateKeyPair("ES256", { extractable: false }));
const verifier = oauth.generateRandomCodeVerifier();
const state = oauth.generateRandomState();
const nonce = oauth.generateRandomNonce();
const asked = new URLSearchParams({
  client_id: "app",
  response_type: "code",
  redirect_uri: callback,
  scope: "openid read",
  resource: process.env.RESOURCE,
  code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
  code_challenge_method: "S256",
  state,
  nonce,
});

async function again(work) {
  try {
    return await work();
  } catch (error) {
    if (!oauth.isDPoPNonceError(error)) throw error;
    check(true, "a nonce is asked for");
    return await work();
  }
}

const pushed = await again(async () =>
  oauth.processPushedAuthorizationResponse(as, app, await oauth.pushedAuthorizationRequest(as, app, oauth.None(), asked, { DPoP, ...open })),
);
const url = new URL(as.authorization_endpoint);
url.search = new URLSearchParams({ client_id: "app", request_uri: pushed.request_uri });
const parameters = oauth.validateAuthResponse(as, app, await visit(url), state);
check(true, "state and iss");
const tokens = await again(async () =>
  oauth.processAuthorizationCodeResponse(
    as,
    app,
    await oauth.authorizationCodeGrantRequest(as, app, oauth.None(), parameters, callback, verifier, { DPoP, ...open }),
    { expectedNonce: nonce, requireIdToken: true },
  ),
);
const claims = oauth.getValidatedIdTokenClaims(tokens);
check(claims.sub === process.env.SUBJECT && tokens.token_type === "dpop", "code with DPoP and an id token");
const keys = await oauth.validateJwtAccessToken(
  as,
  new Request(process.env.RESOURCE, {
    headers: { authorization: `DPoP ${tokens.access_token}`, dpop: await proof() },
  }),
  process.env.RESOURCE,
  { ...open, requireDPoP: true },
);
check(keys.sub === process.env.SUBJECT, "an access token by RFC 9068, bound to its key");

async function proof() {
  let header;
  await oauth.protectedResourceRequest(tokens.access_token, "GET", new URL(process.env.RESOURCE), undefined, undefined, {
    DPoP,
    ...open,
    [oauth.customFetch]: async (_url, options) => {
      header = options.headers.dpop ?? new Headers(options.headers).get("dpop");
      return new Response(null, { status: 200 });
    },
  });
  return header;
}
