"""Signatures of webhooks, verified by a library of those who made the specification."""

from __future__ import annotations

import time

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from gateway.authenticate.key import Peppers
from gateway.notify.signing import SECRET_PREFIX, SecretSource, new_source, shown, signed_headers

PEPPERS = Peppers({1: b"a" * 32, 2: b"b" * 32})
BODY = '{"type":"webhook.test","data":{"name":"Zoë"}}'.encode()


def secret_of(source: SecretSource, peppers: Peppers = PEPPERS) -> bytes:
    secret = source.secret(peppers)
    assert secret is not None
    return secret


def signed(*secrets: bytes, body: bytes = BODY, at_s: float | None = None) -> dict[str, str]:
    return signed_headers(secrets, "0199-id", int(time.time() if at_s is None else at_s), body)


def test_a_receiver_verifies_what_was_signed() -> None:
    secret = secret_of(new_source(PEPPERS))
    assert Webhook(shown(secret)).verify(BODY, signed(secret))["data"] == {"name": "Zoë"}


def test_a_receiver_refuses_anything_else() -> None:
    secret, other = secret_of(new_source(PEPPERS)), secret_of(new_source(PEPPERS))
    headers = signed(secret)
    for wrong in (
        signed(other),
        headers | {"webhook-id": "another"},
        headers | {"webhook-timestamp": str(int(time.time()) + 1)},
        signed(secret, at_s=time.time() - 3600),
    ):
        with pytest.raises(WebhookVerificationError):
            Webhook(shown(secret)).verify(BODY, wrong)
    with pytest.raises(WebhookVerificationError):
        Webhook(shown(secret)).verify(BODY + b" ", headers)


def test_while_a_secret_is_exchanged_either_verifies() -> None:
    old, new = secret_of(new_source(PEPPERS)), secret_of(new_source(PEPPERS))
    for secret in (old, new):
        Webhook(shown(secret)).verify(BODY, signed(new, old))


def test_a_secret_needs_both_its_nonce_and_its_pepper() -> None:
    source = new_source(PEPPERS)
    assert source.pepper_version == 2
    assert secret_of(source) == secret_of(SecretSource(source.nonce, 2))
    assert secret_of(source) != secret_of(SecretSource(source.nonce, 1))
    assert secret_of(source) != secret_of(new_source(PEPPERS))
    assert SecretSource(source.nonce, 3).secret(PEPPERS) is None
    assert secret_of(new_source(Peppers({})), Peppers({}))
    assert shown(secret_of(source)).startswith(SECRET_PREFIX)
    assert source.nonce.hex() not in repr(source)
