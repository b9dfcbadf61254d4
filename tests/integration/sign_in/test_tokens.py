"""Tokens that prove nothing: each is refused with 401, in words that help the honest and tell the others nothing."""

from __future__ import annotations

import base64
import hmac
import json
import time
from typing import TYPE_CHECKING, Any

import httpx2
from joserfc.jwk import ECKey

from tests.support.oidc import CLIENT, DEVICE_GRANT, OTHER_CLIENT, Person, new_key
from tests.support.sign_in import serving_sign_in

if TYPE_CHECKING:
    from tests.support.oidc import OidcServer

ALICE: dict[str, Any] = {"preferred_username": "alice", "groups": ["ml"]}


def part(value: object) -> str:
    """Return a part of a compact JWS."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def with_header(token: str, **header: Any) -> str:
    """Return a token under another header, its signature as it was."""
    return ".".join([part(header), *token.split(".")[1:]])


def forged(oidc: OidcServer) -> dict[str, str]:
    """Return tokens that somebody without the provider's key has made, by what is wrong with them."""
    good = oidc.signed("mallory", **ALICE)
    claims, kid = good.split(".")[1], oidc.key.kid
    # The classic confusion: the public key, in each form in which a server may hold it, as the secret of an HMAC.
    publics = [oidc.key.as_pem(private=False), json.dumps(oidc.key.as_dict(private=False)).encode()]
    head = part({"alg": "HS256", "kid": kid, "typ": "JWT"})
    macs = [
        base64.urlsafe_b64encode(hmac.digest(public, f"{head}.{claims}".encode(), "sha256")).decode().rstrip("=")
        for public in publics
    ]
    other = new_key(str(kid))
    own = {"jwk": other.as_dict(private=False)}
    changed = part({"iss": oidc.issuer, "sub": "admin", "aud": CLIENT, "exp": int(time.time()) + 300})
    head_of_good, _, signature = good.split(".")
    return {
        "alg none": f"{part({'alg': 'none', 'kid': kid})}.{claims}.",
        "alg None": f"{part({'alg': 'None', 'kid': kid})}.{claims}.",
        "alg none, signature kept": with_header(good, alg="none", kid=kid),
        "HS256 with the public key as PEM": f"{head}.{claims}.{macs[0]}",
        "HS256 with the public key as JWK": f"{head}.{claims}.{macs[1]}",
        "no alg": with_header(good, kid=kid),
        "alg that is no text": with_header(good, alg=["RS256"], kid=kid),
        "another key under the same id": oidc.signed("mallory", key=other, **ALICE),
        "a key that the token brings along": oidc.signed("mallory", key=other, header=own, **ALICE),
        "an unknown key": oidc.signed("mallory", key=new_key("unknown"), **ALICE),
        "no key id and another key": oidc.signed("mallory", key=other, header={"kid": None}, **ALICE),
        "claims exchanged": f"{head_of_good}.{changed}.{signature}",
        "signature cut": good[:-20],
        "ES256 of a stranger": oidc.signed("m", key=ECKey.generate_key("P-256"), header={"alg": "ES256", "kid": kid}),
        "a critical header that nobody knows": oidc.signed("m", header={"crit": ["x"], "x": 1}, **ALICE),
        "no token": "abc",
        "two dots": "..",
        "not ASCII": "é.é.é",
        "too long": "a" * 20_000 + ".b.c",
    }


def untrue(oidc: OidcServer) -> dict[str, str]:
    """Return tokens that the provider has signed, and that are not for this, by what is wrong with them."""
    now = int(time.time())

    def signed(**claims: Any) -> str:
        return oidc.signed("mallory", **ALICE | claims)

    return {
        "another audience": signed(aud="somebody-else"),
        "another audience, got by this client": signed(aud="somebody-else", azp=CLIENT),
        "no audience": signed(aud=None),
        "another issuer": signed(iss="https://evil.example"),
        "the issuer with a slash": signed(iss=f"{oidc.issuer}/"),
        "no issuer": signed(iss=None),
        "expired": signed(exp=now - 61),
        "no end": signed(exp=None),
        "an end that is no number": signed(exp="tomorrow"),
        "not yet": signed(nbf=now + 120),
        "issued in the future": signed(iat=now + 120),
        "no time of issue": signed(iat=None),
        "got by another client": signed(aud=[CLIENT, "somebody-else"], azp="somebody-else"),
        "of several audiences, got by nobody": signed(aud=[CLIENT, "somebody-else"]),
        "no subject": signed(sub=None),
        "an empty subject": signed(sub=""),
        "a subject that is a number": signed(sub=5),
        "an endless subject": signed(sub="x" * 300),
        "a nonce that this login did not send": signed(nonce="of somebody else's login"),
        "a logout token": signed(events={"http://schemas.openid.net/event/backchannel-logout": {}}),
        "a logout token by its type": oidc.signed("mallory", header={"typ": "logout+jwt"}, **ALICE),
        "endless groups": signed(groups=[f"g{number}" for number in range(1_001)]),
    }


