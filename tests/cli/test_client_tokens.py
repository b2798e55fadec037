"""``outrider client-token`` as an operator types it, against a running service, and a client that uses the token."""

import json
import shlex
from pathlib import Path

import requests
from click.testing import CliRunner

from outrider.cli import main
from tests.support.service import Service
from tests.support.service_examples import APP, make_app


def check(service: Service, name: str, path: str = "") -> str:
    body = (
        f'<request protocol="3.0"><app appid="{APP}" track="beta" machineid="{name}" version="0.9.0">'
        "<updatecheck/></app></request>"
    )
    answer = requests.post(f"{service.url}/v1/update{path}", data=body, timeout=60, allow_redirects=False)
    return answer.text if answer.ok else str(answer.status_code)


def test_a_token_is_made_used_listed_and_revoked(service: Service) -> None:
    make_app(service.store)

    def run(command: str, code: int = 0) -> str:
        result = CliRunner().invoke(main, shlex.split(command), env={"OUTRIDER_SERVER": service.url})
        assert code == result.exit_code, f"{command}: {result.output}{result.exception!r}"
        return result.stdout if code == 0 else result.stderr

    run(f"group update --app-id {APP} --group-id beta --identity required")
    token = run(f"client-token create --app-id {APP} --group-id beta --instance kiosk-7 --note hall").strip()
    listed = json.loads(run(f"client-token list --app-id {APP} --json"))

    assert 'status="ok"><urls>' in check(service, "kiosk-7", f"/{token}").replace("\n", "")
    assert "unproved check-in" in check(service, "kiosk-8", f"/{token}/")
    assert "unproved check-in" in check(service, "kiosk-7")
    wrong = (token[:-1], f"x/{token}", f"{token}//", "%FF")
    assert ["404"] * 4 == [check(service, "kiosk-7", f"/{path}") for path in wrong]
    (shown,) = listed
    assert ("kiosk-7", "beta", "hall", token[-4:]) == tuple(
        shown[name] for name in ("instance", "group", "note", "token_end")
    )
    assert token not in json.dumps(listed) + run(f"client-token list --app-id {APP}")

    run(f"client-token delete --app-id {APP} --id {shown['id']}")
    assert "is revoked" in check(service, "kiosk-7", f"/{token}")
    assert "no client token" in run(f"client-token delete --app-id {APP} --id {shown['id']}", 1)
    assert "no group 'absent'" in run(f"client-token create --app-id {APP} --group-id absent", 1)


def test_config_show_hides_a_token_in_an_address(tmp_path: Path) -> None:
    token = f"oc_{'a' * 12}_{'s' * 43}"
    path = tmp_path / "site.toml"
    path.write_text(
        f"""
        instance = {{id = "a", app = "shop", group = "web", balancer = "none"}}
        process = {{command = ["./server"]}}
        service = {{kind = "omaha", urls = ["https://n/v1/update/{token}"]}}
        """
    )

    for option in ("", "--json"):
        result = CliRunner().invoke(main, shlex.split(f"config show --config {path} {option}"))
        assert 0 == result.exit_code, result.output
        assert ("s" * 9 in result.output, "oc_aaaaaaaaaaaa_***" in result.output) == (False, True)
