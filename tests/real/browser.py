"""A browser without a screen: it keeps cookies, follows redirects, and fills in the forms that it is shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urlencode, urljoin, urlsplit

from tests.real.http import Answer, ask

HOPS_MAX = 10
HOST = "app.test"


@dataclass
class Form:
    """One form of a page: where it goes, and what is in it."""

    action: str = ""
    fields: dict[str, str] = field(default_factory=dict)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.links: list[str] = []
        self.refresh = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(given.get("action", "")))
        elif tag == "input" and self.forms and given.get("type") != "checkbox":
            self.forms[-1].fields[given.get("name", "")] = given.get("value", "")
        elif tag == "a":
            self.links.append(given.get("href", ""))
        elif tag == "meta" and given.get("http-equiv") == "refresh":
            self.refresh = given.get("content", "").partition("url=")[2]


class Page:
    """What a browser shows."""

    def __init__(self, address: str, answer: Answer) -> None:
        self.address = address
        self.answer = answer
        self.status = answer.status
        reader = _Reader()
        if "text/html" in "".join(answer.all("content-type")):
            reader.feed(answer.body.decode())
        self.forms, self.links, self.refresh = reader.forms, reader.links, reader.refresh

    @property
    def text(self) -> str:
        return self.answer.body.decode()

    def form(self, action: str) -> Form:
        return next(form for form in self.forms if form.action == action)


class Browser:
    """One browser at one gateway, which it reaches as `HOST`."""

    def __init__(self, port: int, *, agent: str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0") -> None:
        self.port = port
        self.cookies: dict[str, str] = {}
        self.agent = agent
        self.set_cookies: list[str] = []

    def ask(self, method: str, target: str, *headers: tuple[str, str], form: dict[str, str] | None = None) -> Answer:
        """Make one request, with the cookies that were set before."""
        sent = [("User-Agent", self.agent), ("Accept", "text/html"), *headers]
        if self.cookies:
            sent.append(("Cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items())))
        body = b""
        if form is not None:
            body = urlencode(form).encode()
            sent.append(("Content-Type", "application/x-www-form-urlencoded"))
        answer = ask(self.port, method, target, sent, body, HOST)
        for line in answer.all("set-cookie"):
            self.set_cookies.append(line)
            name, _, value = line.partition(";")[0].partition("=")
            if "max-age=0" in line.lower():
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value.strip('"')
        return answer

    def get(self, target: str) -> Page:
        """Open an address, and follow where it leads on this host."""
        return self._follow(target, self.ask("GET", target))

    def submit(self, page: Page, action: str, **fields: str) -> Page:
        """Fill in a form of a page, and send it."""
        form = page.form(action)
        headers = (("Origin", f"https://{HOST}"), ("Sec-Fetch-Site", "same-origin"))
        return self._follow(action, self.ask("POST", action, *headers, form={**form.fields, **fields}))

    def _follow(self, address: str, answer: Answer) -> Page:
        for _ in range(HOPS_MAX):
            if answer.status not in (302, 303):
                return Page(address, answer)
            place = urlsplit(urljoin(f"https://{HOST}{address}", answer.one("location")))
            address = place.path + (f"?{place.query}" if place.query else "")
            if place.netloc != HOST:
                return Page(place.geturl(), answer)
            answer = self.ask("GET", address)
        raise AssertionError("redirects without end")
