"""Mistakes in ``[probe]`` end as one line with the key and what would be right; and what apps without HTTP write."""

from pathlib import Path

import pytest

from outrider.config.sections import ProbeSettings
from tests.config.test_load import load
from tests.config.test_mistakes import problem

RANGE = "wanted: a status code such as 204, or a range such as 200-299"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("kind = 'udp'", "probe.kind: 'udp' is not one of http, tcp, command"),
        ("kind = 'command'", 'probe.command: missing; for example ["pg_isready", "--host={host}", '),
        ("kind = 'command'\ncommand = ['']", "probe.command: missing; for example"),
        (
            "command = ['true']",
            "probe.command: has no effect, for probe.kind is http; set that to command, or remove this",
        ),
        ("statuses = []", f"probe.statuses: is empty; {RANGE}"),
        ("statuses = ['2xx']", f"probe.statuses: '2xx': {RANGE}"),
        ("statuses = ['600']", f"probe.statuses: '600': {RANGE}"),
        ("statuses = ['299-200']", "probe.statuses: '299-200': 200 is below 299"),
        ("host = 'http://app'", "probe.host: 'http://app': wanted: a host name, with a port if the app needs one"),
        ("headers = {Host = 'app'}", "probe.headers: Host: set probe.host instead"),
        ("headers = {Content-Length = '1'}", "probe.headers: Content-Length: is set by outrider itself"),
        ("headers = {'X Y' = 'app'}", "probe.headers: 'X Y': not the name of a header field"),
        ('headers = {X = "a\\nb"}', "probe.headers: X: its text must be printable ASCII without blanks around it"),
        ("headers = {X = 'ü'}", "probe.headers: X: its text must be printable ASCII without blanks around it"),
        ("scheme = 'https'\nca_file = '/nowhere.pem'", "probe.ca_file: /nowhere.pem: no such file"),
        ("ca_file = '/etc/hostname'", "probe.ca_file: needs probe.scheme = https"),
        (
            "scheme = 'https'\nca_file = '/etc/hostname'\nverify = false",
            "probe.ca_file: has no effect, for probe.verify is false; remove one of them",
        ),
    ],
)
def test_a_probe_that_cannot_work_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    assert line in problem(tmp_path, f"[probe]\n{text}")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ProbeSettings()),
        ("kind = 'tcp'", ProbeSettings(kind="tcp")),
        (
            "kind = 'command'\ncommand = ['pg_isready', '--port={port}']",
            ProbeSettings(kind="command", command=("pg_isready", "--port={port}")),
        ),
        (
            "scheme = 'https'\nverify = false\nhost = 'app.example:8443'\nstatuses = ['200-299', '401']",
            ProbeSettings(scheme="https", verify=False, host="app.example:8443", statuses=("200-299", "401")),
        ),
        ("headers = {Authorization = 'Bearer x'}", ProbeSettings(headers={"Authorization": "Bearer x"})),
    ],
)
def test_each_kind_of_probe_can_be_set(tmp_path: Path, text: str, wanted: ProbeSettings) -> None:
    assert wanted == load(tmp_path, f"[probe]\n{text}").settings.probe


def test_headers_and_statuses_come_from_the_environment_too(tmp_path: Path) -> None:
    given = {"OUTRIDER_PROBE_HEADERS": '{"X-Probe": "1"}', "OUTRIDER_PROBE_STATUSES": "204,301"}

    settings = load(tmp_path, "", given).settings.probe

    assert ({"X-Probe": "1"}, ("204", "301")) == (settings.headers, settings.statuses)
