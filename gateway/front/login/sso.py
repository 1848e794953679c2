"""Log-in at identity providers: where browsers are sent and come back to, and what providers tell by themselves."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.errors import GatewayError
from gateway.flows.account import Accounts
from gateway.flows.federated import Federation, Provider, SSORefused, SSOStart, SSOUnavailable
from gateway.flows.login import Logins, Refused
from gateway.front.forms import BodyRefused, once, read_form
from gateway.front.login.account import ACCOUNT_PATH, AccountEndpoints
from gateway.front.login.endpoints import LOGIN_PATH, LoginEndpoints, redirect
from gateway.front.login.pages import Way
from gateway.front.refusals import refusal_of
from gateway.front.responses import json_response
from gateway.resilience import Resilience
from gateway.stores.directory import User
from gateway.types import Session

_log = logging.getLogger("portcullis.login")

LINKS_PATH: Final = "/account/sso"
QUERY_BYTES_MAX: Final = 16 * 1024

Work = Callable[[Provider, Request], Awaitable[Response]]


def sso_way(provider_id: str, name: str) -> Way:
    """Return the button on the page of log-in."""
    return Way(entry_path(provider_id), name, is_name=True)


def sso_account_way() -> Way:
    """Return the link on the page of one's account."""
    return Way(LINKS_PATH, "sso_links")


def entry_path(provider_id: str) -> str:
    """Return where a log-in at a provider begins."""
    return f"{LOGIN_PATH}/sso/{provider_id}"


