"""Passkeys on the pages of log-in and of one's account: what the script of the pages asks, and pages without it."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.flows.account import Accounts
from gateway.flows.login import Logins
from gateway.flows.passkey import PasskeyRefused, Passkeys, ProofTooOld
from gateway.front.login.account import ACCOUNT_PATH, AccountEndpoints
from gateway.front.login.cookies import STEP
from gateway.front.login.endpoints import CODE_PATH, LOGIN_PATH, Body, LoginEndpoints, ScriptHandler, redirect
from gateway.front.login.pages import Way
from gateway.front.login.scripts import Script
from gateway.front.responses import json_response
from gateway.stores.directory import User
from gateway.types import Session

ENTRY_PATH: Final = "/login/passkey"
SECOND_PATH: Final = "/mfa/passkey"
LIST_PATH: Final = "/account/passkeys"
ADD_PATH: Final = "/account/passkeys/add"
_SCRIPT: Final = Script("passkeys.js")


def passkey_way() -> Way:
    """Return the button on the page of log-in."""
    return Way(ENTRY_PATH, "passkey_use", "passkey", _SCRIPT.address)


def passkey_second_way() -> Way:
    """Return the button where a code is asked for."""
    return Way(SECOND_PATH, "passkey_use", "passkey", _SCRIPT.address)


def passkey_account_way() -> Way:
    """Return the link on the page of one's account."""
    return Way(LIST_PATH, "passkeys")


