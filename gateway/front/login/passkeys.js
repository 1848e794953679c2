// Passkeys: hand the server's question to the browser, and the authenticator's answer back. Without this script, or
// without passkeys in the browser, the forms of each page work as they are.
(() => {
  "use strict";
  const link = document.getElementById("passkey"); // logs in, or is the second factor, at the link's own address
  const adder = document.getElementById("passkey-add"); // a form that adds one
  if (!window.PublicKeyCredential || !navigator.credentials) {
    if (link) link.hidden = true;
    return;
  }
  document.documentElement.classList.add("has-passkeys");

  const decode = (text) =>
    Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (letter) => letter.charCodeAt(0));
  const encode = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const decoded = (items) => (items || []).map((item) => ({ ...item, id: decode(item.id) }));

  // The hidden fields of the page's form: what ties it to this browser, and where to go afterwards.
  const fields = () =>
    Object.fromEntries([...document.querySelectorAll("form input[type=hidden]")].map((each) => [each.name, each.value]));

  async function post(path, body) {
    const answer = await fetch(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ ...fields(), ...body }),
    });
    const said = await answer.json();
    if (!answer.ok) throw new Error(said.detail);
    return said;
  }

  function answerOf(credential) {
    const response = { clientDataJSON: encode(credential.response.clientDataJSON) };
    for (const name of ["attestationObject", "authenticatorData", "signature", "userHandle"]) {
      if (credential.response[name]) response[name] = encode(credential.response[name]);
    }
    if (credential.response.getTransports) response.transports = credential.response.getTransports();
    const { id, type, authenticatorAttachment } = credential;
    return { id, rawId: encode(credential.rawId), type, authenticatorAttachment: authenticatorAttachment || undefined, response };
  }

  function say(error) {
    // Who changes their mind, or waits for too long, knows that.
    if (error.name === "NotAllowedError" || error.name === "AbortError") return;
    const known = document.getElementById("error");
    const note = known || document.createElement("p");
    note.id = "error";
    note.className = "note bad";
    note.setAttribute("role", "alert");
    note.textContent = error.name === "InvalidStateError" ? adder.dataset.known : error.message;
    if (!known) document.querySelector("h1").after(note);
  }

  let waiting; // the question that the browser holds until somebody picks a passkey in a field

  async function get(mediation) {
    if (waiting) waiting.abort();
    const asked = (waiting = new AbortController());
    const place = link.pathname;
    const options = await post(`${place}/options`, {});
    const publicKey = {
      ...options,
      challenge: decode(options.challenge),
      allowCredentials: decoded(options.allowCredentials),
    };
    const credential = await navigator.credentials.get({ publicKey, mediation, signal: asked.signal });
    location.assign((await post(place, { answer: answerOf(credential) })).location);
  }

  async function offer() {
    const isOffered = await (PublicKeyCredential.isConditionalMediationAvailable || (() => false)).call(PublicKeyCredential);
    if (isOffered && document.querySelector("[autocomplete~=webauthn]")) await get("conditional");
  }

  async function create(name) {
    const options = await post(`${adder.getAttribute("action")}/options`, {});
    const publicKey = {
      ...options,
      challenge: decode(options.challenge),
      user: { ...options.user, id: decode(options.user.id) },
      excludeCredentials: decoded(options.excludeCredentials),
    };
    const credential = await navigator.credentials.create({ publicKey });
    location.assign((await post(adder.getAttribute("action"), { name, answer: answerOf(credential) })).location);
  }

  if (link) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      get("optional").catch((error) => { say(error); offer().catch(say); });
    });
    offer().catch(say);
  }
  if (adder) {
    adder.addEventListener("submit", (event) => {
      event.preventDefault();
      create(adder.elements.name.value).catch(say);
    });
  }
})();
