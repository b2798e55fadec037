"""A real identity provider for tests: Django OAuth Toolkit, which shares no code with what is tested.

``python -m tests.support.oidc_provider FOLDER PORT KEY.pem [OTHER.pem...]`` serves it. It knows one confidential client
for the page, and one public client for devices. What it lacks is added below: it puts no ID token into the answer of
the device flow, and names that flow not in its discovery document.
"""
# mypy: ignore-errors
# Django OAuth Toolkit and the settings of Django have no types.

import os
import re
import sys
from html import unescape
from pathlib import Path
from urllib.parse import urljoin

import requests

from outrider.demo.programs import Program, free_ports
from outrider.http import ask

WEB, SECRET, DEVICE = "outrider", "s3cret-of-the-page", "outrider-cli"
PASSWORD = "correct horse"
PEOPLE = {"ann": ["sre"], "ben": ["shop-devs"], "cat": [], "eve": ["admins"]}
"""Who there is, with the groups in their tokens."""


class IdentityProvider:
    """The provider as a program. ``issuer`` stays the same over restarts."""

    def __init__(self, folder: Path, callback: str, *, host: str = "127.0.0.1") -> None:
        """``host``: in its addresses; ``localhost`` is another site than 127.0.0.1 for a browser."""
        self.folder, self.callback, self.host = folder, callback, host
        self.port = free_ports(1)[0]
        self.keys: list[Path] = []
        self.program: Program | None = None

    @property
    def issuer(self) -> str:
        return f"http://{self.host}:{self.port}/o"

    def rotate(self, *, keep: bool = False) -> None:
        """A new key signs from the next start on; the old one is no longer published unless ``keep``."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"key-{len(list(self.folder.glob('key-*')))}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        self.keys = [path, *(self.keys if keep else [])]

    def start(self) -> "IdentityProvider":
        if not self.keys:
            self.rotate()
        command = [sys.executable, "-m", "tests.support.oidc_provider", self.folder, str(self.port), self.callback]

        def answers() -> bool:
            answer = ask(f"{self.issuer}/.well-known/openid-configuration", timeout_s=5.0)
            return answer is not None and answer.status == 200

        root = str(Path(__file__).parents[2])
        self.program = Program("provider", [*command, *self.keys], self.folder, ready=answers, env={"PYTHONPATH": root})
        self.program.wait_ready()
        return self

    def stop(self) -> None:
        if self.program is not None:
            self.program.stop()


class Person:
    """Somebody with a browser, who logs in where a page asks for it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.browser = requests.Session()
        self.browser.trust_env = False

    def follow(self, url: str, *, until: str) -> str:
        """Go where ``url`` leads, fill in what is asked for, and stop before an address that begins with ``until``."""
        answer = self.browser.get(url, allow_redirects=False, timeout=30)
        for _ in range(12):
            if answer.is_redirect:
                to = urljoin(answer.url, answer.headers["Location"])
                if to.startswith(until):
                    return to
                answer = self.browser.get(to, allow_redirects=False, timeout=30)
                continue
            assert answer.status_code == 200, f"{answer.url}: {answer.status_code} {answer.text[:300]}"
            form = self._filled(answer.text)
            if form is None:
                return answer.url
            answer = self.browser.post(
                answer.url, data=form, headers={"Referer": answer.url}, allow_redirects=False, timeout=30
            )
        raise AssertionError(f"no end: {answer.url}")

    def confirm(self, url: str, code: str, *, action: str = "accept") -> None:
        """Confirm the login of a device."""
        self._action = action
        self._code = code
        self.follow(url, until="nowhere:")

    _action, _code = "accept", ""

    def _filled(self, page: str) -> dict[str, str] | None:
        form = re.search(r"<form.*?</form>", page, re.DOTALL)
        if form is None:
            return None
        tags = [
            dict(re.findall(r'(name|value)="([^"]*)"', tag)) for tag in re.findall(r"<(?:input|button)[^>]*>", form[0])
        ]
        fields = {tag["name"]: unescape(tag.get("value", "")) for tag in tags if "name" in tag}
        typed = {"username": self.name, "password": PASSWORD, "user_code": self._code, "action": self._action}
        return {name: typed.get(name) or value for name, value in fields.items()}


def serve(folder: Path, port: int, callback: str, keys: list[Path]) -> None:
    """Serve until the process is ended."""
    import django
    from django.conf import settings

    os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
    login_page = {
        "registration/login.html": '<form method="post">{% csrf_token %}{{ form }}<button>Sign in</button></form>'
    }
    settings.configure(
        SECRET_KEY="of the tests",
        DEBUG=True,  # tells in its log what failed
        ALLOWED_HOSTS=["127.0.0.1", "localhost"],
        ROOT_URLCONF="tests.support.oidc_provider_urls",
        USE_TZ=True,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "provider.sqlite")}},
        INSTALLED_APPS=[
            *("django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "oauth2_provider"),
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "OPTIONS": {
                    "context_processors": ["django.template.context_processors.request"],
                    "loaders": [
                        ("django.template.loaders.locmem.Loader", login_page),
                        "django.template.loaders.app_directories.Loader",
                    ],
                },
            }
        ],
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        LOGIN_URL="/login/",
        OAUTH2_PROVIDER={
            "OIDC_ENABLED": True,
            "OIDC_RSA_PRIVATE_KEY": keys[0].read_text(),
            "OIDC_RSA_PRIVATE_KEYS_INACTIVE": [key.read_text() for key in keys[1:]],
            "OAUTH2_VALIDATOR_CLASS": "tests.support.oidc_provider_urls.Validator",
            "OAUTH2_SERVER_CLASS": "tests.support.oidc_provider_urls.Server",
            "PKCE_REQUIRED": True,
            "SCOPES": {"openid": "who you are", "offline_access": "for longer"},
            "OAUTH_DEVICE_VERIFICATION_URI": f"http://127.0.0.1:{port}/o/device/",
            "DEVICE_FLOW_INTERVAL": 1,
            "ID_TOKEN_EXPIRE_SECONDS": int(os.environ.get("OUTRIDER_TEST_ID_TOKEN_S", "3600")),
        },
    )
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    _make_people_and_clients(callback)
    call_command("runserver", f"127.0.0.1:{port}", use_reloader=False, verbosity=0, skip_checks=True)


def _make_people_and_clients(callback: str) -> None:
    from django.contrib.auth.models import User
    from oauth2_provider.models import Application

    for name in PEOPLE:
        if not User.objects.filter(username=name).exists():
            User.objects.create_user(name, f"{name}@example.com", PASSWORD)
    Application.objects.update_or_create(
        client_id=WEB,
        defaults={
            "client_secret": SECRET,
            "client_type": "confidential",
            "authorization_grant_type": "authorization-code",
            "redirect_uris": callback,
            "algorithm": "RS256",
            "skip_authorization": True,
            "name": "the page",
        },
    )
    Application.objects.update_or_create(
        client_id=DEVICE,
        defaults={
            "client_type": "public",
            "authorization_grant_type": "urn:ietf:params:oauth:grant-type:device_code",
            "algorithm": "RS256",
            "name": "the commands",
        },
    )


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], [Path(one) for one in sys.argv[4:]])
