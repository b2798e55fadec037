"""A mistake in the settings ends as one line that names file (or variable), key, and what would be right."""

import re
from pathlib import Path

import pytest

from outrider.balancers.drivers import BALANCERS
from outrider.config.load import load_settings
from outrider.core.errors import ConfigError
from outrider.runtimes.drivers import RUNTIMES
from tests.config.test_load import BASE, load, write


def problem(folder: Path, text: str = "", environment: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, environment)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unknown_key_is_named_with_the_known_ones(tmp_path: Path) -> None:
    assert (
        "90-site.toml: lock.ttl: unknown; known: alarm_after_s, scope, slots, ttl_s (did you mean ttl_s?)"
        == problem(tmp_path, "[lock]\nttl = 3")
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[lokc]\nttl_s = 3", "90-site.toml: lokc: unknown section; known: .* \\(did you mean lock\\?\\)"),
        ("lock = 3", r"90-site.toml: lock: is a section; write \[lock\] and its keys below"),
        (
            "top = 3",
            "90-site.toml: top: unknown section; known: agent, analysis, apisix, balancer, .*download, .*drain, .*",
        ),
        ("[lock]\nslots = \n", "90-site.toml:2: Invalid value"),
        ("[lock]\n\n[lock]", "90-site.toml:3: Cannot declare .*"),
        ("[lock", "90-site.toml: .*end of document.*"),
        ("[lock]\nslots = 'two'", "90-site.toml: lock.slots: expected int, got str"),
        ("[lock]\nslots = 1.5", "90-site.toml: lock.slots: expected int, got float"),
        ("[lock]\nslots = true", "90-site.toml: lock.slots: expected int, got bool"),
        ("[lock]\nttl_s = '30'", "90-site.toml: lock.ttl_s: expected float, got str"),
        ("[lock]\nttl_s = nan", "90-site.toml: lock.ttl_s: nan is not a number of anything"),
        ("[drain]\nmax_s = inf", "90-site.toml: drain.max_s: inf is not a number of anything"),
        ("[etcd]\nendpoints = 'a:1'", "90-site.toml: etcd.endpoints: expected array, got str"),
        ("[etcd]\nendpoints = ['a:1', 2]", r"90-site.toml: etcd.endpoints: \[1\]: expected str, got int"),
        ("[etcd]\nca_file = 3", "90-site.toml: etcd.ca_file: expected str, got int"),
        ("[etcd]\npassword = 3", "90-site.toml: etcd.password: expected str, got int"),
        ("[instance]\nlabels = {rack = 3}", "90-site.toml: instance.labels: .*expected str, got int"),
        ("[workload]\nenv = {A = 1}", "90-site.toml: workload.env: .*expected str, got int"),
        ("[instance]\nstrategy = 'both'", "90-site.toml: instance.strategy: 'both' is not one of start-first, .*"),
        ("[instance]\nstate_dir = 1979-05-27", "90-site.toml: instance.state_dir: expected str, got .*date.*"),
    ],
)
def test_a_mistake_of_form_is_one_line(tmp_path: Path, text: str, line: str) -> None:

    assert re.fullmatch(line.replace("site.toml", r"site\.toml"), problem(tmp_path, text)), problem(tmp_path, text)


