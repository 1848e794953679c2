"""The pages of logging in: they read requests, ask the flows, and show what comes of it; they decide nothing."""

from __future__ import annotations

import logging
import math
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any, Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from gateway.errors import BulkheadFullError, GatewayError, OverloadedError, ResourceExhaustedError
from gateway.flows.account import Accounts
from gateway.flows.login import Binding, Browser, LoggedIn, Logins, Next, NotGood, Outcome, Refused
from gateway.flows.pending import Goal, Pending, StepKind
from gateway.flows.provisional import ProvisionalSessions
from gateway.flows.trail import Caller
from gateway.front.forms import BodyRefused, once, read_form, read_json
from gateway.front.login.cookies import DEVICE, KNOWN, KNOWN_S, STEP, STEP_S, VOUCHER, Forms, drop, forget_session, put
from gateway.front.login.pages import STYLE_PATH, Pages, qr_code
from gateway.front.login.scripts import Script
from gateway.front.login.targets import Targets
from gateway.front.login.texts import FALLBACK
from gateway.front.refusals import refusal_of
from gateway.front.responses import ProblemResponse, json_response
from gateway.resilience import Resilience
from gateway.types import Session

_log = logging.getLogger("portcullis.login")

LOGIN_PATH: Final = "/login"
CODE_PATH: Final = "/mfa"
ENROL_PATH: Final = "/mfa/enrol"
CHANGE_PATH: Final = "/login/change"
RESET_PATH: Final = "/login/reset"
PROVISIONAL_PATH: Final = "/login/provisional"
CARRY_PATH: Final = "/login/provisional/device"
DEVICE_PATH: Final = "/mfa/device"
DEVICE_BIND_PATH: Final = "/mfa/device/new"
DEVICE_SCRIPT: Final = Script("devices.js")
LOGOUT_PATH: Final = "/logout"
PARAMETERS: Final = ("acr_values", "prompt", "max_age", "tenant", "login_hint")
DAY_S: Final = 86_400
_PARAMETER_BYTES_MAX: Final = 512
_TENANT: Final = re.compile(r"[^\x00-\x1f\x7f]{1,64}")  # others are nobody's, and not every store takes them
_PAGES: Final[Mapping[StepKind, str]] = {
    "code": CODE_PATH,
    "enrol": ENROL_PATH,
    "change": CHANGE_PATH,
    "reset": RESET_PATH,
}

_SCRIPT_TEXTS: Final[Mapping[str, str]] = {
    "passkey_refused": "error_passkey",
    "device_refused": "device_refused",
    "reauthentication_required": "error_fresh",
    "not_offered": "error_not_offered",
    **dict.fromkeys(("pool_full", "overloaded", "resource_exhausted"), "error_busy"),
}

Handler = Callable[[Request], Awaitable[Response]]
Body = Mapping[str, Any]
ScriptHandler = Callable[[Request, Body], Awaitable[Response]]
"""Answers a page's script: a JSON object in, JSON out."""


