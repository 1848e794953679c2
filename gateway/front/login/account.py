"""The pages of one's own account. What changes how it is got into needs a proof that is new."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.flows.account import Accounts
from gateway.flows.login import NotGood, Refused
from gateway.flows.sessions import Begun
from gateway.front.login.cookies import put
from gateway.front.login.endpoints import LoginEndpoints, redirect
from gateway.front.login.pages import qr_code
from gateway.stores.directory import User
from gateway.types import Session

ACCOUNT_PATH = "/account"
PASSWORD_PATH = "/account/password"  # noqa: S105  (an address)
FACTOR_PATH = "/account/mfa"

Page = Callable[[Request, Mapping[str, str], User, Session], Awaitable[Response]]


class AccountEndpoints:
    """The pages around `Accounts`. Others add theirs by `owned`."""

    def __init__(self, accounts: Accounts, login: LoginEndpoints, session_cookie: str) -> None:
        self._accounts = accounts
        self._login = login
        self._session_cookie = session_cookie

    def routes(self) -> list[Route]:
        """Return the routes; every path in them is exact."""
        post = ["POST"]
        both = ["GET", "POST"]
        return [
            Route(ACCOUNT_PATH, self.owned(self.overview), methods=["GET"]),
            Route(PASSWORD_PATH, self.owned(self.password), methods=both),
            Route(FACTOR_PATH, self.owned(self.add_factor, fresh=True), methods=both),
            Route("/account/mfa/remove", self.owned(self.remove_factor, fresh=True), methods=post),
            Route("/account/mfa/codes", self.owned(self.new_codes, fresh=True), methods=post),
            Route("/account/sessions/end", self.owned(self.end_session), methods=post),
            Route("/account/sessions/end-all", self.owned(self.end_all), methods=post),
            Route("/account/devices/forget", self.owned(self.forget_device), methods=post),
        ]

    def owned(self, page: Page, *, fresh: bool = False) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint for whoever is logged in; others log in first, and `fresh` ones do so anew.

        A posted form is one that we showed.
        """

        async def serve(request: Request, posted: Mapping[str, str]) -> Response:
            found = await self._accounts.find(self._login.browser_of(request))
            if found is None:
                return redirect(self._login_address(request))
            user, session = found
            if fresh and not self._accounts.is_fresh(session):
                return redirect(self._login_address(request, prompt="login", login_hint=user.user_name))
            if request.method == "POST" and not self._login.forms.accepts(request, posted.get("csrf", "")):
                return await self._overview(request, user, session, 403, error=self._text(request, "error_form"))
            return await page(request, posted, user, session)

        return self._login.served(serve)

    def _login_address(self, request: Request, **wishes: str) -> str:
        """After a login the browser comes back to a page: what only takes forms cannot be one."""
        path = request.url.path if request.method == "GET" else ACCOUNT_PATH
        return self._login.login_address(path, **wishes)

    async def overview(self, request: Request, _posted: Mapping[str, str], user: User, session: Session) -> Response:
        """Serve `/account`."""
        return await self._overview(request, user, session)

    async def _overview(
        self, request: Request, user: User, session: Session, status: int = 200, **values: str
    ) -> Response:
        overview = await self._accounts.overview(user, session)
        return self._login.show(request, "account.html", status, overview=overview, **values)

    async def password(self, request: Request, posted: Mapping[str, str], user: User, session: Session) -> Response:
        """Serve `/account/password`."""

        def page(error: str = "", status: int = 200) -> Response:
            return self._login.new_password_page(
                request,
                PASSWORD_PATH,
                self._text(request, "password_change"),
                error=error,
                status=status,
                username=user.user_name,
                ask_current=True,
                back=ACCOUNT_PATH,
            )

        if request.method == "GET":
            return page()
        fault = self._login.new_password_fault(request, posted)
        if fault:
            return page(fault, 400)
        browser = self._login.browser_of(request)
        outcome = await self._accounts.change_password(
            user, session, posted.get("current", ""), posted.get("new", ""), browser
        )
        if isinstance(outcome, NotGood):
            return page(self._login.problem(request, outcome.problem), 400)
        if isinstance(outcome, Refused):
            return page(self._login.refusal(request, outcome), 429 if outcome.code == "throttled" else 401)
        return self._changed(request, outcome, "password_changed")

    def _changed(self, request: Request, begun: Begun, text: str) -> Response:
        texts = self._login.texts(request)
        response = self._login.pages.page(
            request,
            "message.html",
            title=texts["account"],
            text=texts[text],
            refresh="",
            target=ACCOUNT_PATH,
            button=texts["account_back"],
            request_id="",
        )
        put(response, self._session_cookie, begun.value)
        return response

    async def add_factor(self, request: Request, posted: Mapping[str, str], user: User, _session: Session) -> Response:
        """Serve `/account/mfa`: set an authenticator app up."""
        enrolment = await self._accounts.enrolment(user)
        texts = self._login.texts(request)

        def page(status: int = 200, error: str = "") -> Response:
            return self._login.show(
                request,
                "enrol.html",
                status,
                required=False,
                action=FACTOR_PATH,
                error=error,
                qr=qr_code(enrolment.uri, texts["enrol_title"]),
                secret=enrolment.secret,
            )

        if request.method == "GET":
            return page()
        browser = self._login.browser_of(request)
        had = (await self._accounts.factors(user)).recovery_codes
        if not await self._accounts.confirm(user, posted.get("code", ""), browser):
            return page(400, texts["error_code"])
        if had:
            return redirect(ACCOUNT_PATH)
        codes = await self._accounts.new_codes(user, browser.caller)
        return self._login.pages.page(request, "codes.html", codes=codes, target=ACCOUNT_PATH)

    async def remove_factor(
        self, request: Request, posted: Mapping[str, str], user: User, _session: Session
    ) -> Response:
        """Serve `/account/mfa/remove`."""
        await self._accounts.remove_factor(user, posted.get("id", ""), self._login.browser_of(request).caller)
        return redirect(ACCOUNT_PATH)

    async def new_codes(self, request: Request, _posted: Mapping[str, str], user: User, _session: Session) -> Response:
        """Serve `/account/mfa/codes`."""
        codes = await self._accounts.new_codes(user, self._login.browser_of(request).caller)
        return self._login.pages.page(request, "codes.html", codes=codes, target=ACCOUNT_PATH)

    async def end_session(self, request: Request, posted: Mapping[str, str], _user: User, session: Session) -> Response:
        """Serve `/account/sessions/end`."""
        await self._accounts.end(session, posted.get("id", ""), self._login.browser_of(request).caller)
        return redirect(ACCOUNT_PATH)

    async def end_all(self, request: Request, _posted: Mapping[str, str], _user: User, session: Session) -> Response:
        """Serve `/account/sessions/end-all`."""
        await self._accounts.log_out_everywhere(session.subject, self._login.browser_of(request).caller)
        return self._login.logged_out(request)

    async def forget_device(
        self, request: Request, posted: Mapping[str, str], user: User, _session: Session
    ) -> Response:
        """Serve `/account/devices/forget`."""
        await self._accounts.forget_device(user, posted.get("id", ""), self._login.browser_of(request).caller)
        return redirect(ACCOUNT_PATH)

    def _text(self, request: Request, name: str) -> str:
        return self._login.texts(request)[name]
