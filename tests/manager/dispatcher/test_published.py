from __future__ import annotations

import asyncio
import base64
import json

import pytest

from bayplan.identity.certificates import key_to_pem, new_root, to_pem
from bayplan.v1 import agent_link_pb2 as wire
from bayplan.v1 import control_pb2 as api
from tests.manager.dispatcher.serving import serving
from tests.manager.world import WALL_S, a_service

pytestmark = pytest.mark.virtual_time


class TestPortProblems:
    async def test_are_told_once_and_shown_until_they_are_over(self) -> None:
        async with serving("n1", "n2", type="LoadBalancer") as world:
            n1 = world.agents[0]
            problem = wire.PortProblem(
                service="default/web", address="n1", port=80, message="taken by nginx (pid 12)"
            )

            async def addresses() -> list[str]:
                reply = await world.control().Get(api.GetRequest(kind="Service", name="web"))
                ingress = json.loads(reply.document.status_json)["loadBalancer"]["ingress"]
                return [each["hostname"] for each in ingress]

            assert await addresses() == ["n1", "n2"]
            for _ in range(3):
                n1.apply_traffic(problem)
            await asyncio.sleep(0.1)
            assert await addresses() == ["n2"]
            problems = world.leadership.dispatcher.traffic.port_problems
            assert problems.problem_of("default/web", "n1") == "port 80 is taken by nginx (pid 12)"
            assert problems.problem_of("default/web", "n2") == ""
            n1.apply_traffic()
            await asyncio.sleep(0.1)
            assert await addresses() == ["n1", "n2"]
            events = (await world.control().ListEvents(api.ListEventsRequest(object="Service/web"))).events

            assert [
                (event.reason, event.message, event.count) for event in events if "Port" in event.reason
            ] == [
                ("PortTaken", "port 80 of n1 (n1) is taken by nginx (pid 12)", 1),
                ("PortFree", "port 80 of n1 (n1) could be had after all, or is not asked for any more", 1),
            ]

    async def test_are_told_of_what_they_are_about(self) -> None:
        async with serving("n1") as world:
            (n1,) = world.agents
            n1.apply_traffic(
                wire.PortProblem(service="ingress", address="192.0.2.1", port=80, message="taken by nginx"),
                wire.PortProblem(service="default/web", address="host", port=80, message="this is a name"),
                wire.PortProblem(service="default/cert", port=443, message="the certificate is old"),
                wire.PortProblem(service="default/db", message="not served: it has no name"),
            )
            await asyncio.sleep(0.1)
            events = (await world.control().ListEvents(api.ListEventsRequest())).events
            told = {(e.namespace, e.object): (e.reason, e.message) for e in events}

            assert told["", "Cluster/ingress"] == ("PortTaken", "port 80 of n1 (192.0.2.1) is taken by nginx")
            assert told["default", "Secret/cert"] == ("ProxyProblem", "n1: the certificate is old")
            assert told["default", "Service/db"] == ("ProxyProblem", "n1: not served: it has no name")
            assert ("default", "Service/web") in told
            assert any(e.message == "port 80 of n1 (host) is not published: this is a name" for e in events)

    async def test_of_the_ingress_are_in_its_status(self) -> None:
        async with serving("n1", "n2") as world:
            await world.apply(an_ingress("cert"))
            await world.until(lambda: bool(world.agents[0].traffic.ingress.rules), within_s=5)
            n1 = world.agents[0]
            n1.apply_traffic(wire.PortProblem(service="ingress", address="n1", port=80, message="taken by x"))
            await asyncio.sleep(0.1)
            reply = await world.control().Get(api.GetRequest(kind="Ingress", name="front"))

            assert json.loads(reply.document.status_json)["loadBalancer"] == {"ingress": [{"hostname": "n2"}]}


class TestIngress:
    async def test_asks_for_no_port_that_is_a_services(self) -> None:
        async with serving("n1", type="LoadBalancer") as world:
            (agent,) = world.agents
            await world.apply(an_ingress("cert"), a_tls_secret("cert"))
            await world.until(lambda: bool(agent.traffic.ingress.rules), within_s=5)
            await asyncio.sleep(0.2)

            assert list(agent.traffic.ingress.ports) == [443]

    async def test_without_any_port_is_not_told(self) -> None:
        ports = [{"name": "http", "port": 80}, {"name": "https", "port": 443}]
        async with serving("n1", type="LoadBalancer", ports=ports) as world:
            (agent,) = world.agents
            await world.apply(an_ingress("cert"), a_tls_secret("cert"))
            await asyncio.sleep(1)
            assert agent.traffic.ingress == wire.Ingress()
            await world.apply(a_service())
            await world.until(lambda: list(agent.traffic.ingress.ports) == [80, 443], within_s=5)

            assert len(agent.traffic.ingress.rules) == 1

    async def test_is_told_with_its_certificates_and_follows_them(self) -> None:
        async with serving("n1") as world:
            (agent,) = world.agents
            await world.apply(an_ingress("cert"))
            await world.until(lambda: len(agent.traffic.ingress.rules) == 1, within_s=5)
            assert not agent.traffic.ingress.certificates
            events = (await world.control().ListEvents(api.ListEventsRequest(object="Ingress/front"))).events
            assert [e.message for e in events if e.reason == "IngressProblem"] == [
                "the secret cert does not exist: no TLS with it"
            ]
            await world.apply(a_tls_secret("cert"))
            await world.until(lambda: len(agent.traffic.ingress.certificates) == 1, within_s=5)
            (certificate,) = agent.traffic.ingress.certificates
            (rule,) = agent.traffic.ingress.rules

            assert (certificate.name, list(certificate.hosts)) == ("default/cert", ["shop.example.org"])
            assert b"PRIVATE KEY" in certificate.key_pem
            assert (rule.host, rule.path, rule.service, rule.port) == (
                "shop.example.org", "/", "default/web", 80
            )  # fmt: skip


def an_ingress(secret: str) -> str:
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    return json.dumps(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": "front"},
            "spec": {
                "tls": [{"secretName": secret, "hosts": ["shop.example.org"]}],
                "rules": [{"host": "shop.example.org", "http": {"paths": [path]}}],
            },
        }
    )


def a_tls_secret(name: str) -> str:
    root = new_root("test", now_s=WALL_S)
    chain, key = to_pem(root.certificate), key_to_pem(root.key)
    data = {"tls.crt": base64.b64encode(chain).decode(), "tls.key": base64.b64encode(key).decode()}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "type": "kubernetes.io/tls",
            "data": data,
        }
    )