class LoginEndpoints:
    """The pages around `Logins`. What others add (passkeys, SSO) uses `goal_of`, `browser_of` and `answer`."""

    def __init__(
        self,
        logins: Logins,
        accounts: Accounts,
        *,
        pages: Pages,
        forms: Forms,
        targets: Targets,
        resilience: Resilience,
        caller_of: Callable[[Request], Caller],
        session_cookie: str,
        parameter: str,
        body_timeout_s: float,
        provisional: ProvisionalSessions,
    ) -> None:
        """`parameter`: that carries where to go afterwards."""
        self.pages = pages
        self.forms = forms
        self._logins = logins
        self._accounts = accounts
        self._targets = targets
        self._resilience = resilience
        self._caller_of = caller_of
        self._session_cookie = session_cookie
        self._parameter = parameter
        self._body_timeout_s = body_timeout_s
        self._provisional = provisional
        self._busy: dict[tuple[str, int], Response] = {}  # by language and seconds: a few
        self.leave: Callable[[Session], str | None] = lambda session: None
        """Says where else somebody has to log out, by the session that is over; set by who adds other ways in."""

    def routes(self) -> list[Route]:
        """Return the routes; every path in them is exact."""
        served = self.served
        return [
            Route(STYLE_PATH, self._style, methods=["GET"]),
            Route(LOGIN_PATH, served(self.login), methods=["GET", "POST"]),
            Route(CODE_PATH, served(self.code), methods=["GET", "POST"]),
            Route(ENROL_PATH, served(self.enrol), methods=["GET", "POST"]),
            Route(CHANGE_PATH, served(self.change), methods=["GET", "POST"]),
            Route(PROVISIONAL_PATH, served(self.provisional), methods=["POST"]),
            Route(RESET_PATH, served(self.reset), methods=["GET", "POST"]),
            Route(LOGOUT_PATH, served(self.logout), methods=["GET", "POST"]),
        ]

    # -- for whoever adds pages ---------------------------------------------------------------------------------------

    def served(self, handler: Callable[[Request, Mapping[str, str]], Awaitable[Response]]) -> Handler:
        """Return an endpoint: its form is read first, then it runs in the pool of log-in; its faults are pages."""
        return partial(self._serve, handler)

    async def _serve(
        self, handler: Callable[[Request, Mapping[str, str]], Awaitable[Response]], request: Request
    ) -> Response:
        if request.method == "HEAD":
            request.scope["method"] = "GET"  # the same answer; the server leaves its body out (RFC 9110 §9.3.2)
        try:
            posted = once(await read_form(request, self._body_timeout_s)) if request.method == "POST" else {}
            async with self._resilience.serving("user_auth"):
                return await handler(request, posted)
        except BodyRefused as fault:
            return self.sorry(request, "error_form", fault.status)
        except (BulkheadFullError, OverloadedError, ResourceExhaustedError) as error:
            return self.busy(request, error)
        except GatewayError as error:
            request_id = self._caller_of(request).request_id
            _log.warning(
                "%s was refused: %s: %s", request.scope["path"], error.code, error, extra={"request_id": request_id}
            )
            status = error.status if error.status >= 500 else 409
            text = "error_not_offered" if error.code == "not_offered" else "error_unavailable"
            seconds = max(1, math.ceil(error.retry_after_s or 1))
            response = self.sorry(request, text, status, request_id=request_id, seconds=seconds)
            if error.retry_after_s is not None:
                response.headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
            return response

    def asked(self, handler: ScriptHandler) -> Handler:
        """Return an endpoint for a script of our pages, which sends back what its page is tied to the browser by."""

        async def serve(request: Request) -> Response:
            try:
                body = await read_json(request, self._body_timeout_s)
                if not self.forms.accepts(request, str(body.get("csrf", ""))):
                    raise BodyRefused(403, "form_expired", "Form expired", self.texts(request)["error_form"])
                async with self._resilience.serving("user_auth"):
                    return await handler(request, body)
            except BodyRefused as fault:
                return ProblemResponse(fault.status, fault.code, fault.title, str(fault))
            except GatewayError as error:
                return refusal_of(error, self._told(request, error))

        return serve

    def _told(self, request: Request, error: GatewayError) -> str:
        """Say in the reader's language why a script is refused; "" in English, where the error says it best."""
        texts = self.texts(request)
        name = _SCRIPT_TEXTS.get(error.code, "error_unavailable" if error.status >= 500 else "")
        if not name or texts["lang"] == FALLBACK:
            return ""
        return texts[name].format(seconds=max(1, math.ceil(error.retry_after_s or 1)))

    def busy(self, request: Request, error: GatewayError) -> Response:
        """Say that there is more work than can be done, and when to come again: by a page that was made before.

        Metrics count it; in a flood a line for each would be work that nobody has time for.
        """
        request_id = secrets.token_hex(16)
        _log.debug("%s was refused: %s: %s", request.scope["path"], error.code, error, extra={"request_id": request_id})
        seconds = max(1, math.ceil(error.retry_after_s or 1))
        key = (self.texts(request)["lang"], seconds)
        page = self._busy.get(key)
        if page is None:
            page = self._busy[key] = self.sorry(request, "error_busy", error.status, seconds=seconds)
            page.headers["retry-after"] = str(seconds)
        response = copy(page)
        response.raw_headers = [*page.raw_headers, (b"x-request-id", request_id.encode())]
        return response

    @property
    def gated(self) -> frozenset[str]:
        """The paths that ask for much, and may be refused before anything is done for them."""
        return frozenset({LOGIN_PATH, CODE_PATH, ENROL_PATH, CHANGE_PATH, PROVISIONAL_PATH, RESET_PATH})

    def browser_of(self, request: Request) -> Browser:
        """Give what the browser brings along."""
        cookies = request.cookies
        return Browser(
            session=cookies.get(self._session_cookie, ""),
            known=cookies.get(KNOWN, ""),
            device=cookies.get(DEVICE, ""),
            voucher=cookies.get(VOUCHER, ""),
            origin=request.headers.get("origin", ""),
            agent=request.headers.get("user-agent", "")[:_PARAMETER_BYTES_MAX],
            caller=self._caller_of(request),
        )

    def goal_of(self, request: Request, values: Mapping[str, str]) -> Goal:
        """Give what a login is for, from a query or the hidden fields of a form; what is odd in it counts nothing."""
        given = {name: values.get(name, "")[:_PARAMETER_BYTES_MAX] for name in PARAMETERS}
        age = given["max_age"]
        return Goal(
            target=self._targets.judge(values.get(self._parameter, ""), request.headers.get("host", "")),
            acr_values=tuple(given["acr_values"].split()),
            reauthenticate="login" in given["prompt"].split() or "select_account" in given["prompt"].split(),
            max_age_s=int(age) if age.isascii() and age.isdigit() and len(age) < 10 else None,
            tenant=given["tenant"] if _TENANT.fullmatch(given["tenant"]) else "",
        )

    def answer(self, request: Request, outcome: LoggedIn | Next) -> Response:
        """Send the browser on, with the cookies that it gets."""
        if isinstance(outcome, Next):
            response: Response = redirect(_PAGES[outcome.step])
            put(response, STEP, outcome.value, max_age_s=STEP_S)
            return response
        response = self.go(request, outcome.target)
        put(response, self._session_cookie, outcome.begun.value)
        if request.cookies.get(STEP):
            drop(response, STEP)
        if outcome.known:
            put(response, KNOWN, outcome.known, max_age_s=KNOWN_S)
        if outcome.device:
            put(response, DEVICE, outcome.device, max_age_s=self._logins.devices.lifetime_s)
        self._put_voucher(response, outcome.voucher)
        return response

    def _put_voucher(self, response: Response, voucher: str | None) -> None:
        vouchers = self._logins.devices.vouchers
        if voucher and vouchers is not None:
            put(response, VOUCHER, voucher, max_age_s=vouchers.lifetime_s)
        elif voucher == "":
            drop(response, VOUCHER)

    def script_answer(self, request: Request, outcome: Outcome) -> Response:
        """Tell a script where to go, with the cookies that the browser gets."""
        if isinstance(outcome, Refused):
            return ProblemResponse(401, "login_refused", "Not logged in", self.refusal(request, outcome))
        answer = self.answer(request, outcome)
        where = outcome.target if isinstance(outcome, LoggedIn) else answer.headers["location"]
        response = json_response({"location": where})
        response.raw_headers.extend(pair for pair in answer.raw_headers if pair[0] == b"set-cookie")
        return response

    def go(self, request: Request, target: str) -> Response:
        """Send the browser to a target that was judged, by a redirect or by a page that opens it."""
        if request.method == "GET" or self._targets.is_near(target):
            return redirect(target)
        texts = self.texts(request)
        return self.pages.page(
            request,
            "message.html",
            title=texts["continue_title"],
            text=texts["continue_text"],
            refresh=target,
            target=target,
            button=texts["continue"],
            request_id="",
        )

    def show(self, request: Request, name: str, status: int = 200, **values: Any) -> Response:
        """Show a page with forms."""
        key = self.forms.key_of(request)
        response = self.pages.page(request, name, status, csrf=self.forms.token(request, key), **values)
        if key.is_new:
            self.forms.tie(response, key)
        return response

    def sorry(self, request: Request, text: str, status: int, *, request_id: str = "", seconds: int = 0) -> Response:
        """Say why it does not go on, and offer to begin again."""
        texts = self.texts(request)
        return self.pages.page(
            request,
            "message.html",
            status,
            title=texts["wrong_title"],
            text=texts[text].format(seconds=seconds),
            refresh="",
            target=LOGIN_PATH,
            button=texts["again"],
            request_id=request_id,
        )

    def texts(self, request: Request) -> Mapping[str, str]:
        """Give the texts in the reader's language."""
        return self.pages.texts(request)

    def refusal(self, request: Request, refused: Refused) -> str:
        """Say what a user is told of a refusal."""
        texts = self.texts(request)
        return texts[f"error_{refused.code}"].format(seconds=max(1, math.ceil(refused.retry_after_s)))

    def problem(self, request: Request, code: str) -> str:
        """Say what is wrong with a new password."""
        return self.texts(request)[f"error_{code}"].format(count=self.minimum)

    @property
    def minimum(self) -> int:
        """The characters that a new password has at least."""
        return self._logins.passwords.characters_min

    # -- logging in ---------------------------------------------------------------------------------------------------

    async def login(self, request: Request, posted: Mapping[str, str]) -> Response:
        """Serve `/login`."""
        values = posted if request.method == "POST" else dict(request.query_params)
        goal, browser = self.goal_of(request, values), self.browser_of(request)
        if request.method == "GET":
            if await self._provisional.earlier(browser.session) is not None:
                return self._provisional_page(request, values)
            if self._provisional.knows_device(browser.voucher) and not await self._accounts.has_session(browser):
                return self._provisional_page(request, values, device=CARRY_PATH)
            outcome = await self._logins.resume(goal, browser)
            if isinstance(outcome, LoggedIn):
                return self.go(request, outcome.target)
            if isinstance(outcome, Next):
                return self.answer(request, outcome)
            self._logins.check_offered()
            return self._login_page(request, values)
        if not self.forms.accepts(request, posted.get("csrf", "")):
            return self._login_page(request, values, "error_form", 403)
        outcome = await self._logins.password(posted.get("username", ""), posted.get("password", ""), goal, browser)
        if isinstance(outcome, Refused):
            return self._refused(request, outcome, partial(self._login_page, request, values))
        return self.answer(request, outcome)

    async def provisional(self, request: Request, posted: Mapping[str, str]) -> Response:
        """Serve `/login/provisional`: who has a session that ends soon goes on a little."""
        if not self.forms.accepts(request, posted.get("csrf", "")):
            return self.sorry(request, "error_form", 403)
        browser = self.browser_of(request)
        begun = await self._provisional.begin(browser.session, caller=browser.caller)
        if begun is None:
            return self.sorry(request, "error_over", 401)
        return self.answer(request, LoggedIn(begun=begun, target=self.goal_of(request, posted).target))

    def _provisional_page(self, request: Request, values: Mapping[str, str], *, device: str = "") -> Response:
        """Offer to go on: by the session that is there, or where a device proves its key."""
        fields = {self._parameter: values.get(self._parameter, "")}
        scripts = (DEVICE_SCRIPT.address,) if device else ()
        return self.show(
            request, "provisional.html", fields=fields, action=PROVISIONAL_PATH, device=device, scripts=scripts
        )

    def _login_page(
        self, request: Request, values: Mapping[str, str], error: str = "", status: int = 200, *, text: str = ""
    ) -> Response:
        fields = {name: values.get(name, "") for name in (self._parameter, *PARAMETERS)}
        texts = self.texts(request)
        return self.show(
            request,
            "login.html",
            status,
            error=text or (texts[error] if error else ""),
            fields=fields,
            username=values.get("username", "") or values.get("login_hint", ""),
        )

    def _refused(self, request: Request, refused: Refused, page: Callable[..., Response]) -> Response:
        status = 429 if refused.code == "throttled" else 401
        response = page(status=status, text=self.refusal(request, refused))
        if refused.code == "throttled":
            response.headers["retry-after"] = str(max(1, math.ceil(refused.retry_after_s)))
        return response

    # -- further steps ------------------------------------------------------------------------------------------------

    async def _step(self, request: Request, *steps: StepKind) -> tuple[str, Pending] | Response:
        value = request.cookies.get(STEP, "")
        pending = await self._logins.pending(value, *steps)
        return self.over(request) if pending is None else (value, pending)

    def over(self, request: Request) -> Response:
        """Say that what was under way is over."""
        return self.sorry(request, "error_over", 400)

    async def code(self, request: Request, posted: Mapping[str, str]) -> Response:
        """Serve `/mfa`: a code of an app, or for recovery."""
        found = await self._step(request, "code")
        if isinstance(found, Response):
            return found
        browser = self.browser_of(request)
        if request.method == "GET":
            return self._code_page(request, device=self._logins.asks_device(found[1], browser))
        if not self.forms.accepts(request, posted.get("csrf", "")):
            return self._code_page(request, status=403, text=self.texts(request)["error_form"])
        if posted.get("device_proof"):
            browser = replace(browser, binding=Binding(posted["device_proof"], posted.get("device_id", "")))
        outcome = await self._logins.code(
            found[0], posted.get("code", ""), browser, remember=posted.get("remember") == "yes"
        )
        return self._stepped(request, outcome, partial(self._code_page, request))

    def _code_page(self, request: Request, *, status: int = 200, text: str = "", device: bool = False) -> Response:
        """Show where a code is typed; `device`: unless the browser's device proves its key first."""
        days = self._logins.devices.lifetime_s // DAY_S
        return self.show(
            request,
            "code.html",
            status,
            error=text,
            remember_days=days,
            bind=DEVICE_BIND_PATH,
            device=DEVICE_PATH if device else "",
            scripts=(DEVICE_SCRIPT.address,) if days or device else (),
        )

    def _stepped(self, request: Request, outcome: Outcome, page: Callable[..., Response]) -> Response:
        if not isinstance(outcome, Refused):
            return self.answer(request, outcome)
        if outcome.code in ("code", "throttled"):
            return self._refused(request, outcome, page)
        response = self.sorry(request, f"error_{outcome.code}", 401)
        drop(response, STEP)
        return response

    async def enrol(self, request: Request, posted: Mapping[str, str]) -> Response:
        """Serve `/mfa/enrol`: an app is set up on the way, where a second factor is needed and there is none."""
        found = await self._step(request, "enrol")
        if isinstance(found, Response):
            return found
        subject = found[1].subject
        user = await self._accounts.user(subject)
        if user is None:
            return self.over(request)
        enrolment = await self._accounts.enrolment(user)
        page = partial(
            self.show,
            request,
            "enrol.html",
            required=True,
            action=ENROL_PATH,
            qr=qr_code(enrolment.uri, self.texts(request)["enrol_title"]),
            secret=enrolment.secret,
        )
        if request.method == "GET":
            return page()
        if not self.forms.accepts(request, posted.get("csrf", "")):
            return page(403, error=self.texts(request)["error_form"])
        browser = self.browser_of(request)
        outcome = await self._logins.enrolled(found[0], posted.get("code", ""), browser)
        if isinstance(outcome, LoggedIn):
            codes = await self._accounts.new_codes(user, browser.caller)
            target = outcome.target
            response = self.pages.page(request, "codes.html", codes=codes, target=target)
            return self.with_cookies(request, response, outcome)
        return self._stepped(request, outcome, lambda status, text: page(status, error=text))

    async def change(self, request: Request, posted: Mapping[str, str]) -> Response:
        """Serve `/login/change`: a password that has to be changed before its user goes on."""
        found = await self._step(request, "change")
        if isinstance(found, Response):
            return found
        texts = self.texts(request)
        page = partial(self.new_password_page, request, CHANGE_PATH, texts["change_title"], intro=texts["change_intro"])
        if request.method == "GET":
            return page()
        fault = self.new_password_fault(request, posted)
        if fault:
            return page(error=fault, status=400)
        outcome = await self._logins.change(found[0], posted.get("new", ""), self.browser_of(request))
        if isinstance(outcome, NotGood):
            return page(error=self.problem(request, outcome.problem), status=400)
        return self._stepped(request, outcome, lambda status, text: page(error=text, status=status))

    async def reset(self, request: Request, posted: Mapping[str, str]) -> Response:
        """Serve `/login/reset`: a link that an operator gave. Its secret leaves the address before a page is shown."""
        token = request.query_params.get("token", "")
        if request.method == "GET" and token:
            if await self._logins.pending(token, "reset") is None:
                return self.sorry(request, "error_reset_over", 400)
            response: Response = redirect(RESET_PATH)
            put(response, STEP, token[:_PARAMETER_BYTES_MAX], max_age_s=STEP_S)
            return response
        texts = self.texts(request)
        value = request.cookies.get(STEP, "")
        if await self._logins.pending(value, "reset") is None:
            return self.sorry(request, "error_reset_over", 400)
        page = partial(self.new_password_page, request, RESET_PATH, texts["reset_title"])
        if request.method == "GET":
            return page()
        fault = self.new_password_fault(request, posted)
        if fault:
            return page(error=fault, status=400)
        problem = await self._logins.reset(value, posted.get("new", ""), self.browser_of(request))
        if problem == "over":
            return self.sorry(request, "error_reset_over", 400)
        if problem is not None:
            return page(error=self.problem(request, problem), status=400)
        response = self.show(request, "login.html", notice=texts["reset_done"], fields={}, username="")
        drop(response, STEP)
        return response

    def new_password_page(
        self,
        request: Request,
        action: str,
        title: str,
        *,
        intro: str = "",
        error: str = "",
        status: int = 200,
        username: str = "",
        ask_current: bool = False,
        back: str = "",
    ) -> Response:
        """Show a form for a new password."""
        return self.show(
            request,
            "new_password.html",
            status,
            title=title,
            intro=intro,
            action=action,
            error=error,
            minimum=self.minimum,
            username=username,
            ask_current=ask_current,
            back=back,
        )

    def new_password_fault(self, request: Request, posted: Mapping[str, str]) -> str:
        """Say what is wrong with such a form, "" where nothing is."""
        texts = self.texts(request)
        if not self.forms.accepts(request, posted.get("csrf", "")):
            return texts["error_form"]
        return "" if posted.get("new", "") == posted.get("repeat", "") else texts["error_mismatch"]

    # -- logging out --------------------------------------------------------------------------------------------------

    async def logout(self, request: Request, posted: Mapping[str, str]) -> Response:
        """Serve `/logout`: a page that asks, and what it posts. A link alone logs nobody out."""
        texts = self.texts(request)
        values = posted if request.method == "POST" else dict(request.query_params)
        wanted = values.get(self._parameter, "")
        if request.method == "GET":
            return self.show(request, "logout.html", fields={self._parameter: wanted})
        if not self.forms.accepts(request, posted.get("csrf", "")):
            fields = {self._parameter: wanted}
            return self.show(request, "logout.html", 403, error=texts["error_form"], fields=fields)
        browser = self.browser_of(request)
        found = await self._accounts.find(browser)
        await self._accounts.log_out(browser)
        elsewhere = None if found is None else self.leave(found[1])
        return self.logged_out(request, wanted) if elsewhere is None else self._leaving(request, elsewhere)

    def _leaving(self, request: Request, address: str) -> Response:
        """Send the browser on to log out there, too, by a page: no form is answered by a redirect to another site."""
        texts = self.texts(request)
        response = self.pages.page(
            request,
            "message.html",
            title=texts["logged_out_title"],
            text=texts["logged_out_text"],
            refresh=address,
            target=address,
            button=texts["continue"],
            request_id="",
        )
        forget_session(request, response, self._session_cookie)
        return response

    def logged_out(self, request: Request, wanted: str = "") -> Response:
        """Say goodbye, or send the browser where it asked to go."""
        if wanted and self._targets.allows(wanted, request.headers.get("host", "")):
            response = self.go(request, wanted)
        else:
            texts = self.texts(request)
            response = self.pages.page(
                request,
                "message.html",
                title=texts["logged_out_title"],
                text=texts["logged_out_text"],
                refresh="",
                target=LOGIN_PATH,
                button=texts["home_login"],
                request_id="",
            )
        forget_session(request, response, self._session_cookie)
        return response

    def with_cookies(self, request: Request, response: Response, outcome: LoggedIn) -> Response:
        """Give a page the cookies of a login."""
        for name, value in self.answer(request, outcome).raw_headers:
            if name == b"set-cookie":
                response.raw_headers.append((name, value))
        return response

    def login_address(self, back: str, **wishes: str) -> str:
        """Give the address of a login that comes back to a path of ours."""
        return f"{LOGIN_PATH}?{urlencode({self._parameter: back, **wishes})}"

    async def _style(self, _request: Request) -> Response:
        return self.pages.style()


def redirect(target: str) -> RedirectResponse:
    """Send the browser there by a GET, and let nobody keep that."""
    return RedirectResponse(target, 303, {"cache-control": "no-store", "referrer-policy": "no-referrer"})


__all__: Sequence[str] = ["LoginEndpoints", "redirect"]