class SSOEndpoints:
    """The endpoints around `Federation`. Providers are asked in their own pool; the rest is that of log-in."""

    def __init__(
        self,
        federation: Federation,
        *,
        logins: Logins,
        accounts: Accounts,
        login: LoginEndpoints,
        account: AccountEndpoints,
        resilience: Resilience,
        body_timeout_s: float,
    ) -> None:
        self._federation = federation
        self._logins = logins
        self._accounts = accounts
        self._login = login
        self._account = account
        self._resilience = resilience
        self._body_timeout_s = body_timeout_s

    def routes(self) -> list[Route]:
        """Return the routes; every path in them is exact."""
        owned = self._account.owned
        found = [
            Route(LINKS_PATH, owned(self.links), methods=["GET"]),
            Route(f"{LINKS_PATH}/unlink", owned(self.unlink, fresh=True), methods=["POST"]),
        ]
        for provider in self._federation.providers.values():
            place = entry_path(provider.id)
            found += [
                Route(place, partial(self._shown, self.begin, provider), methods=["GET"]),
                Route(f"{place}/callback", partial(self._shown, self.complete, provider), methods=["GET"]),
                Route(f"{place}/backchannel", partial(self.back_channel, provider), methods=["POST"]),
                Route(f"{LINKS_PATH}/{provider.id}", partial(self._shown, self.link, provider), methods=["POST"]),
            ]
        return found

    async def _shown(self, work: Work, provider: Provider, request: Request) -> Response:
        """Serve a browser; whatever goes wrong is a page from which it goes on."""
        try:
            return await work(provider, request)
        except SSOUnavailable as error:
            return self._fallback(provider, request, error)
        except SSORefused as refused:
            text = str(refused)
            return self._login_page(request, 403, f"{text[:1].upper()}{text[1:]}.")
        except BodyRefused as fault:
            return self._login.sorry(request, "error_form", fault.status)
        except GatewayError as error:
            _log.warning("%s was refused: %s: %s", request.scope["path"], error.code, error)
            status = error.status if error.status >= 500 else 409
            return _come_again(self._login.sorry(request, "error_unavailable", status), error.retry_after_s)

    def _fallback(self, provider: Provider, request: Request, error: SSOUnavailable) -> Response:
        """Offer what is left (`FallbackResponse`): the password, on the same page, or to come again."""
        fallback = error.fallback
        name = provider.config.name or provider.id
        seconds = max(1, math.ceil(fallback.retry_after_s))
        text = self._login.texts(request)["error_sso"].format(name=name, seconds=seconds)
        _log.warning("a log-in at `%s` is not possible: %s", provider.id, error)
        return _come_again(self._login_page(request, 503, text), fallback.retry_after_s)

    def _login_page(self, request: Request, status: int, error: str) -> Response:
        known = ("code", "state", "iss", "error", "error_description", "session_state")
        fields = {name: value for name, value in request.query_params.items() if name not in known}
        is_entry = request.method == "GET" and not request.url.path.endswith("/callback")
        return self._login.show(
            request, "login.html", status, error=error, fields=fields if is_entry else {}, username=""
        )

    # -- there and back -----------------------------------------------------------------------------------------------

    async def begin(self, provider: Provider, request: Request) -> Response:
        """Serve `/login/sso/{id}`: send the browser to the provider."""
        values = dict(request.query_params)
        goal = self._login.goal_of(request, values)
        return await self._sent(
            provider,
            request,
            SSOStart(
                browser=self._login.forms.key_of(request).nonce,
                return_to=goal.target,
                acr_values=goal.acr_values,
                login_hint=values.get("login_hint", "")[:256],
                reauthenticate=goal.reauthenticate,
                auth_age_max_s=goal.max_age_s,
            ),
        )

    async def _sent(self, provider: Provider, request: Request, start: SSOStart) -> Response:
        key = self._login.forms.key_of(request)
        start = replace(start, browser=key.nonce)  # the one that the browser gets with this answer, where it is new
        address = await self._federation.begin(provider.id, start, caller=self._login.browser_of(request).caller)
        response = self._elsewhere(request, address)
        if key.is_new:
            self._login.forms.tie(response, key)
        return response

    def _elsewhere(self, request: Request, address: str) -> Response:
        """A form may not be answered by a redirect to another site (`form-action`), so that a page opens it."""
        if request.method == "GET":
            return redirect(address)
        texts = self._login.texts(request)
        return self._login.pages.page(
            request,
            "message.html",
            title=texts["sso_links"],
            text=texts["sso_go"],
            refresh=address,
            target=address,
            button=texts["continue"],
            request_id="",
        )

    async def complete(self, provider: Provider, request: Request) -> Response:
        """Serve `/login/sso/{id}/callback`: take what the browser brings back."""
        browser = self._login.browser_of(request)
        current = await self._accounts.find(browser)
        login = await self._federation.complete(
            provider.id,
            _pairs(request),
            self._login.forms.key_of(request).nonce,
            current=None if current is None else current[1].subject,
            caller=browser.caller,
        )
        if login.links_only:
            return redirect(LINKS_PATH)
        goal = self._login.goal_of(request, {})
        goal = replace(goal, target=login.return_to or goal.target, acr_values=login.acr_values)
        async with self._resilience.serving("user_auth"):
            outcome = await self._logins.proven(
                login.user, login.methods, goal, browser, method="sso", attributes=login.attributes
            )
        if isinstance(outcome, Refused):
            return self._login_page(request, 401, self._login.refusal(request, outcome))
        return self._login.answer(request, outcome)

    # -- one's own accounts there -------------------------------------------------------------------------------------

    async def links(self, request: Request, _posted: Mapping[str, str], user: User, _session: Session) -> Response:
        """Serve `/account/sso`: which providers know this user."""
        known = await self._federation.linked(user)
        rows = [
            (each.id, each.config.name or each.id, each.issuer in known)
            for each in self._federation.providers.values()
            if each.config.tenant == user.tenant
        ]
        return self._login.show(request, "sso.html", rows=rows, links=LINKS_PATH, back=ACCOUNT_PATH)

    async def link(self, provider: Provider, request: Request) -> Response:
        """Serve `/account/sso/{id}`: have the provider know this user, too. Needs a proof that is new."""
        posted = once(await read_form(request, self._body_timeout_s))
        found = await self._accounts.find(self._login.browser_of(request))
        if found is None or not self._login.forms.accepts(request, posted.get("csrf", "")):
            return redirect(self._login.login_address(LINKS_PATH))
        if not self._accounts.is_fresh(found[1]):
            return redirect(self._login.login_address(LINKS_PATH, prompt="login", login_hint=found[0].user_name))
        return await self._sent(provider, request, SSOStart(browser="", links=found[1]))

    async def unlink(self, request: Request, posted: Mapping[str, str], user: User, _session: Session) -> Response:
        """Serve `/account/sso/unlink`."""
        provider = self._federation.providers.get(posted.get("id", ""))
        if provider is not None:
            await self._federation.unlink(provider.id, user, caller=self._login.browser_of(request).caller)
        return redirect(LINKS_PATH)

    # -- providers ----------------------------------------------------------------------------------------------------

    async def back_channel(self, provider: Provider, request: Request) -> Response:
        """Serve `/login/sso/{id}/backchannel` (Back-Channel Logout 1.0 §2.8): 200, or 400 and why."""
        try:
            form = once(await read_form(request, self._body_timeout_s))
            caller = self._login.browser_of(request).caller
            await self._federation.back_channel_logout(provider.id, form.get("logout_token", ""), caller=caller)
        except BodyRefused as fault:
            return json_response({"error": "invalid_request", "error_description": str(fault)}, 400)
        except SSORefused:
            return json_response({"error": "invalid_request", "error_description": "the logout token is refused"}, 400)
        except GatewayError as error:
            return refusal_of(error)
        return json_response({})

    def logout_address(self, session: Session) -> str | None:
        """Return where a browser goes that logged out here, so that its provider learns of it."""
        return self._federation.logout_url(session)


def _pairs(request: Request) -> list[tuple[str, str]]:
    raw: bytes = request.scope["query_string"]
    try:
        return parse_qsl(raw[:QUERY_BYTES_MAX].decode("latin-1"), keep_blank_values=True, max_num_fields=32)
    except ValueError:
        raise SSORefused("answer_malformed") from None


def _come_again(response: Response, retry_after_s: float | None) -> Response:
    if retry_after_s is not None:
        response.headers["retry-after"] = str(max(1, math.ceil(retry_after_s)))
    return response


__all__ = ["SSOEndpoints", "entry_path", "sso_account_way", "sso_way"]
