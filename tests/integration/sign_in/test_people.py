"""People at their first sign-in and later ones: users, roles, teams, keys and sessions in step with their groups."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import TYPE_CHECKING, Any

from gateway.admin.database import transaction_on
from gateway.admin.keys import NewApiKey, create_key
from gateway.admin.scope import PLATFORM
from gateway.admin.sign_in.sessions import SESSIONS_MAX
from gateway.admin.users import delete_user
from tests.support.admin_api import PEPPERS
from tests.support.sign_in import SECTION, serving_sign_in

if TYPE_CHECKING:
    from tests.support.oidc import OidcServer

ALICE: dict[str, Any] = {"preferred_username": "alice", "email": "alice@acme.example", "groups": ["ml", "unknown"]}


async def test_a_person_appears_at_the_first_sign_in_and_moves_with_its_groups(
    postgres_dsn: str, oidc: OidcServer
) -> None:
    async with serving_sign_in(postgres_dsn, oidc) as api:
        first = await api.session(oidc.signed("alice-1", **ALICE))
        assert (first["user"], first["email"], first["organization"]) == ("alice", ALICE["email"], "acme")
        assert (first["role"], [(team["name"], team["role"]) for team in first["teams"]]) == (
            "member",
            [("ml", "member")],
        )
        assert first["credential"].startswith("adm-pst-")
        lasts = dt.datetime.fromisoformat(first["expires_at"]) - dt.datetime.now(dt.UTC)
        assert dt.timedelta(hours=11, minutes=59) < lasts <= dt.timedelta(hours=12)
        assert (await api.get("/admin/v1/teams", first["credential"])).status_code == 200

        promoted = await api.session(oidc.signed("alice-1", **ALICE | {"groups": ["ml-leads", "ml", "both", "bosses"]}))
        assert promoted["user_id"] == first["user_id"]
        assert promoted["role"] == "organization_admin"
        assert await api.memberships() == {
            ("alice", "ml"): ("team_admin", "oidc"),
            ("alice", "data"): ("member", "oidc"),
        }
        back = await api.session(oidc.signed("alice-1", **ALICE | {"email": "new@acme.example"}))
        assert (back["role"], back["email"]) == ("member", "new@acme.example")
        assert await api.memberships() == {("alice", "ml"): ("member", "oidc")}


async def test_what_an_administrator_has_set_stays(postgres_dsn: str, oidc: OidcServer) -> None:
    async with serving_sign_in(postgres_dsn, oidc) as api:
        await api.session(oidc.signed("alice-2", **ALICE))
        async with transaction_on(postgres_dsn) as db:
            await db.execute("UPDATE app_user SET role = 'organization_admin', role_source = 'manual'")
            await db.execute(
                "INSERT INTO membership (organization_id, team_id, user_id, role, source)"
                " SELECT app_user.organization_id, team.id, app_user.id, 'team_admin', 'manual' FROM app_user, team"
                " WHERE team.name = 'data'"
            )
        for groups in (["both"], ["ml"]):
            token = oidc.signed("alice-2", **ALICE | {"groups": groups, "email": f"{groups[0]}@acme.example"})
            assert (await api.session(token))["role"] == "organization_admin"
            assert (await api.memberships())["alice", "data"] == ("team_admin", "manual")


async def test_many_first_sign_ins_at_once_make_one_user(postgres_dsn: str, oidc: OidcServer) -> None:
    async with serving_sign_in(postgres_dsn, oidc) as api:
        tokens = [oidc.signed("alice-3", **ALICE) for _ in range(8)]
        sessions = await asyncio.gather(*(api.session(token) for token in tokens))
        assert len({session["user_id"] for session in sessions}) == 1
        assert len(await api.rows("SELECT id FROM app_user")) == 1


async def test_people_of_one_name_are_told_apart(postgres_dsn: str, oidc: OidcServer) -> None:
    async with serving_sign_in(postgres_dsn, oidc) as api:
        names = [(await api.session(oidc.signed(f"namesake-{number}", **ALICE)))["user"] for number in range(3)]
        assert names == ["alice", "alice-2", "alice-3"]
        odd = {
            "\n ": "no-name-1",  # nothing printable: the subject
            "0190a1b2-0000-7000-8000-000000000000": "user-0190a1b2-0000-7000-8000-000000000000",  # not an id's form
            "x" * 400: "x" * 200,
        }
        for number, (given, name) in enumerate(odd.items(), 1):
            token = oidc.signed(f"no-name-{number}", preferred_username=given, groups=["ml"])
            assert (await api.session(token))["user"] == name


async def test_who_is_in_no_group_is_refused_or_a_member_as_penstock_yaml_says(
    postgres_dsn: str, oidc: OidcServer
) -> None:
    stranger = oidc.signed("stranger", preferred_username="eve", groups=["unknown"])
    async with serving_sign_in(postgres_dsn, oidc) as api:
        status, code, words = await api.refused(stranger)
        assert (status, code) == (403, "not_admitted")
        assert words.startswith("none of your groups may use this gateway")
        assert "your token says nothing of groups" in (await api.refused(oidc.signed("stranger")))[2]
        assert "several organizations" in (await api.refused(oidc.signed("two", groups=["ml", "umbrella"])))[2]
        assert await api.rows("SELECT FROM app_user") == []
        api.section = "sign_in: {organization: acme, unmapped: member}"
        assert (await api.session(stranger))["teams"] == []
        api.section = "sign_in: {organization: nowhere, unmapped: member}"
        assert "there is no organization 'nowhere' here yet" in (await api.refused(oidc.signed("late")))[2]


async def test_losing_every_group_takes_teams_keys_role_and_sessions(postgres_dsn: str, oidc: OidcServer) -> None:
    async with serving_sign_in(postgres_dsn, oidc) as api:
        session = await api.session(oidc.signed("leaver", **ALICE | {"groups": ["ml-leads", "bosses"]}))
        async with transaction_on(postgres_dsn) as db:
            wanted = NewApiKey(team="ml", user="alice", organization="acme")
            await create_key(db, PLATFORM, PEPPERS, wanted)
        # A provider that tells nothing of groups is a mistake of somebody else's: nothing is taken away for it.
        assert (await api.refused(oidc.signed("leaver", preferred_username="alice")))[0] == 403
        assert (await api.get("/admin/v1/teams", session["credential"])).status_code == 200
        assert (await api.refused(oidc.signed("leaver", **ALICE | {"groups": []})))[:2] == (403, "not_admitted")
        assert (await api.get("/admin/v1/teams", session["credential"])).status_code == 401
        assert await api.memberships() == {}
        assert await api.rows("SELECT role FROM app_user") == [{"role": "member"}]
        assert [row["revoked_at"] is not None for row in await api.rows("SELECT revoked_at FROM api_key")] == [True]


async def test_a_deleted_person_is_out_at_once_and_stays_out(postgres_dsn: str, oidc: OidcServer) -> None:
    async with serving_sign_in(postgres_dsn, oidc) as api:
        token = oidc.signed("deleted", **ALICE)
        session = await api.session(token)
        assert (await api.get("/admin/v1/teams", token)).status_code == 200
        async with transaction_on(postgres_dsn) as db:
            await delete_user(db, PLATFORM, session["user_id"])
        assert (await api.get("/admin/v1/teams", session["credential"])).status_code == 401
        assert (await api.get("/admin/v1/teams", token)).status_code == 401
        assert (await api.refused(token))[1] == "not_admitted"
        assert "deleted" in (await api.refused(token))[2]


async def test_an_organization_named_by_a_claim_is_the_one(postgres_dsn: str, oidc: OidcServer) -> None:
    async with serving_sign_in(postgres_dsn, oidc) as api:
        api.section = SECTION + "  organization_claim: org\n"
        for subject, org, expected in (("c1", "umbrella", "umbrella"), ("c2", ["umbrella"], "umbrella")):
            token = oidc.signed(subject, groups=["umbrella", "ml"], org=org)
            session = await api.session(token)
            assert (session["organization"], session["teams"]) == (expected, [])
        moved = await api.refused(oidc.signed("c1", groups=["ml"], org="acme"))
        assert "you are a user of another organization" in moved[2]
        assert (
            "none of your groups is of your organization"
            in (await api.refused(oidc.signed("c3", groups=["ml"], org="umbrella")))[2]
        )
        several = oidc.signed("c4", groups=["ml"], org=["acme", "umbrella"])
        assert "names no single organization" in (await api.refused(several))[2]


async def test_sessions_are_bounded_and_end_by_logging_out(postgres_dsn: str, oidc: OidcServer) -> None:
    async with serving_sign_in(postgres_dsn, oidc) as api:
        token = oidc.signed("often", **ALICE)
        made = [(await api.session(token))["credential"] for _ in range(SESSIONS_MAX + 1)]
        assert (await api.get("/admin/v1/teams", made[0])).status_code == 401
        assert (await api.get("/admin/v1/teams", made[1])).status_code == 200
        out = await api.client.post("/auth/logout", headers={"authorization": f"Bearer {made[1]}"})
        assert (out.status_code, out.json()) == (200, {"ended": True})
        assert (await api.get("/admin/v1/teams", made[1])).status_code == 401
        assert (await api.get("/admin/v1/teams", made[-1])).status_code == 200


async def test_the_audit_log_says_who_appeared_and_from_where(postgres_dsn: str, oidc: OidcServer) -> None:
    async with serving_sign_in(postgres_dsn, oidc) as api:
        session = await api.session(oidc.signed("audited", **ALICE))
        events = await api.rows(
            "SELECT subject_kind, action, actor ->> 'id' AS actor, actor ->> 'name' AS name, actor ->> 'request_id' AS"
            " request FROM audit_event WHERE actor ->> 'kind' = 'user' ORDER BY id"
        )
        assert [(event["subject_kind"], event["action"]) for event in events] == [
            ("user", "create"),
            ("membership", "create"),
            ("admin_key", "create"),
        ]
        assert {(event["actor"], event["name"]) for event in events} == {(session["user_id"], "alice")}
        assert all(event["request"] for event in events)
        secrets = await api.rows("SELECT before, after FROM audit_event")
        assert session["credential"].rpartition("_")[2][:32] not in str(secrets)
