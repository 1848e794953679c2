// An identity provider that others wrote (npm `oidc-provider`), with one client: the gateway. Whoever logs in there is who
// they say they are; the settings come from the environment.
import Provider from "oidc-provider";

const { ISSUER, PORT, GATEWAY, CLIENT_SECRET } = process.env;

const provider = new Provider(ISSUER, {
  clients: [
    {
      client_id: "portcullis",
      client_secret: CLIENT_SECRET,
      redirect_uris: [`${GATEWAY}/login/sso/corp/callback`],
      post_logout_redirect_uris: [`${GATEWAY}/login`],
      backchannel_logout_uri: `${GATEWAY}/login/sso/corp/backchannel`,
      backchannel_logout_session_required: true,
      response_types: ["code"],
      grant_types: ["authorization_code"],
    },
  ],
  cookies: { keys: ["only for a test"] },
  claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name", "preferred_username"] },
  async findAccount(_context, id) {
    return {
      accountId: id,
      async claims() {
        return { sub: id, email: `${id}@corp.example`, email_verified: true, name: id, preferred_username: id };
      },
    };
  },
  // By default it calls nobody on the same machine, where the gateway of a test is.
  fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
  features: {
    devInteractions: { enabled: true },
    backchannelLogout: { enabled: true },
    pushedAuthorizationRequests: { enabled: true, requirePushedAuthorizationRequests: true },
    rpInitiatedLogout: { enabled: true },
  },
});
provider.on("backchannel.error", (_context, error) => console.log("back-channel log-out failed:", error));
provider.on("server_error", (_context, error) => console.log("fault:", error));
provider.listen(Number(PORT), "127.0.0.1", () => console.log("listening"));
