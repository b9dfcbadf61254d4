"""How signing in fails: the provider is away, or a token proves nothing, or a person has no place here."""

from __future__ import annotations

from gateway.errors import Forbidden, InvalidKey, Unavailable


class ProviderUnavailable(Unavailable):
    """The identity provider does not answer, or not with what it must: nothing can be said of the token."""

    code = "identity_provider_unavailable"

    def __init__(self, *, retry_after_s: float) -> None:
        message = "the identity provider does not answer properly; who is signed in stays so, try again later"
        super().__init__(message, retry_after_s=retry_after_s)


class InvalidToken(InvalidKey):
    """The token does not prove who somebody is. The message names the claim that is wrong, never what is in it."""

    code = "invalid_token"


class NotAdmitted(Forbidden):
    """The provider knows the person; penstock.yaml, or an administrator, does not let it in."""

    code = "not_admitted"


class NoGroup(NotAdmitted):
    """The provider says which groups the person is in, and none of them counts here."""
