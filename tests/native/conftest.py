"""How hard Hypothesis tries: `PORTCULLIS_HYPOTHESIS=quick|default|thorough`.

`quick` is for the sanitizer run, where each example costs ten times as much.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile("quick", max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
settings.register_profile("default", max_examples=200, deadline=None)
settings.register_profile("thorough", max_examples=20_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("PORTCULLIS_HYPOTHESIS", "default"))
