"""SCIM 2.0 (RFC 7643, 7644): users and groups of the directory, kept up to date by a provisioning service.

`resources` maps what lies in the directory to what clients see; `filters` says which part of a filter an index
answers; `quirks` reads what well-known clients send beside the specification; `service` is all operations on single
resources, `reader` looks at them, `bulk` many of them in one request, `discovery` what the server says of itself.
"""

from gateway.flows.scim.bulk import BulkService
from gateway.flows.scim.discovery import Discovery
from gateway.flows.scim.limits import ScimLimits
from gateway.flows.scim.service import PasswordSetter, ScimService
from gateway.flows.scim.values import Asked, Reply, ScimCaller

__all__ = ["Asked", "BulkService", "Discovery", "PasswordSetter", "Reply", "ScimCaller", "ScimLimits", "ScimService"]
