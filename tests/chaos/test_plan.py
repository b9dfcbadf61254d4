"""The plan of faults: the same for the same seed, complete, within its time, and never two faults of one server."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.chaos.plan import CI, COOL_S, WARM_S, Fault, Form, Kind, form_of, plan

FORMS = {"ci": CI, "short": form_of(2, 10), "long": form_of(30, 200)}
SEEDS = range(20)


def server_of(fault: Fault) -> str:
    """Return the name of the server that a fault is of."""
    return fault.kind.name.partition("_")[0]


def test_the_same_seed_gives_the_same_plan_and_another_one_another() -> None:
    assert plan(7, CI) == plan(7, CI)
    assert plan(7, CI) != plan(8, CI)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_kind_of_fault_comes_and_ends_within_the_load(form: Form, seed: int) -> None:
    faults = plan(seed, form)
    kinds = [fault.kind for fault in faults]
    assert set(kinds) == set(Kind)
    assert kinds.count(Kind.KILL) == form.kills
    assert kinds.count(Kind.POSTGRES_STOP) == form.postgres_stops
    assert [fault.at_s for fault in faults] == sorted(fault.at_s for fault in faults)
    for fault in faults:
        assert fault.at_s >= WARM_S
        assert fault.at_s + fault.lasts_s <= form.load_s - COOL_S
        assert 0 <= fault.target < max(form.replicas, form.engines)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_faults_of_one_server_follow_each_other(form: Form, seed: int) -> None:
    for server in ("REDIS", "POSTGRES", "ENGINE"):
        faults = [fault for fault in plan(seed, form) if server_of(fault) == server]
        assert all(one.at_s + one.lasts_s < other.at_s for one, other in pairwise(faults))


def test_the_long_form_is_what_is_promised() -> None:
    form = form_of(30, 200)
    assert (form.load_s, form.kills, form.postgres_stop_s, form.replicas) == (1800, 200, 60, 3)
    assert CI.kills >= 20
    assert CI.clients >= 20


def test_more_kills_than_starts_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        form_of(1, 60)