IMPOSSIBLE = [
    (
        "[instance]\nlabels = {site = 'a=b'}",
        "90-site.toml: instance.labels: label site = 'a=b': use 1 to 63 letters, digits or . _ : / @ + - and begin with"
        " a letter or a digit",
    ),
    ("[lock]\nslots = 0", "90-site.toml: lock.slots: 0 is too small; at least 1"),
    ("[lock]\nttl_s = 1", "90-site.toml: lock.ttl_s: 1 is too small; at least 2"),
    ("[drain]\nwait_s = -1", "90-site.toml: drain.wait_s: -1 is too small; at least 0"),
    ("[probe]\nsuccesses = 0", "90-site.toml: probe.successes: 0 is too small; at least 1"),
    ("[probe]\ninterval_s = 0", "90-site.toml: probe.interval_s: 0 is too small; more than 0"),
    ("[probe]\npath = 'health'", "90-site.toml: probe.path: 'health': wanted: a path that begins with /"),
    ("[probe]\nsuccesses = 61", "probe.deadline_s: 61 answers at 1 s each can't come within 60 s"),
    ("[drain]\nmax_s = 3", "90-site.toml: drain.max_s: is below drain.wait_s (5)"),
    ("[service]\nurls = []", "90-site.toml: service.urls: is empty; wanted: http://HOST[:PORT] or https://HOST[:PORT]"),
    (
        "[service]\nurls = ['10.0.0.9:8000']",
        "90-site.toml: service.urls: '10.0.0.9:8000': wanted: http://HOST[:PORT] or https://HOST[:PORT]",
    ),
    ("[service]\nretry_max_s = 1", "90-site.toml: service.retry_max_s: is below service.retry_min_s (5)"),
    ("[etcd]\nendpoints = ['10.0.0.1']", "90-site.toml: etcd.endpoints: '10.0.0.1': no port; write HOST:PORT, for"
     " example 127.0.0.1:2379"),
    ("[etcd]\nendpoints = ['a:70000']", "90-site.toml: etcd.endpoints: 'a:70000': ports are 1 to 65535"),
    ("[service]\nurls = ['http://a:x']", "90-site.toml: service.urls: 'http://a:x': no address: Port could not be cast"
     " to integer value as 'x'"),
    ("[traefik]\napi_urls = ['http://a:70000']", "90-site.toml: traefik.api_urls: 'http://a:70000': no address: Port"
     " out of range 0-65535"),
    (
        "[etcd]\nprefix = '/x/'",
        "90-site.toml: etcd.prefix: '/x/': wanted: a path such as /outrider/v1, without a slash at its end",
    ),
    ("[etcd]\nca_file = '/no/ca.pem'", "90-site.toml: etcd.ca_file: /no/ca.pem: no such file"),
    (
        "[etcd]\nca_file = 'ca.pem'",
        "90-site.toml: etcd.ca_file: 'ca.pem' is relative; write the whole path, beginning with /",
    ),
    ("[etcd]\ncert_file = '/dev/../etc/hostname'", "90-site.toml: etcd.cert_file: needs etcd.key_file beside it"),
    ("[etcd]\nkey_file = '/etc/hostname'", "90-site.toml: etcd.key_file: needs etcd.cert_file beside it"),
    (
        "[etcd]\ncert_file = '/etc/hostname'\nkey_file = '/etc/hostname'",
        "90-site.toml: etcd.cert_file: needs etcd.ca_file, which turns TLS on",
    ),
    ("[etcd]\nuser = 'x'", "90-site.toml: etcd.user: needs etcd.password_file"),
    ("[etcd]\npassword = 'x'", "90-site.toml: etcd.password: needs etcd.user"),
    (
        "[etcd]\nuser = 'x'\npassword_file = '/no/file'",
        "90-site.toml: etcd.password_file: /no/file: can't be read: No such file or directory",
    ),
    (
        "[etcd]\nuser = 'x'\npassword = 'x'\npassword_file = '/x'",
        "90-site.toml: etcd.password_file: etcd.password is set too; keep one of them",
    ),
    (
        "[instance]\nstate_dir = 'state'",
        "90-site.toml: instance.state_dir: 'state' is relative; write the whole path, beginning with /",
    ),
    (
        "[instance]\nid = 'Web 1'",
        "90-site.toml: instance.id: 'Web 1': wanted: 1 to 63 lower-case letters, digits or . _ - that begin with a"
        " letter or a digit",
    ),
    ("[instance]\ngroup = ''", "90-site.toml: instance.group: is empty; wanted: 1 to 128 letters, digits or . _ + @ : -"
     " that begin with a letter or a digit"),
    ("[process]\ncommand = []", '90-site.toml: process.command: missing; for example ["./server", "--port", "{port}"]'),
    ('[process]\ncommand = ["a\\u0000"]', r"90-site.toml: process.command: 'a\x00' holds a NUL character"),
    ("[process]\ncommand = ['a', '{prot}']", "90-site.toml: process.command: '{prot}': {prot} is not replaced; did you"
     " mean {port}?"),
    ("[process]\ncommand = ['a', '--on={Host}:{port}']", "90-site.toml: process.command: '--on={Host}:{port}': {Host}"
     " is not replaced; did you mean {host}?"),
    ("[process]\ncommand = ['a', '{versoin}']", "90-site.toml: process.command: '{versoin}': {versoin} is not replaced;"
     " did you mean {version}?"),
    ("[workload]\nports = '85-'", """90-site.toml: workload.ports: '85-': wanted: "", "PORT" or "FIRST-LAST\""""),
    ("[workload]\nports = '9-8'", "90-site.toml: workload.ports: '9-8': 8 is below 9"),
    ("[workload]\nports = '0'", "90-site.toml: workload.ports: '0': ports are 1 to 65535"),
    (
        "[workload]\nports = '8085'",
        "90-site.toml: workload.ports: start-first runs two versions at once, and '8085' is one port; give a range, or"
        " set instance.strategy to stop-first",
    ),
    (
        "[workload]\nhost = '0.0.0.0'",
        "90-site.toml: workload.host: '0.0.0.0' is no address that a balancer can send to; name this machine's",
    ),
    ("[workload]\nenv = {PORT = '1'}", "90-site.toml: workload.env: PORT: is set by outrider itself"),
    ("[workload]\nenv = {'A=B' = '1'}", "90-site.toml: workload.env: 'A=B': not the name of a variable"),
    (
        "[balancer]\nservice = ''",
        "90-site.toml: balancer.service: missing; name the app's service in Traefik, or set instance.balancer to none",
    ),
    (
        "[balancer]\nservice = 'Shop'",
        "90-site.toml: balancer.service: 'Shop': use 1 to 127 lower-case letters, digits or . _ - and begin with a"
        " letter or a digit",
    ),
    ("[traefik]\nentrypoints = ['we:b']", "90-site.toml: traefik.entrypoints: 'we:b': use letters, digits or . _ -"),
    ("[instance]\nruntime = 'jail'", f"90-site.toml: instance.runtime: 'jail' is not one of {', '.join(RUNTIMES)}"),
    (
        "[instance]\nbalancer = 'pound'",
        f"90-site.toml: instance.balancer: 'pound' is not one of {', '.join(BALANCERS)}",
    ),
    (
        "[instance]\nbalancer = 'haproxy'",
        f"90-site.toml: instance.balancer: 'haproxy' is not one of {', '.join(BALANCERS)}; for haproxy write agent",
    ),
    (
        "[instance]\nruntime = 'podman'",
        f"90-site.toml: instance.runtime: 'podman' is not one of {', '.join(RUNTIMES)}; for podman write docker",
    ),
    (
        "[instance]\nruntime = 'haproxy'",
        f"90-site.toml: instance.runtime: 'haproxy' is not one of {', '.join(RUNTIMES)}",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line"), IMPOSSIBLE)
def test_a_value_that_cannot_work_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    assert line == problem(tmp_path, text)


@pytest.mark.parametrize("word", ["{port}", "${PORT}", "${port}", "{name}", '{"a": 1}', "{{x}}", "{}", "%{host}"])
def test_braces_that_are_the_apps_own_are_left_alone(tmp_path: Path, word: str) -> None:
    settings = load(tmp_path, f"[process]\ncommand = ['sh', '-c', '{word}']").settings

    assert word == settings.section("process").command[2]


def test_one_fixed_port_is_right_for_stop_first(tmp_path: Path) -> None:
    assert (
        "8085"
        == load(tmp_path, "[instance]\nstrategy = 'stop-first'\n[workload]\nports = '8085'").settings.workload.ports
    )


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"OUTRIDER_LOCK_TTL": "3"}, "OUTRIDER_LOCK_TTL: lock.ttl: unknown; known: alarm_after_s, scope, slots, ttl_s"
         " (did you mean ttl_s?)"),
        ({"OUTRIDER_LOCK_SLOTS": "two"}, "OUTRIDER_LOCK_SLOTS: lock.slots: expected int, got str"),
        ({"OUTRIDER_WORKLOAD_ENV": "A=1"}, "OUTRIDER_WORKLOAD_ENV: workload.env: JSON is malformed: invalid character"
         " (byte 0)"),
        ({"OUTRIDER_SOAK_DURATION_S": "-1"}, "OUTRIDER_SOAK_DURATION_S: soak.duration_s: -1 is too small; at least 0"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_variable_names_the_variable(tmp_path: Path, environment: dict[str, str], line: str) -> None:
    assert line == problem(tmp_path, "", environment)


def test_an_unknown_flag_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^flag lock\.ttl: lock\.ttl: unknown; known: alarm_after_s, scope, slots, ttl_s"
    ):
        load_settings((write(tmp_path, BASE),), {}, {"lock.ttl": 3})


