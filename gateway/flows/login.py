"""Logging in: from a first proof, over whatever else is asked for, to a session.

    password, passkey, SSO ──▶ proven ──▶ strong enough, and not odd? ──yes──▶ session
                                 │                    │ no
                                 │                    ▼
                       must change it?      a code ──▶ session
                                 │          (or first set up what makes codes)
                                 ▼
                             new password ──▶ …

What is under way between two pages is a grant that is good for a while; its browser has the name of it, no more.
Whoever is refused learns one thing, in one text, for one amount of work: that these credentials are not accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from gateway.errors import AlreadyExists
from gateway.flows.agents import agent_name
from gateway.flows.degraded import Offers, all_is_well
from gateway.flows.device_keys import DeviceRefused
from gateway.flows.devices import DeviceOffer, KnownBrowsers, Remembered, RememberedDevices, Whose
from gateway.flows.mfa import SecondFactors
from gateway.flows.password import PasswordHasher, PasswordProblem, PasswordRules, same
from gateway.flows.pending import Goal, Pending, PendingLogins, StepKind
from gateway.flows.reckoning import LOGIN, PLACE, LoginNote, Reckoning, new_name, sightings_of, times_of
from gateway.flows.risk import LoginSigns, Risk, assess
from gateway.flows.sessions import Begun, Proof, Sessions
from gateway.flows.strength import CODE, KNOWN, ONE_FACTOR, TWO_FACTORS, acr_of, meets, with_class
from gateway.flows.throttling import Attempt, Throttling
from gateway.flows.trail import NOBODY, AuditTrail, Caller
from gateway.flows.whereabouts import Whereabouts, sightings_in
from gateway.stores.directory import NAME_BYTES_MAX, Device, Directory, PasswordHash, User
from gateway.types import Clock, Subject

ADDRESS: Final = "address"  # attributes of a session
AGENT: Final = "agent"
ADDRESS_CHARACTERS_MAX: Final = 64
LOGIN_FAILURES: Final = "login_failures"  # failed attempts before a log-in that is assessed later
_NOBODY: Final = "usr_nobody"  # whose credentials are asked for where there is no such user

RefusalCode = Literal["credentials", "throttled", "code", "over"]
Method = Literal["password", "totp", "recovery", "passkey", "sso", "change", "device"]
# What each is called in the audit trail.
_ACTIONS: Final[Mapping[Method, str]] = {
    "password": "login.password",
    "totp": "login.mfa",
    "recovery": "login.recovery_code",
    "passkey": "login.passkey",
    "sso": "login.federated",
    "change": "login.password",
    "device": "login.device",
}
CountLogin = Callable[[Method, str], None]


@dataclass(frozen=True, slots=True)
class Binding:
    """A key by which a browser wants its device to be known: the proof of it, and the id that it was offered."""

    proof: str = field(repr=False)
    device_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Browser:
    """What a browser brings along; all of it may be made up."""

    session: str = field(default="", repr=False)  # values of its cookies
    known: str = field(default="", repr=False)
    device: str = field(default="", repr=False)
    voucher: str = field(default="", repr=False)
    binding: Binding | None = None
    origin: str = ""  # of the page that asks
    agent: str = ""
    caller: Caller = NOBODY


@dataclass(frozen=True, slots=True)
class Refused:
    """It does not go on. `code` says what the user is told; nothing else is."""

    code: RefusalCode
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Next:
    """Another page comes first; `value` names what is under way."""

    step: StepKind
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedIn:
    """There is a session. `known` and `device` are values of cookies to be set, "" for none.

    `voucher` is one, too; there "" means that the browser must not keep the one that it has, and None that it may.
    """

    begun: Begun
    target: str
    known: str = field(default="", repr=False)
    device: str = field(default="", repr=False)
    voucher: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class NotGood:
    """A new password that is not taken, and why."""

    problem: PasswordProblem


Outcome = LoggedIn | Next | Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginRules:
    """What is asked of a login."""

    tenant: str = ""
    mfa_required: bool = False  # who has no second factor sets one up
    risk_code: int = 30  # from here on a code is asked for, on a remembered device too
    risk_refused: int = 90  # from here on nobody gets in


class Logins:
    """Takes proofs, and begins sessions.

    Methods raise StoreUnavailable, ResourceExhaustedError and DeadlineExceededError.
    """

    def __init__(
        self,
        *,
        directory: Directory,
        pending: PendingLogins,
        sessions: Sessions,
        hasher: PasswordHasher,
        passwords: PasswordRules,
        throttling: Throttling,
        factors: SecondFactors,
        devices: RememberedDevices,
        browsers: KnownBrowsers,
        whereabouts: Whereabouts,
        rules: LoginRules,
        clock: Clock,
        trail: AuditTrail,
        count: CountLogin = lambda method, outcome: None,
        offers: Offers | None = None,
        reckoning: Reckoning | None = None,
    ) -> None:
        """`offers`: what is done at the level in force. `reckoning`: assesses later what is not assessed then; without
        it everything is assessed at once, at every level.
        """
        self.factors = factors
        self.devices = devices
        self.passwords = passwords
        self.rules = rules
        self._directory = directory
        self._pending = pending
        self._sessions = sessions
        self._hasher = hasher
        self._throttling = throttling
        self._browsers = browsers
        self._whereabouts = whereabouts
        self._clock = clock
        self._trail = trail
        self._count = count
        self._offers = offers or all_is_well()
        self._reckoning = reckoning

    def check_offered(self) -> None:
        """Raise NotOffered where nobody can log in now."""
        self._offers.check("new_login")

    # -- first proofs -------------------------------------------------------------------------------------------------

    async def password(self, name: str, password: str, goal: Goal, browser: Browser) -> Outcome:
        """Take a name and a password.

        Whether the name is anybody's, whether they may log in and what was wrong shows nowhere: the same is asked of
        the directory, and one hash is computed.
        """
        self._offers.check("new_login")
        tenant = goal.tenant or self.rules.tenant
        user = await self._find(tenant, name)
        user_id = _NOBODY if user is None else user.id
        known = self._browsers.read(browser.known, user_id)
        attempt = await self._throttling.begin(f"pwd:{tenant}", name, browser.caller.address, known=known)
        if attempt.wait_s > 0:
            self._refused("password", "throttled", tenant, user_id, browser.caller)
            return Refused("throttled", attempt.wait_s)
        kept = await self._directory.get_password(user_id)
        fits = await self._hasher.verify(password, None if kept is None else kept.hash)
        if not fits or kept is None or user is None or not user.active:
            await self._throttling.failed(attempt)
            reason = "unknown_user" if user is None else "inactive" if not user.active else "wrong_password"
            self._refused(
                "password", "credentials" if reason == "wrong_password" else reason, tenant, user_id, browser.caller
            )
            return Refused("credentials")
        await self._throttling.succeeded(attempt)
        if self._hasher.outdated(kept.hash):
            await self._rehash(kept, password)
        if kept.must_change:
            subject = Subject(tenant, user.id)
            return await self._go_on(Pending(step="change", subject=subject, goal=goal, methods=(KNOWN,)))
        return await self.proven(user, (KNOWN,), goal, browser, method="password", attempt=attempt)

    async def proven(
        self,
        user: User,
        methods: Sequence[str],
        goal: Goal,
        browser: Browser,
        *,
        method: Method,
        attempt: Attempt | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Go on after somebody proved to be `user`, by a password, a passkey or at an identity provider.

        `methods`: how, by the names of RFC 8176. `attributes`: that the session will have beside its own.
        """
        self._offers.check("new_login")
        subject = Subject(user.tenant, user.id)
        if not user.active:
            self._refused(method, "inactive", user.tenant, user.id, browser.caller)
            return Refused("credentials")
        failures = 0 if attempt is None else attempt.failures
        skips = self._reckoning is not None and not self._offers.allows("behaviour")
        risk = await self._assess(user, browser, failures, is_whole=not skips)
        if risk.points >= self.rules.risk_refused:
            self._refused(method, "risk", user.tenant, user.id, browser.caller, risk=str(risk))
            return Refused("credentials")
        pending = Pending(
            step="code",
            subject=subject,
            goal=goal,
            methods=tuple(methods),
            # What was not looked at is no reason to ask for less: a remembered device is not enough then.
            risk=max(risk.points, self.rules.risk_code) if skips else risk.points,
            attributes={**(attributes or {}), **(self._noted(failures) if skips else {})},
        )
        step = await self._missing(pending, browser)
        if step is not None:
            self._count(method, "more")
            return await self._go_on(replace(pending, step=step))
        self._count(method, "success")
        return await self._begin(pending, browser, method=method, risk=risk)

    # -- a session that is there already ------------------------------------------------------------------------------

    async def resume(self, goal: Goal, browser: Browser) -> Outcome | None:
        """Say what is missing where the browser has a session; None where it has to log in from the beginning."""
        session = await self._sessions.find(browser.session) if browser.session else None
        if session is None or goal.reauthenticate or session.requires_reauth:
            return None
        if goal.tenant not in ("", session.subject.tenant):
            return None
        if goal.max_age_s is not None and self._clock.wall_s() - session.authenticated_s > goal.max_age_s:
            return None
        if meets(session.acr, goal.acr_values):
            return LoggedIn(begun=Begun(browser.session, session), target=goal.target)
        self._offers.check("step_up")
        step: StepKind = "code"
        if not (await self.factors.of(session.subject.id)).any:
            if TWO_FACTORS not in goal.acr_values:
                return None  # nothing that could be shown beside it would do; whoever asks has to see for itself
            step = "enrol"
        return await self._go_on(
            Pending(step=step, subject=session.subject, goal=goal, methods=session.amr, session=session.id_hash.hex())
        )

    # -- further steps ------------------------------------------------------------------------------------------------

    async def pending(self, value: str, *steps: StepKind) -> Pending | None:
        """Give what is under way by its name, where it is at one of `steps`."""
        return await self._pending.find(value, *steps)

    async def code(self, value: str, code: str, browser: Browser, *, remember: bool = False) -> Outcome:
        """Take a code, of an app or of those for recovery, for what is under way."""
        pending = await self.pending(value, "code")
        if pending is None:
            return Refused("over")
        subject = pending.subject
        attempt = await self._throttling.begin("code", subject.id, browser.caller.address)
        if attempt.wait_s > 0:
            self._refused("totp", "throttled", subject.tenant, subject.id, browser.caller)
            return Refused("throttled", attempt.wait_s)
        kind = await self.factors.verify(subject.id, code)
        if kind is None:
            await self._throttling.failed(attempt)
            self._refused("totp", "code", subject.tenant, subject.id, browser.caller)
            return Refused("code")
        await self._throttling.succeeded(attempt)
        return await self._second(value, pending, (CODE,), browser, method=kind, remember=remember)

    async def second(self, value: str, methods: Sequence[str], browser: Browser, *, method: Method) -> Outcome:
        """Go on with what is under way after its user showed another second factor, such as a passkey."""
        pending = await self.pending(value, "code")
        if pending is None:
            return Refused("over")
        return await self._second(value, pending, methods, browser, method=method, remember=pending.goal.remember)

    def asks_device(self, pending: Pending, browser: Browser) -> bool:
        """Tell whether the browser's device may stand in for the second factor, once it has proved its key."""
        return self._is_device_enough(pending) and self.devices.names_one(browser.device)

    async def offer_device(self, value: str, browser: Browser) -> DeviceOffer | None:
        """Ask the browser's device to prove its key; None where nothing is under way. Raises DeviceRefused."""
        pending = await self.pending(value, "code")
        if pending is None:
            return None
        if not self._is_device_enough(pending):
            raise DeviceRefused("not_enough")
        return await self.devices.offer_use(browser.device, _whose(value, pending.subject, browser))

    async def offer_binding(self, value: str, browser: Browser) -> DeviceOffer | None:
        """Ask the browser for a key by which its device will be known; likewise."""
        pending = await self.pending(value, "code")
        return None if pending is None else await self.devices.offer_binding(_whose(value, pending.subject, browser))

    async def device(self, value: str, proof: str, browser: Browser) -> Outcome:
        """Go on without a second factor, on a device that proves its key. Raises DeviceRefused.

        What was proved stays what it was: the device adds nothing to it.
        """
        pending = await self.pending(value, "code")
        if pending is None:
            return Refused("over")
        if not self._is_device_enough(pending):
            raise DeviceRefused("not_enough")
        whose = _whose(value, pending.subject, browser)
        device = await self.devices.prove(browser.device, proof, whose, browser.caller)
        return await self._second(value, pending, (), browser, method="device", device=device)

    async def enrolled(self, value: str, code: str, browser: Browser) -> Outcome:
        """Confirm the app that was set up on the way, and go on."""
        pending = await self.pending(value, "enrol")
        if pending is None:
            return Refused("over")
        subject = pending.subject
        attempt = await self._throttling.begin("code", subject.id, browser.caller.address)
        if attempt.wait_s > 0:
            return Refused("throttled", attempt.wait_s)
        if not await self.factors.confirm(subject.tenant, subject.id, code, browser.caller):
            await self._throttling.failed(attempt)
            return Refused("code")
        await self._throttling.succeeded(attempt)
        return await self._second(value, pending, (CODE,), browser, method="totp")

    async def change(self, value: str, password: str, browser: Browser) -> Outcome | NotGood:
        """Set the password that has to be changed, and go on."""
        pending = await self.pending(value, "change")
        user = None if pending is None else await self._directory.get_user(pending.subject.tenant, pending.subject.id)
        if pending is None or user is None:
            return Refused("over")
        problem = await self.set_password(user, password)
        if problem is not None:
            return NotGood(problem)
        if not await self._pending.take(value):
            return Refused("over")
        self._trail.tell(
            "password.change", "success", caller=browser.caller, tenant=user.tenant, actor=user.id, target=user.id
        )
        return await self.proven(user, pending.methods, pending.goal, browser, method="change")

    # -- passwords ----------------------------------------------------------------------------------------------------

    async def reset(self, value: str, password: str, browser: Browser) -> PasswordProblem | Literal["over"] | None:
        """Set a new password by a link: every session ends, every device is forgotten, and nobody is logged in."""
        pending = await self.pending(value, "reset")
        user = None if pending is None else await self._directory.get_user(pending.subject.tenant, pending.subject.id)
        if pending is None or user is None or not user.active:
            return "over"
        problem = self.passwords.problem(password, user.user_name)
        if problem is not None:
            return problem
        if not await self._pending.take(value):
            return "over"
        await self.set_password(user, password)
        await self._sessions.end_all(pending.subject, reason="password_reset", caller=browser.caller)
        await self.devices.forget_all(user.tenant, user.id)
        await self._throttling.forget(f"pwd:{user.tenant}", user.user_name)
        self._trail.tell(
            "password.reset", "success", caller=browser.caller, tenant=user.tenant, actor=user.id, target=user.id
        )
        return None

    async def set_password(
        self, user: User, password: str, *, must_change: bool = False, former: str | None = None
    ) -> PasswordProblem | None:
        """Keep a new password, or say why not. `former`: what it must not be."""
        problem = self.passwords.problem(password, user.user_name)
        if problem is None and former is not None and same(password, former):
            problem = "same"
        if problem is not None:
            return problem
        made = await self._hasher.hash(password)
        now_s = self._clock.wall_s()
        await self._directory.set_password(
            PasswordHash(user_id=user.id, hash=made, changed_s=now_s, must_change=must_change)
        )
        return None

    async def check_password(self, user: User, password: str, browser: Browser) -> Refused | None:
        """Tell whether it is the password of a user who is logged in; failures count as those of a login do."""
        attempt = await self._throttling.begin("check", user.id, browser.caller.address)
        if attempt.wait_s > 0:
            return Refused("throttled", attempt.wait_s)
        kept = await self._directory.get_password(user.id)
        if await self._hasher.verify(password, None if kept is None else kept.hash):
            await self._throttling.succeeded(attempt)
            return None
        await self._throttling.failed(attempt)
        self._refused("password", "credentials", user.tenant, user.id, browser.caller)
        return Refused("credentials")

    # -- parts --------------------------------------------------------------------------------------------------------

    async def _find(self, tenant: str, name: str) -> User | None:
        """Look for a name; one that cannot be anybody's is looked for as well."""
        fitting = name.encode("utf-8", "ignore")[:NAME_BYTES_MAX].decode("utf-8", "ignore").replace("\0", "")
        found = await self._directory.find_user(tenant, fitting)
        return found if fitting == name else None

    async def _rehash(self, kept: PasswordHash, password: str) -> None:
        made = await self._hasher.hash(password)
        await self._directory.set_password(replace(kept, hash=made), replaces=kept.hash)

    async def _assess(self, user: User, browser: Browser, failures: int, *, is_whole: bool) -> Risk:
        """Assess a log-in by what is at hand, and where that `is_whole` by the user's other sessions and log-ins."""
        address, now_s = browser.caller.address, self._clock.wall_s()
        live = list(await self._sessions.list_of(Subject(user.tenant, user.id))) if is_whole else []
        logins = await self._whereabouts.of(user.id, now_s) if is_whole else ()
        signs = LoginSigns(
            now_s=now_s,
            known_browser=bool(self._browsers.read(browser.known, user.id)),
            failures=failures,
            recent_logins_s=times_of(live, logins),
            place=self._whereabouts.find(address) if is_whole else None,
            network=self._whereabouts.network(user.id, address),
            sightings=[*sightings_of(live), *sightings_in(logins)],
        )
        return assess(signs)

    @staticmethod
    def _noted(failures: int) -> dict[str, str]:
        """Give what a session says whose log-in is assessed later."""
        return {LOGIN: new_name(), LOGIN_FAILURES: str(failures)}

    async def _missing(self, pending: Pending, browser: Browser) -> StepKind | None:
        """Say what has to be shown, beside what was: nothing, a code, or first of all an app that makes codes."""
        subject, goal = pending.subject, pending.goal
        acr = acr_of(pending.methods)
        wanted = not meets(acr, goal.acr_values)
        if acr != ONE_FACTOR and not wanted:
            return None
        factors = await self.factors.of(subject.id)
        if not factors.any:
            return "enrol" if self.rules.mfa_required or (wanted and TWO_FACTORS in goal.acr_values) else None
        if wanted or pending.risk >= self.rules.risk_code:
            return "code"
        device = await self.devices.recognise(browser.device, subject.tenant, subject.id)
        return None if device is not None else "code"

    def _is_device_enough(self, pending: Pending) -> bool:
        """Tell whether a device that is remembered is as good as a second factor here: as `_missing` judges."""
        acr = acr_of(pending.methods)
        is_odd = pending.risk >= self.rules.risk_code
        return acr == ONE_FACTOR and meets(acr, pending.goal.acr_values) and not is_odd and not pending.session

    async def _second(
        self,
        value: str,
        pending: Pending,
        methods: Sequence[str],
        browser: Browser,
        *,
        method: Method,
        remember: bool = False,
        device: Device | None = None,
    ) -> Outcome:
        if not await self._pending.take(value):
            return Refused("over")
        user = await self._directory.get_user(pending.subject.tenant, pending.subject.id)
        if user is None or not user.active:
            self._refused(method, "inactive", pending.subject.tenant, pending.subject.id, browser.caller)
            return Refused("credentials")
        self._count(method, "success")
        whole = replace(pending, methods=(*pending.methods, *methods), goal=replace(pending.goal, remember=remember))
        return await self._begin(whole, browser, method=method, value=value, device=device)

    async def _begin(
        self,
        pending: Pending,
        browser: Browser,
        *,
        method: Method,
        risk: Risk | None = None,
        value: str = "",
        device: Device | None = None,
    ) -> LoggedIn | Refused:
        """Begin a session, or go on with the one that is there under another id: what was seen before is worthless.

        `value`: what was under way until now. `device`: that has just proved its key.
        """
        subject, goal = pending.subject, pending.goal
        acr = acr_of(pending.methods)
        device_value = ""
        if goal.remember and self.devices.lifetime_s and acr != ONE_FACTOR:
            remembered = await self._remembered(value, subject, browser)
            if remembered is not None:
                device_value, device = remembered.value, remembered.device
        if self._reckoning is not None and LOGIN in pending.attributes:
            note = LoginNote(
                name=pending.attributes[LOGIN],
                subject=subject,
                address=browser.caller.address,
                known_browser=bool(self._browsers.read(browser.known, subject.id)),
                failures=int(pending.attributes.get(LOGIN_FAILURES, "0")),
            )
            await self._reckoning.promise(note)
        elif not pending.session:
            await self._whereabouts.note(subject.id, browser.caller.address, self._clock.wall_s())
        proof = Proof(amr=with_class(pending.methods), acr=acr, device_id="" if device is None else device.id)
        begun = await self._session(pending, proof, browser)
        if begun is None:
            return Refused("over")
        self._trail.tell(
            _ACTIONS[method],
            "success",
            caller=browser.caller,
            tenant=subject.tenant,
            actor=subject.id,
            target=subject.id,
            acr=acr,
            risk=pending.risk,
            risk_parts="" if risk is None else str(risk),
        )
        return LoggedIn(
            begun=begun,
            target=goal.target,
            known=self._browsers.note(subject.id, browser.known),
            device=device_value,
            voucher=self.devices.voucher(device, browser.voucher, subject.tenant, subject.id),
        )

    async def _remembered(self, value: str, subject: Subject, browser: Browser) -> Remembered | None:
        """Remember the device; None for one that was to be bound to a key, and did not prove it."""
        name, binding = agent_name(browser.agent), browser.binding
        if binding is None:
            return await self.devices.remember(subject.tenant, subject.id, name, browser.caller)
        whose = _whose(value, subject, browser)
        return await self.devices.bind(binding.proof, binding.device_id, whose, name, browser.caller)

    async def _session(self, pending: Pending, proof: Proof, browser: Browser) -> Begun | None:
        old = await self._sessions.find(browser.session) if browser.session else None
        if pending.session and (old is None or old.id_hash.hex() != pending.session):
            return None  # the session that was to be stepped up is over
        if old is not None and old.subject == pending.subject and not old.requires_reauth:
            return await self._sessions.step_up(browser.session, proof, caller=browser.caller)
        attributes = {
            **pending.attributes,
            AGENT: agent_name(browser.agent),
            ADDRESS: browser.caller.address[:ADDRESS_CHARACTERS_MAX],
        }
        place = self._whereabouts.find(browser.caller.address) if self._offers.allows("fingerprint") else None
        if place is not None:
            attributes[PLACE] = f"{place.latitude},{place.longitude}"
        try:
            return await self._sessions.begin(
                pending.subject, proof, attributes=attributes, former=browser.session, caller=browser.caller
            )
        except AlreadyExists:  # logged out everywhere while this was under way
            return None

    async def _go_on(self, pending: Pending) -> Next:
        return Next(pending.step, await self._pending.keep(pending))

    def _refused(
        self, method: Method, reason: str, tenant: str, user_id: str, caller: Caller, *, risk: str = ""
    ) -> None:
        actor = "" if user_id == _NOBODY else user_id
        self._count(method, "throttled" if reason == "throttled" else "failure")
        self._trail.tell(
            _ACTIONS[method],
            "refused" if reason in ("throttled", "risk") else "failure",
            caller=caller,
            tenant=tenant,
            actor=actor,
            reason=reason,
            **({"risk_parts": risk} if risk else {}),
        )


def _whose(value: str, subject: Subject, browser: Browser) -> Whose:
    return Whose(login=value, tenant=subject.tenant, user_id=subject.id, origin=browser.origin)
