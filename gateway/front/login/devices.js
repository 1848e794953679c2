// Remembered devices: make a key that this browser keeps and gives to nobody, and prove to have it. Without this script,
// or where there can be no such key, the forms of each page work as they are.
(() => {
  "use strict";
  const form = document.querySelector("form[data-bind], form[data-device]");
  if (!form || !window.crypto || !crypto.subtle || !window.indexedDB) return;
  const KEPT_MAX = 8; // keys of one browser: of each user's last device, and of some that were never finished

  const text = (bytes) =>
    btoa(String.fromCharCode(...new Uint8Array(bytes))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const bytes = (value) => new TextEncoder().encode(value);

  function ended(request) {
    return new Promise((done, failed) => {
      request.onsuccess = request.oncomplete = () => done(request.result);
      request.onerror = request.onabort = () => failed(request.error);
    });
  }

  async function kept(mode, work) {
    const opening = indexedDB.open("portcullis", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("devices", { keyPath: "id" });
    const database = await ended(opening);
    try {
      const transaction = database.transaction("devices", mode);
      const given = await work(transaction.objectStore("devices"));
      if (mode === "readwrite") await ended(transaction);
      return given;
    } finally {
      database.close();
    }
  }

  async function keep(id, key) {
    await kept("readwrite", async (store) => {
      const others = (await ended(store.getAll())).sort((one, other) => other.at - one.at);
      for (const each of others.slice(KEPT_MAX - 1)) store.delete(each.id);
      store.put({ id, key, at: Date.now() });
    });
  }

  async function post(path, body) {
    const fields = [...form.querySelectorAll("input[type=hidden]")].map((each) => [each.name, each.value]);
    const answer = await fetch(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ ...Object.fromEntries(fields), ...body }),
    });
    const said = await answer.json();
    if (!answer.ok) throw new Error(said.detail);
    return said;
  }

  // A JWS (RFC 7515): what WebCrypto makes of ES256 is what RFC 7518 §3.4 asks for.
  async function proof(act, offered, key, jwk) {
    const header = { typ: "device-proof+jwt", alg: "ES256", ...(jwk ? { jwk } : {}) };
    const claims = { act, aud: location.origin, sub: offered.device, nonce: offered.challenge };
    const signed = [header, claims].map((each) => text(bytes(JSON.stringify(each)))).join(".");
    const signature = await crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, key, bytes(signed));
    return `${signed}.${text(signature)}`;
  }

  async function bind() {
    const offered = await post(form.dataset.bind, {});
    const pair = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, false, ["sign", "verify"]);
    const { crv, kty, x, y } = await crypto.subtle.exportKey("jwk", pair.publicKey);
    const made = await proof("bind", offered, pair.privateKey, { crv, kty, x, y });
    await keep(offered.device, pair.privateKey);
    for (const [name, value] of [["device_id", offered.device], ["device_proof", made]]) {
      const field = form.querySelector(`[name=${name}]`) || form.appendChild(document.createElement("input"));
      Object.assign(field, { type: "hidden", name, value });
    }
  }

  async function use() {
    const place = form.dataset.device;
    const offered = await post(`${place}/options`, {});
    const found = await kept("readonly", (store) => ended(store.get(offered.device)));
    if (!found) throw new Error("this browser has no such key");
    location.assign((await post(place, { proof: await proof(form.dataset.act, offered, found.key) })).location);
  }

  function say() {
    const known = document.getElementById("error");
    const note = known || document.createElement("p");
    note.id = "error";
    note.className = "note bad";
    note.setAttribute("role", "alert");
    note.textContent = form.dataset.refused;
    if (!known) document.querySelector("h1").after(note);
  }

  form.addEventListener("submit", (event) => {
    const wanted = form.dataset.bind && form.elements.remember && form.elements.remember.checked;
    if (!wanted && form.dataset.act !== "carry") return;
    event.preventDefault();
    if (wanted) bind().catch(() => {}).then(() => form.submit()); // without a key it is remembered by its cookie
    else use().catch(say);
  });
  if (form.dataset.act === "log_in") use().catch(() => {}); // then its user shows a second factor
})();