@pytest.mark.parametrize("key", ["app", "group"])
def test_a_missing_setting_is_named_with_the_places_to_set_it(tmp_path: Path, key: str) -> None:
    path = write(tmp_path, "\n".join(line for line in BASE.splitlines() if not line.startswith(f"{key} =")))

    with pytest.raises(ConfigError) as caught:
        load_settings((path,))

    variable = f"OUTRIDER_INSTANCE_{key.upper()}"
    assert f"instance.{key}: missing; set it in a file in /etc/outrider or with {variable}" == str(caught.value)


def test_a_file_that_is_missing_unreadable_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"/none\.toml: No such file or directory"):
        load_settings((tmp_path / "none.toml",))
    with pytest.raises(ConfigError, match="Is a directory"):
        load_settings((tmp_path,))
    (tmp_path / "latin.toml").write_bytes(b"[lock]\n# gr\xfc\xdfe\n")
    with pytest.raises(ConfigError, match=r"^latin\.toml:2: not UTF-8$"):
        load_settings((tmp_path / "latin.toml",))


def test_an_empty_password_file_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("\n")

    assert f"90-site.toml: etcd.password_file: {secret}: is empty" == problem(
        tmp_path, f"[etcd]\nuser = 'x'\npassword_file = '{secret}'"
    )