async def test_no_forged_and_no_untrue_token_is_taken(postgres_dsn: str, oidc: OidcServer) -> None:
    async with serving_sign_in(postgres_dsn, oidc) as api:
        assert (await api.exchange(oidc.signed("honest", **ALICE))).status_code == 200
        for wrong, token in (forged(oidc) | untrue(oidc)).items():
            status, code, words = await api.refused(token)
            assert (status, code) == (401, "invalid_token"), (wrong, words)
            assert "mallory" not in words, wrong
            assert "evil" not in words, wrong
            if "nonce" not in wrong and token.isascii():  # a nonce belongs to a login, which this is none of
                assert (await api.get("/admin/v1/teams", token)).status_code == 401, wrong
        assert [row["oidc_subject"] for row in await api.rows("SELECT oidc_subject FROM app_user")] == ["honest"]


async def test_what_is_a_little_off_passes(postgres_dsn: str, oidc: OidcServer) -> None:
    now = int(time.time())
    async with serving_sign_in(postgres_dsn, oidc) as api:
        for claims in (
            {"exp": now - 20, "iat": now - 400},
            {"iat": now + 20, "nbf": now + 20},
            {"aud": [CLIENT]},
            {"aud": [CLIENT, "somebody-else"], "azp": CLIENT},
        ):
            assert (await api.exchange(oidc.signed("honest", **ALICE | claims))).status_code == 200, claims
        for header in ({"kid": None}, {"typ": "JWT"}, {"alg": "PS256"}):
            token = oidc.signed("honest", header=header, **ALICE)
            assert (await api.exchange(token)).status_code == 200, header
        with_nonce = oidc.signed("honest", nonce="n-1", **ALICE)
        assert (await api.exchange(with_nonce, nonce="n-1")).status_code == 200
        assert (await api.exchange(with_nonce, nonce="n-2")).status_code == 401
        assert (await api.exchange(oidc.signed("honest", **ALICE), nonce="n-1")).status_code == 401


async def test_a_token_that_another_client_got_is_refused(postgres_dsn: str, oidc: OidcServer) -> None:
    """Not one that we have signed ourselves: a real login of the same person, at the same provider."""
    oidc.set_account("bob", preferred_username="bob", groups=["ml"])
    tokens = {}
    async with httpx2.AsyncClient(base_url=oidc.issuer, trust_env=False) as client:
        for client_id in (CLIENT, OTHER_CLIENT):
            asked = {"client_id": client_id, "scope": "openid profile groups"}
            begun = (await client.post("/device/auth", data=asked)).json()
            assert "Success" in Person("bob").visit(begun["verification_uri_complete"])
            poll = {"client_id": client_id, "grant_type": DEVICE_GRANT, "device_code": begun["device_code"]}
            tokens[client_id] = (await client.post("/token", data=poll)).json()["id_token"]
    async with serving_sign_in(postgres_dsn, oidc) as api:
        assert (await api.refused(tokens[OTHER_CLIENT]))[:2] == (401, "invalid_token")
        assert (await api.session(tokens[CLIENT]))["user"] == "bob"


async def test_automation_shows_tokens_of_its_own_audience_with_every_request(
    postgres_dsn: str, oidc: OidcServer
) -> None:
    async with serving_sign_in(postgres_dsn, oidc, oidc_audience="penstock-api") as api:
        claims: dict[str, Any] = {
            "client_id": "deployer",
            "azp": "deployer",
            "aud": "penstock-api",
            "groups": ["ml-leads"],
        }
        token = oidc.signed("service-1", **claims)
        assert (await api.get("/admin/v1/teams", token)).status_code == 200
        assert await api.memberships() == {("deployer", "ml"): ("team_admin", "oidc")}
        assert (await api.exchange(token)).status_code == 401  # a session is for who has logged in here
        elsewhere = oidc.signed("service-1", **claims | {"aud": "another-api"})
        assert (await api.get("/admin/v1/teams", elsewhere)).status_code == 401
        nobody = oidc.signed("service-2", **claims | {"groups": ["unknown"]})
        assert (await api.get("/admin/v1/teams", nobody)).status_code == 403
