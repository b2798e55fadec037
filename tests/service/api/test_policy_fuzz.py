"""Whatever is sent to the API of policies, rollouts and floors, it is answered, and never with a 500."""

import json
from pathlib import Path

import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.service.api.models_policy import PolicyGiven
from outrider.service.store.store import Store
from tests.sim.fake_etcd import FakeCluster
from tests.support.in_process import application_over, ask
from tests.support.rings import mostly_long
from tests.support.service_examples import APP, make_app

GROUP = f"/api/v1/apps/{APP}/groups/beta"
CHANNEL = f"/api/v1/apps/{APP}/channels/beta"
CHECK = (
    f'<request protocol="3.0"><app appid="{APP}" version="1.0.0" track="beta" machineid="web-1"><updatecheck/></app>'
    "</request>"
)
WORDS = ("", "none", "1.2", "24:00", "22:00", "mon", "Europe/Berlin", "../../etc/passwd", "localtime", "\ud800", "\x00")
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(10**30), st.floats(), st.sampled_from(WORDS), st.text(max_size=9)
)
rates = st.dictionaries(st.sampled_from(("count", "interval_s", "x")), scalars, max_size=3)
windows = st.lists(
    st.dictionaries(st.sampled_from(("days", "opens", "closes")), st.one_of(scalars, st.lists(scalars, max_size=2))),
    max_size=2,
)
policies = st.dictionaries(
    st.sampled_from((*PolicyGiven.model_fields, "x")), st.one_of(scalars, rates, windows), max_size=4
)
requests = st.one_of(
    st.tuples(st.just("PUT"), st.just(f"{GROUP}/policy"), policies),
    st.tuples(
        st.just("POST"),
        st.sampled_from(("pause", "halt", "resume", "x")).map(lambda verb: f"{GROUP}/rollout/{verb}"),
        st.dictionaries(st.sampled_from(("why", "by", "x")), scalars, max_size=2),
    ),
    st.tuples(
        st.sampled_from(("PUT", "DELETE")),
        st.sampled_from(("1.0.0", "2.0.0", "x", "1.0.0+a")).flatmap(
            lambda version: st.sampled_from((f"{CHANNEL}/floors/{version}", f"{CHANNEL}/excluded/{version}"))
        ),
        st.dictionaries(st.just("reason"), scalars),
    ),
)


@pytest.fixture
def application(store: Store, client: FakeCluster, tmp_path: Path) -> FastAPI:
    make_app(store, versions=("1.0.0", "2.0.0"), version="2.0.0")
    return application_over(client, tmp_path)


@pytest.mark.parametrize("number_of_requests", mostly_long((40, 400), short=lambda number: number == 40))
def test_nothing_that_is_sent_breaks_it_or_what_comes_after(application: FastAPI, number_of_requests: int) -> None:
    """What was taken is there for the next one, so what is read, and what an instance is answered, is looked at too."""

    @settings(max_examples=number_of_requests, deadline=None)
    @given(request=requests)
    def send(request: tuple[str, str, object]) -> None:
        check_one(application, *request)

    send()


def check_one(application: FastAPI, method: str, path: str, body: object) -> None:
    headers = {"content_type": "application/json"}

    answer = ask(application, method, path, json.dumps(body).encode(), **headers)
    after = [ask(application, "GET", f"{GROUP}/{what}") for what in ("policy", "rollout")]
    check = ask(application, "POST", "/v1/update", CHECK.encode())

    assert answer.status in (200, 400, 404, 409, 422), answer.body
    assert [200, 200, 200] == [one.status for one in (*after, check)]