class PasskeyEndpoints:
    """The endpoints around `Passkeys`. What the script asks is JSON; what forms post works without it."""

    def __init__(
        self,
        passkeys: Passkeys,
        *,
        logins: Logins,
        accounts: Accounts,
        login: LoginEndpoints,
        account: AccountEndpoints,
    ) -> None:
        self._passkeys = passkeys
        self._logins = logins
        self._accounts = accounts
        self._login = login
        self._account = account

    def routes(self) -> list[Route]:
        """Return the routes; every path in them is exact."""
        post, owned = ["POST"], self._account.owned
        return [
            _SCRIPT.route(),
            Route(ENTRY_PATH, self._both(self.log_in), methods=["GET", "POST"]),
            Route(f"{ENTRY_PATH}/options", self._login.asked(self.offer_login), methods=post),
            Route(SECOND_PATH, self._both(self.second), methods=["GET", "POST"]),
            Route(f"{SECOND_PATH}/options", self._login.asked(self.offer_second), methods=post),
            Route(LIST_PATH, owned(self.list), methods=["GET"]),
            Route(ADD_PATH, self._both(self.register), methods=["GET", "POST"]),
            Route(f"{ADD_PATH}/options", self._login.asked(self.offer_registration), methods=post),
            Route(f"{LIST_PATH}/rename", owned(self.rename), methods=post),
            Route(f"{LIST_PATH}/remove", owned(self.remove, fresh=True), methods=post),
        ]

    # -- logging in ---------------------------------------------------------------------------------------------------

    async def offer_login(self, request: Request, body: Body) -> Response:
        """Serve `/login/passkey/options`."""
        return json_response(await self._passkeys.offer_login(self._tenant(request, body), self._browser_key(request)))

    async def log_in(self, request: Request, body: Body) -> Response:
        """Serve `/login/passkey`: the answer of an authenticator, for a log-in with nothing else."""
        browser = self._login.browser_of(request)
        tenant = self._tenant(request, body)
        proved = await self._passkeys.log_in(tenant, self._browser_key(request), _answer(body), caller=browser.caller)
        goal = self._login.goal_of(request, _texts(body))
        outcome = await self._logins.proven(proved.user, proved.methods, goal, browser, method="passkey")
        return self._login.script_answer(request, outcome)

    async def offer_second(self, request: Request, _body: Body) -> Response:
        """Serve `/mfa/passkey/options`."""
        value, user = await self._pending_user(request)
        options = await self._passkeys.offer_second(user, value.encode())
        if options is None:
            raise PasskeyRefused("none", "there is no passkey for this account: use a code")
        return json_response(options)

    async def second(self, request: Request, body: Body) -> Response:
        """Serve `/mfa/passkey`: a passkey beside what was proved already."""
        value, user = await self._pending_user(request)
        browser = self._login.browser_of(request)
        proved = await self._passkeys.verify_second(user, value.encode(), _answer(body), caller=browser.caller)
        return self._login.script_answer(
            request, await self._logins.second(value, proved.methods, browser, method="passkey")
        )

    async def _pending_user(self, request: Request) -> tuple[str, User]:
        value = request.cookies.get(STEP, "")
        pending = await self._logins.pending(value, "code")
        user = None if pending is None else await self._accounts.user(pending.subject)
        if user is None:
            raise PasskeyRefused("login_over", "this login is over: begin again")
        return value, user

    # -- one's own ----------------------------------------------------------------------------------------------------

    async def list(self, request: Request, _posted: Mapping[str, str], user: User, session: Session) -> Response:
        """Serve `/account/passkeys`."""
        return await self._page(request, user, session)

    async def _page(
        self, request: Request, user: User, session: Session, status: int = 200, *, error: str = ""
    ) -> Response:
        rows = [(_encoded(each.credential_id), each) for each in await self._passkeys.list_of(user)]
        return self._login.show(
            request,
            "passkeys.html",
            status,
            error=error,
            rows=rows,
            is_fresh=self._passkeys.is_fresh(session),
            again=self._login.login_address(LIST_PATH, prompt="login", login_hint=user.user_name),
            add=ADD_PATH,
            back=ACCOUNT_PATH,
            scripts=(_SCRIPT.address,),
        )

    async def offer_registration(self, request: Request, _body: Body) -> Response:
        """Serve `/account/passkeys/add/options`."""
        user, session = await self._owner(request)
        return json_response(await self._passkeys.offer_registration(user, session))

    async def register(self, request: Request, body: Body) -> Response:
        """Serve `/account/passkeys/add`: the answer of an authenticator that made one."""
        user, session = await self._owner(request)
        name = body.get("name", "")
        await self._passkeys.register(
            user,
            session,
            _answer(body),
            name if isinstance(name, str) else "",
            caller=self._login.browser_of(request).caller,
        )
        return json_response({"location": LIST_PATH})

    async def rename(self, request: Request, posted: Mapping[str, str], user: User, session: Session) -> Response:
        """Serve `/account/passkeys/rename`."""
        caller = self._login.browser_of(request).caller
        if await self._passkeys.rename(user, _decoded(posted.get("id", "")), posted.get("name", ""), caller=caller):
            return redirect(LIST_PATH)
        error = self._login.texts(request)["error_passkey_name"]
        return await self._page(request, user, session, 400, error=error)

    async def remove(self, request: Request, posted: Mapping[str, str], user: User, session: Session) -> Response:
        """Serve `/account/passkeys/remove`; what is gone already is no fault."""
        caller = self._login.browser_of(request).caller
        await self._passkeys.remove(user, session, _decoded(posted.get("id", "")), caller=caller)
        return redirect(LIST_PATH)

    async def _owner(self, request: Request) -> tuple[User, Session]:
        found = await self._accounts.find(self._login.browser_of(request))
        if found is None:
            raise ProofTooOld("log in first")
        return found

    # -- requests -----------------------------------------------------------------------------------------------------

    def _both(self, work: ScriptHandler) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint for the script, which shows people a page who come by a link, without one."""
        asked = self._login.asked(work)

        async def serve(request: Request) -> Response:
            if request.method == "POST" and request.headers.get("content-type", "").startswith("application/json"):
                return await asked(request)
            texts = self._login.texts(request)
            path = request.url.path
            return self._login.pages.page(
                request,
                "message.html",
                title=texts["passkeys"],
                text=texts["passkey_script"],
                refresh="",
                target={SECOND_PATH: CODE_PATH, ADD_PATH: LIST_PATH}.get(path, LOGIN_PATH),
                button=texts["again"],
                request_id="",
            )

        return serve

    def _browser_key(self, request: Request) -> str:
        return self._login.forms.key_of(request).nonce

    def _tenant(self, request: Request, body: Body) -> str:
        return self._login.goal_of(request, _texts(body)).tenant or self._logins.rules.tenant


def _answer(body: Body) -> dict[str, Any]:
    answer = body.get("answer")
    if not isinstance(answer, dict):
        raise PasskeyRefused("malformed")
    return answer


def _texts(body: Body) -> dict[str, str]:
    return {name: value for name, value in body.items() if isinstance(value, str)}


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    """Return what an id in a form stands for; what stands for nothing is nobody's."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except ValueError:
        return b""
