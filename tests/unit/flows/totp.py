"""An authenticator app, for tests."""

from __future__ import annotations

import base64

import pyotp

from gateway.flows.trail import NOBODY
from gateway.stores.directory import User
from tests.unit.flows.login_world import World


def code_of(world: World, secret: str, steps: int = 0) -> str:
    """Give the code that the app shows, `steps` of 30 s from now."""
    return pyotp.TOTP(secret).at(int(world.clock.wall_s()) + 30 * steps)


async def app_of(world: World, user: User) -> str:
    """Set an app up for a user, with a code of the step before; return its key."""
    enrolment = await world.factors.begin(user.id, user.user_name)
    assert await world.factors.confirm(user.tenant, user.id, code_of(world, enrolment.secret, -1), NOBODY)
    assert len(base64.b32decode(enrolment.secret)) == 20
    return enrolment.secret
