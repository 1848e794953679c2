"""Every knob, and how it is read: from `portcullis.toml`, then `PORTCULLIS_SECTION__KEY`, then flags (design §4.2).

An unknown key, a wrong type or a value that cannot work is refused with file, line, key and remedy; all of them at
once.
"""

from gateway.config.knobs import (
    KIB,
    MIB,
    Algorithm,
    AuthzenClientConfig,
    AuthzenConfig,
    CacheConfig,
    Chapter,
    Config,
    ForwardAuthConfig,
    IdentityConfig,
    IntrospectionClientConfig,
    IntrospectionConfig,
    IssuerConfig,
    LogConfig,
    PolicyConfig,
    RelationsConfig,
    RouteConfig,
    ServerConfig,
    SourceConfig,
    StoreConfig,
)
from gateway.config.loading import LoadedConfig, Origin, load_config
from gateway.config.reference import json_schema, render_reference
from gateway.config.secrets import resolve_secret, resolve_store_url

__all__ = [
    "KIB",
    "MIB",
    "Algorithm",
    "AuthzenClientConfig",
    "AuthzenConfig",
    "CacheConfig",
    "Chapter",
    "Config",
    "ForwardAuthConfig",
    "IdentityConfig",
    "IntrospectionClientConfig",
    "IntrospectionConfig",
    "IssuerConfig",
    "LoadedConfig",
    "LogConfig",
    "Origin",
    "PolicyConfig",
    "RelationsConfig",
    "RouteConfig",
    "ServerConfig",
    "SourceConfig",
    "StoreConfig",
    "json_schema",
    "load_config",
    "render_reference",
    "resolve_secret",
    "resolve_store_url",
]
