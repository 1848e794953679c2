"""Tokens, from their bytes to claims: keys, verification, claims, revocation.

    validator = TokenValidator([Issuer("https://idp.example.com", audiences=["api"], jwks={"keys": [...]})])
    claims = validator.validate(token)      # raises TokenError

Where the parts of the source design live (`JWKSCache` and `RevocationList` have modules of their own here; what runs
for every token is compiled, as one pass over its bytes, so these names are sections of `_native/*.pyx` and no
classes):

| name | where |
|---|---|
| `JWTParser` | `_native/token.pyx`, "JWTParser": split and header as slices of the token; claims by one lazy scan
(`json_scan`) | | `ClaimsValidator` | `_native/token.pyx`, "ClaimsValidator": exp, iat, iss, aud, then the rest;
rules: `IssuerRules` | | `TokenStructureCache` | `_native/token.pyx`, header_find and structure_keep: parsed headers
by exact bytes, 1,000 at most | | `SignatureVerifierPool` | `_native/verify.pyx`, `KeyHandle`: one key bound to one
algorithm, with a pool of ready contexts | | `TokenValidationPipeline` | `TokenValidator`: the compiled one
(`gateway._native.token`) for the doors, this one for programs |
"""

from gateway.tokens.claims import Claims
from gateway.tokens.jws import verify_jws
from gateway.tokens.reasons import TokenError
from gateway.tokens.validator import Issuer, TokenValidator

__all__ = ["Claims", "Issuer", "TokenError", "TokenValidator", "verify_jws"]
