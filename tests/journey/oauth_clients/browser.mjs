// A browser, as far as an authorization needs one: it keeps a cookie, follows nothing by itself, and posts forms.

export const issuer = process.env.ISSUER;
const cookie = process.env.COOKIE;

const unescape = (text) =>
  text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&quot;", '"').replaceAll("&#x27;", "'").replaceAll("&amp;", "&");

// Go to an authorization endpoint; agree where that is asked for. Gives the address to which the browser is sent.
export async function visit(url, { agree = true } = {}) {
  let answer = await fetch(url, { redirect: "manual", headers: { cookie } });
  if (answer.status === 200) {
    const page = await answer.text();
    const fields = [...page.matchAll(/<input type="hidden" name="(\w+)" value="([^"]*)"/g)];
    const action = page.match(/<form method="post" action="([^"]*)"/)[1];
    const form = new URLSearchParams(fields.map(([, name, value]) => [name, unescape(value)]));
    form.set("decision", agree ? "allow" : "deny");
    answer = await fetch(new URL(action, url), { method: "POST", body: form, redirect: "manual", headers: { cookie } });
  }
  if (answer.status !== 303) throw new Error(`no redirect but ${answer.status}: ${await answer.text()}`);
  return new URL(answer.headers.get("location"));
}

export function check(condition, what) {
  if (!condition) throw new Error(`failed: ${what}`);
  console.log(what);
}

// The error that `work` ends with.
export async function failure(work) {
  try {
    await work();
  } catch (error) {
    return error;
  }
  throw new Error("it did not fail");
}

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// What is revoked at one worker is known to all within a second.
export async function within(ms, condition, what) {
  const end = Date.now() + ms;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await sleep(20);
  }
  console.log(what);
}
