"""What keeps one fault from becoming all: deadlines, pools, permits, breakers, retries, shedding, degradation.

Knows nothing of what is authenticated: it is given callables, and tells what happened.
"""

from gateway.errors import (
    BulkheadFullError,
    CircuitOpenError,
    DeadlineExceededError,
    OverloadedError,
    ResourceExhaustedError,
)
from gateway.resilience.assembly import BREAKERS, BreakerName, Event, LevelChange, Resilience, ResilienceState
from gateway.resilience.bulkhead import BulkheadManager, PoolLimits, PoolPlace, PoolState
from gateway.resilience.circuit_breaker import BreakerKey, BreakerLimits, CircuitBreaker, CircuitBreakers, Transition
from gateway.resilience.deadlines import Deadline, check_deadline, current_deadline, deadline, remaining_s, within
from gateway.resilience.degradation import (
    FEATURES,
    DegradationMonitor,
    DegradationSnapshot,
    Feature,
    Level,
    determine_degradation_level,
)
from gateway.resilience.detached import detached
from gateway.resilience.guarding import guarded
from gateway.resilience.health import DEPENDENCIES, DependencyHealth, DependencyName, HealthLimits, HealthState
from gateway.resilience.limiter import WaitLimits
from gateway.resilience.permits import ResourceGuard, ResourceName, ResourceSemaphores
from gateway.resilience.pools import BACKGROUND, POOLS, PoolName, ShareName, current_pool
from gateway.resilience.retry import Retry, RetryBudget, RetryLimits, backoff_s
from gateway.resilience.shedding import LoadShedder, SheddingLimits
from gateway.resilience.threads import WorkThreads

__all__ = [
    "BACKGROUND",
    "BREAKERS",
    "DEPENDENCIES",
    "FEATURES",
    "POOLS",
    "BreakerKey",
    "BreakerLimits",
    "BreakerName",
    "BulkheadFullError",
    "BulkheadManager",
    "CircuitBreaker",
    "CircuitBreakers",
    "CircuitOpenError",
    "Deadline",
    "DeadlineExceededError",
    "DegradationMonitor",
    "DegradationSnapshot",
    "DependencyHealth",
    "DependencyName",
    "Event",
    "Feature",
    "HealthLimits",
    "HealthState",
    "Level",
    "LevelChange",
    "LoadShedder",
    "OverloadedError",
    "PoolLimits",
    "PoolName",
    "PoolPlace",
    "PoolState",
    "Resilience",
    "ResilienceState",
    "ResourceExhaustedError",
    "ResourceGuard",
    "ResourceName",
    "ResourceSemaphores",
    "Retry",
    "RetryBudget",
    "RetryLimits",
    "ShareName",
    "SheddingLimits",
    "Transition",
    "WaitLimits",
    "WorkThreads",
    "backoff_s",
    "check_deadline",
    "current_deadline",
    "current_pool",
    "deadline",
    "detached",
    "determine_degradation_level",
    "guarded",
    "remaining_s",
    "within",
]
