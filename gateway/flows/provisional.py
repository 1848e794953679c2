"""Provisional sessions: while the directory is away, who proved themselves before may go on a little.

Off by default. What one rests on is an earlier session, found in its store, begun by a proof and not over; or, where
that is allowed too, a device that the gateway vouched for and that has just proved its key: never a cookie, a known
browser, a score or an application's wish. It lasts 15 minutes, has no scopes, is worth one factor, says `provisional`
and `requires_reauth`, and is no proof of anything else. That it has to be judged anew is promised before it begins:
when the directory is back, a user who is inactive, gone or has another password loses it, and so does one whose device
was forgotten, or has another key.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

from gateway.errors import AlreadyExists, StoreUnavailable
from gateway.flows.agents import agent_name
from gateway.flows.deferred import DeferredRunner
from gateway.flows.degraded import Offers
from gateway.flows.device_keys import DeviceKeys, DeviceRefused, Errand
from gateway.flows.devices import DeviceOffer, RememberedDevices
from gateway.flows.login import ADDRESS, ADDRESS_CHARACTERS_MAX, AGENT, Browser
from gateway.flows.reckoning import new_name
from gateway.flows.sessions import PROVISIONAL_S, Begun, Proof, Sessions
from gateway.flows.strength import ONE_FACTOR
from gateway.flows.trail import NOBODY, Auditor, AuditTrail, Caller
from gateway.flows.vouchers import Voucher
from gateway.stores.deferred import Job
from gateway.stores.directory import Directory
from gateway.types import AuditEvent, Clock, Session, Subject

KIND: Final = "reconcile_provisional"
NAME: Final = "provisional_note"  # attribute of a session: the name of what was promised about it
SCOPE: Final = "scope"  # attribute of a session whose words are its scopes
DEVICE_KEY: Final = "swk"  # RFC 8176 §2: a key was used that software keeps
BEGUN_WITHIN_S: Final = 30.0  # a job that finds no session may have come before it


class ProvisionalSessions:
    """Begins provisional sessions, and judges them when the directory is back."""

    def __init__(
        self,
        deferring: DeferredRunner,
        *,
        sessions: Sessions,
        directory: Directory,
        offers: Offers,
        auditor: Auditor,
        clock: Clock,
        devices: RememberedDevices | None = None,
        keys: DeviceKeys | None = None,
    ) -> None:
        """`devices`, which have vouchers, and `keys`: who may go on by one; without both nobody does."""
        self._devices = devices
        self._keys = keys
        self._deferring = deferring
        self._sessions = sessions
        self._directory = directory
        self._offers = offers
        self._auditor = auditor
        self._trail = AuditTrail(auditor, clock)
        self._clock = clock
        deferring.handle(KIND, self._reconcile)

    @property
    def is_offered(self) -> bool:
        return self._offers.allows("provisional_session")

    async def earlier(self, value: str) -> Session | None:
        """Give the session of a browser that could be carried further; None where there is none, or no need.

        Raises StoreUnavailable.
        """
        session = await self._sessions.find(value) if value and self.is_offered else None
        if session is None or session.provisional or session.requires_reauth:
            return None
        return session if session.expires_s - self._clock.wall_s() < PROVISIONAL_S else None

    async def begin(self, value: str, *, caller: Caller = NOBODY) -> Begun | None:
        """Begin a provisional session for who has a session that ends soon; None where nothing proves that.

        The earlier one ends by itself. Raises NotOffered, StoreUnavailable, AlreadyExists.
        """
        self._offers.check("provisional_session")
        earlier = await self.earlier(value)
        if earlier is None:
            self._trail.tell("session.provisional", "refused", caller=caller, reason="no_proof")
            return None
        proof = Proof(
            amr=earlier.amr,
            acr=ONE_FACTOR,
            requires_reauth=True,
            provisional=True,
            proved_s=earlier.authenticated_s,
        )
        kept = {key: text for key, text in earlier.attributes.items() if key != SCOPE}
        return await self._begin(earlier.subject, proof, kept, {}, caller)

    # -- by a device --------------------------------------------------------------------------------------------------

    def knows_device(self, voucher: str) -> bool:
        """Tell whether a browser has a voucher by which its device may go on now."""
        try:
            return self.is_offered and bool(self._voucher(voucher))
        except DeviceRefused:
            return False

    async def offer_device(self, browser: Browser, holder: str) -> DeviceOffer:
        """Ask the device that a browser has a voucher for to prove its key.

        `holder` is what the browser is known by before it is logged in: another one cannot use the challenge. Raises
        NotOffered, DeviceRefused, StoreUnavailable.
        """
        self._offers.check("provisional_session")
        voucher = self._voucher(browser.voucher)
        assert self._keys is not None
        return DeviceOffer(voucher.device, await self._keys.challenge(_errand(voucher, browser, holder)))

    async def begin_by_device(self, browser: Browser, proof: str, holder: str) -> Begun:
        """Begin a provisional session for who holds a voucher, and has just proved the key that it names.

        It counts as proved when its user last was, so that whoever was logged out everywhere since has none. Raises
        as `offer_device` does, and DeviceRefused too where the sessions say so.
        """
        self._offers.check("provisional_session")
        voucher: Voucher | None = None
        try:
            voucher = self._voucher(browser.voucher)
            assert self._keys is not None
            await self._keys.check(proof, _errand(voucher, browser, holder), voucher.key)
            made = Proof(
                amr=(DEVICE_KEY,),
                acr=ONE_FACTOR,
                device_id=voucher.device,
                requires_reauth=True,
                provisional=True,
                proved_s=voucher.proved_s,
            )
            subject = Subject(voucher.tenant, voucher.user)
            seen = {AGENT: agent_name(browser.agent), ADDRESS: browser.caller.address[:ADDRESS_CHARACTERS_MAX]}
            about = {"device": voucher.device, "key": voucher.key}
            return await self._begin(subject, made, seen, about, browser.caller)
        except (DeviceRefused, AlreadyExists) as error:
            refused = error if isinstance(error, DeviceRefused) else DeviceRefused("user_revoked")
            whose = {} if voucher is None else {"tenant": voucher.tenant, "actor": voucher.user}
            self._trail.tell(
                "session.provisional", "refused", caller=browser.caller, reason=refused.reason, by="device", **whose
            )
            raise refused from None

    def _voucher(self, value: str) -> Voucher:
        """Give what a voucher says that counts. Raises DeviceRefused."""
        if self._devices is None or self._devices.vouchers is None or self._keys is None:
            raise DeviceRefused("voucher_absent")
        return self._devices.vouchers.read(value)

    async def _begin(
        self,
        subject: Subject,
        proof: Proof,
        attributes: Mapping[str, str],
        about: Mapping[str, str],
        caller: Caller,
    ) -> Begun:
        """Promise to judge a session, then begin it. `about`: what else there is to judge."""
        name = new_name()
        body = {"tenant": subject.tenant, "user": subject.id, "at_s": self._clock.wall_s(), **about}
        await self._deferring.put(KIND, f"{KIND}:{name}", body)
        begun = await self._sessions.begin(subject, proof, attributes={**attributes, NAME: name}, caller=caller)
        self._trail.tell(
            "session.provisional",
            "degraded",
            caller=caller,
            tenant=subject.tenant,
            actor=subject.id,
            target=proof.device_id or subject.id,
            degradation_level=self._offers.level,
            by="device" if proof.device_id else "session",
        )
        return begun

    # -- when the directory is back -----------------------------------------------------------------------------------

    async def _reconcile(self, job: Job) -> None:
        subject = Subject(str(job.body["tenant"]), str(job.body["user"]))
        name = job.key.partition(":")[2]
        found = next((s for s in await self._sessions.list_of(subject) if s.attributes.get(NAME) == name), None)
        if found is None:
            if self._clock.wall_s() - float(job.body["at_s"]) < BEGUN_WITHIN_S:
                raise StoreUnavailable("the session may not have begun yet")
            return
        reason = await self._fault_of(found) or await self._device_fault_of(found, job)
        if reason:
            if self._devices is not None:
                await self._devices.void(subject.tenant, subject.id)  # or the next outage begins another
            await self._sessions.end_hash(found.id_hash, reason=reason)
        elif found.provisional and not await self._sessions.settle(found):
            raise StoreUnavailable("the session changed meanwhile")
        self._tell(job.key, subject, reason)

    async def _fault_of(self, session: Session) -> str:
        """Say why a session should not have been given, "" where it may go on."""
        subject = session.subject
        user = await self._directory.get_user(subject.tenant, subject.id)
        if user is None or not user.active:
            return "unknown_user" if user is None else "inactive"
        password = await self._directory.get_password(subject.id)
        if password is not None and password.changed_s > session.authenticated_s:
            return "password_changed"
        return ""

    async def _device_fault_of(self, session: Session, job: Job) -> str:
        """Say why the device that began a session should not have, likewise; one that is forgotten did not."""
        device_id = str(job.body.get("device", ""))
        if not device_id:
            return ""
        device = await self._directory.get_device(session.subject.tenant, device_id)
        if device is None or device.user_id != session.subject.id or device.expires_s <= self._clock.wall_s():
            return "device_unknown"
        return "" if hmac.compare_digest(device.public_key, str(job.body["key"])) else "device_key"

    def _tell(self, key: str, subject: Subject, reason: str) -> None:
        event = AuditEvent(
            id=hashlib.sha256(key.encode()).hexdigest()[:32],  # the same when it is done again: recorded once
            at_s=self._clock.wall_s(),
            action="session.reconcile",
            outcome="refused" if reason else "success",
            tenant=subject.tenant,
            actor=subject.id,
            target=subject.id,
            reason=reason,
        )
        self._auditor.tell(event)


def _errand(voucher: Voucher, browser: Browser, holder: str) -> Errand:
    return Errand(act="carry", holder=holder, tenant=voucher.tenant, device_id=voucher.device, origin=browser.origin)
