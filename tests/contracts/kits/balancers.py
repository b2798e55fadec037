"""The kits of the balancers."""

import json
from collections.abc import Mapping
from typing import Protocol

from outrider.balancers.agent import AgentKeys, AgentSettings
from outrider.balancers.apisix import ApisixSettings
from outrider.balancers.keys import KeyLayout
from outrider.balancers.templates import KeysSettings, TemplateKeys
from outrider.balancers.traefik import TraefikKeys, TraefikSettings
from outrider.balancers.vulcand import VulcandKeys, VulcandSettings
from outrider.etcd.seam import Cluster
from outrider.model.balancer_agents import ServerEntry
from outrider.model.documents import decode
from outrider.model.keys import Keys
from tests.contracts.kits.settings import INSTANCE, SERVICE


class BalancerKit(Protocol):
    """What a balancer's contract is tested with.

    Attributes:
        settings: Of the driver's own section, with nobody at the addresses that would be asked; None when it has none.
        keeps: It has an entry in etcd.
        unheard: What ``confirm`` says then: only a balancer that has nothing to follow may say yes.
    """

    settings: object
    unheard: bool | None
    keeps: bool

    def layout(self) -> KeyLayout | None:
        """Where its keys are; None when no server has keys of its own."""

    def listed(self, cluster: Cluster) -> str | None:
        """The address of the instance's entry in etcd; None when there is none."""


class TraefikKit:
    """One key for each server."""

    settings: object = TraefikSettings(rule="Host(`hello.test`)", api_urls=("http://127.0.0.1:1",))
    keeps = True
    unheard: bool | None = None

    def layout(self) -> KeyLayout | None:
        return TraefikKeys(TraefikSettings(rule="Host(`hello.test`)"), service=SERVICE)

    def listed(self, cluster: Cluster) -> str | None:
        found = cluster.get(f"traefik/http/services/{SERVICE}/loadbalancer/servers/{INSTANCE}/url")
        return found.value.decode() if found is not None else None


class AgentKit:
    """One key for each server, which agents apply; no agent is registered here."""

    settings: object = AgentSettings()
    keeps = True
    unheard: bool | None = None

    def layout(self) -> KeyLayout | None:
        return AgentKeys(AgentSettings(), service=SERVICE, keys=Keys())

    def listed(self, cluster: Cluster) -> str | None:
        found = cluster.get(f"/outrider/v1/servers/{SERVICE}/{INSTANCE}/entry")
        return decode(ServerEntry, found.key, found.value).url if found is not None else None


class VulcandKit:
    """One key for each server, with JSON in it."""

    settings: object = VulcandSettings(route="Host(`hello.test`)")
    keeps = True
    unheard: bool | None = None

    def layout(self) -> KeyLayout | None:
        return VulcandKeys(VulcandSettings(route="Host(`hello.test`)"), service=SERVICE)

    def listed(self, cluster: Cluster) -> str | None:
        found = cluster.get(f"/vulcand/backends/{SERVICE}/servers/{INSTANCE}")
        return str(json.loads(found.value)["URL"]) if found is not None else None


class KeysKit:
    """Two keys for each server, by templates."""

    settings: object = KeysSettings(
        entries={
            "/services/{service}/{server}/address": "{host}:{port}",
            "/services/{service}/{server}/json": '{"host":"{host}","port":{port},"id":"{server}"}',
        }
    )
    keeps = True
    unheard: bool | None = None

    def layout(self) -> KeyLayout | None:
        assert isinstance(self.settings, KeysSettings)
        return TemplateKeys(self.settings, service=SERVICE)

    def listed(self, cluster: Cluster) -> str | None:
        found = cluster.get(f"/services/{SERVICE}/{INSTANCE}/address")
        return f"http://{found.value.decode()}" if found is not None else None


class ApisixKit:
    """One value for all servers; the others' stay as they are."""

    settings: object = ApisixSettings()
    unheard: bool | None = None
    keeps = True

    def layout(self) -> KeyLayout | None:
        return None

    def listed(self, cluster: Cluster) -> str | None:
        found = cluster.get(f"/apisix/upstreams/{SERVICE}")
        nodes = json.loads(found.value)["nodes"] if found is not None else []
        urls = [
            f"http://{one['host']}:{one['port']}" for one in nodes if one["metadata"]["outrider_server"] == INSTANCE
        ]
        return urls[0] if urls else None


class NoneKit:
    """Nothing anywhere."""

    settings: object = None
    keeps = False
    unheard: bool | None = True

    def layout(self) -> KeyLayout | None:
        return None

    def listed(self, cluster: Cluster) -> str | None:
        assert () == cluster.list("").entries, "something was written"
        return None


BALANCER_KITS: Mapping[str, BalancerKit] = {
    "traefik": TraefikKit(),
    "agent": AgentKit(),
    "vulcand": VulcandKit(),
    "apisix": ApisixKit(),
    "keys": KeysKit(),
    "none": NoneKit(),
}
