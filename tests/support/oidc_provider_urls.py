"""The addresses of the tests' identity provider, and what Django OAuth Toolkit lacks; imported in its process alone."""
# mypy: ignore-errors
# Django OAuth Toolkit has no types.

import json
from dataclasses import dataclass

from django.contrib.auth.views import LoginView
from django.http import JsonResponse
from django.urls import include, path, re_path
from oauth2_provider.models import get_device_grant_model
from oauth2_provider.oauth2_validators import OAuth2Validator
from oauth2_provider.views import ConnectDiscoveryInfoView, device
from oauthlib.oauth2.rfc8628.grant_types import DeviceCodeGrant
from oauthlib.openid import Server as OpenIdServer
from oauthlib.openid.connect.core.grant_types import AuthorizationCodeGrant

from tests.support.oidc_provider import PEOPLE

DEVICE = "urn:ietf:params:oauth:grant-type:device_code"


class Validator(OAuth2Validator):
    """Tells groups and addresses, as providers do."""

    oidc_claim_scope = None

    def get_additional_claims(self, request):
        name = request.user.username
        return {
            "preferred_username": name,
            "groups": PEOPLE[name],
            "email": request.user.email,
            "email_verified": name != "ben",
        }

    def validate_device_code(self, client_id, device_code, request):
        """What oauthlib 4 asks for and the toolkit's 3.4 doesn't have: its view has looked at the state already."""
        found = get_device_grant_model().objects.filter(client_id=client_id, device_code=device_code).first()
        if found is None or found.is_expired() or found.status != found.AUTHORIZED:
            return None
        request.user, request.scopes = found.user, found.scope.split()
        return DeviceCodeGrant.DEVICE_CODE_AUTHORIZED


@dataclass
class DeviceCodeResponse(device.DeviceCodeResponse):
    """The toolkit's, which takes the scope that oauthlib 4 answers with."""

    scope: str = ""


device.DeviceCodeResponse = DeviceCodeResponse


class DeviceGrant(DeviceCodeGrant):
    """With an ID token, when openid was asked for."""

    def create_token_response(self, request, token_handler):
        headers, body, status = super().create_token_response(request, token_handler)
        if status == 200:
            token = json.loads(body)
            token = AuthorizationCodeGrant(self.request_validator).add_id_token(token, token_handler, request)
            body = json.dumps(token)
        return headers, body, status


class Server(OpenIdServer):
    """With that grant."""

    def __init__(self, request_validator, *args, **kwargs):
        super().__init__(request_validator, *args, **kwargs)
        self._grant_types[DEVICE] = DeviceGrant(request_validator, **kwargs)


class Discovery(ConnectDiscoveryInfoView):
    """Names the device flow."""

    def get(self, request, *args, **kwargs):
        found = json.loads(super().get(request, *args, **kwargs).content)
        found["device_authorization_endpoint"] = request.build_absolute_uri("/o/device-authorization/")
        return JsonResponse(found)


urlpatterns = [
    path("login/", LoginView.as_view()),
    re_path(r"^o/\.well-known/openid-configuration/?$", Discovery.as_view()),
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
]
