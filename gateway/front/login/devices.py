"""Devices that are remembered by a key, on the pages of log-in: what their script asks. No page needs it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.flows.devices import DeviceOffer
from gateway.flows.login import Browser, LoggedIn, Logins, Refused
from gateway.flows.provisional import ProvisionalSessions
from gateway.front.login.cookies import STEP
from gateway.front.login.endpoints import (
    CARRY_PATH,
    DEVICE_BIND_PATH,
    DEVICE_PATH,
    DEVICE_SCRIPT,
    Body,
    LoginEndpoints,
)
from gateway.front.responses import json_response


class DeviceEndpoints:
    """The endpoints around what `Logins` and `ProvisionalSessions` ask of devices."""

    def __init__(self, logins: Logins, provisional: ProvisionalSessions, login: LoginEndpoints) -> None:
        self._logins = logins
        self._provisional = provisional
        self._login = login

    def routes(self) -> list[Route]:
        """Return the routes; every path in them is exact."""
        asked, post = self._login.asked, ["POST"]
        return [
            DEVICE_SCRIPT.route(),
            Route(DEVICE_BIND_PATH, asked(self.offer_binding), methods=post),
            Route(f"{DEVICE_PATH}/options", asked(self.offer_use), methods=post),
            Route(DEVICE_PATH, asked(self.use), methods=post),
            Route(f"{CARRY_PATH}/options", asked(self.offer_carry), methods=post),
            Route(CARRY_PATH, asked(self.carry), methods=post),
        ]

    # -- beside what was proved ---------------------------------------------------------------------------------------

    async def offer_binding(self, request: Request, _body: Body) -> Response:
        """Serve `/mfa/device/new`: a challenge for the key by which a device will be remembered."""
        return await self._offer(request, self._logins.offer_binding)

    async def offer_use(self, request: Request, _body: Body) -> Response:
        """Serve `/mfa/device/options`: a challenge for the device of the browser's cookie."""
        return await self._offer(request, self._logins.offer_device)

    async def use(self, request: Request, body: Body) -> Response:
        """Serve `/mfa/device`: a device that proves its key stands in for a second factor, where it may."""
        value, browser = request.cookies.get(STEP, ""), self._login.browser_of(request)
        return self._login.script_answer(request, await self._logins.device(value, _proof(body), browser))

    async def _offer(self, request: Request, ask: Callable[[str, Browser], Awaitable[DeviceOffer | None]]) -> Response:
        offer = await ask(request.cookies.get(STEP, ""), self._login.browser_of(request))
        return self._login.script_answer(request, Refused("over")) if offer is None else _offered(offer)

    # -- while the directory is away ----------------------------------------------------------------------------------

    async def offer_carry(self, request: Request, _body: Body) -> Response:
        """Serve `/login/provisional/device/options`: a challenge for the device of the browser's voucher."""
        browser = self._login.browser_of(request)
        return _offered(await self._provisional.offer_device(browser, self._holder(request)))

    async def carry(self, request: Request, body: Body) -> Response:
        """Serve `/login/provisional/device`: a device that proves its key gives a provisional session."""
        browser = self._login.browser_of(request)
        begun = await self._provisional.begin_by_device(browser, _proof(body), self._holder(request))
        texts = {name: value for name, value in body.items() if isinstance(value, str)}
        goal = self._login.goal_of(request, texts)
        return self._login.script_answer(request, LoggedIn(begun=begun, target=goal.target))

    def _holder(self, request: Request) -> str:
        return self._login.forms.key_of(request).nonce


def _offered(offer: DeviceOffer) -> Response:
    return json_response({"device": offer.device_id, "challenge": offer.challenge})


def _proof(body: Body) -> str:
    proof = body.get("proof", "")
    return proof if isinstance(proof, str) else ""
