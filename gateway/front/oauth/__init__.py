"""The token service over HTTP: endpoints, metadata, and the page that asks for consent."""

from gateway.front.oauth.endpoints import OAuthEndpoints

__all__ = ["OAuthEndpoints"]
