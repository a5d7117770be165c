"""Services, endpoints and ingresses, as users see them."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import yaml

from bayplan.cli.text import now_ms
from bayplan.v1 import agent_link_pb2 as agent
from bayplan.v1 import control_pb2 as control
from tests.bayplan.cli.conftest import DAY_MS, Bay, text
from tests.bayplan.client.fake_control import document


def a_service(name: str = "web", *, status: dict[str, Any] | None = None, **spec: Any) -> control.Document:
    """As the store holds it, with what the leader says of it; without `status` that is not known."""
    body = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]} | spec,
    }
    found = document(body, created_ms=now_ms() - 3 * DAY_MS)
    found.status_json = json.dumps(status) if status else ""
    return found


def an_ingress(*, status: dict[str, Any] | None = None, **spec: Any) -> control.Document:
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    rules = [
        {
            "host": "shop.example.org",
            "http": {"paths": [{"path": "/cart", "pathType": "Prefix", "backend": backend}]},
        }
    ]
    body = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "shop"},
        "spec": {"rules": rules} | spec,
    }
    found = document(body, created_ms=now_ms() - 3 * DAY_MS)
    found.status_json = json.dumps(status) if status else ""
    return found


def an_endpoint(number: int, *, ready: bool = True) -> agent.Endpoint:
    return agent.Endpoint(
        id=f"u1.{number}.1",
        node=f"n{number}",
        address=f"10.42.{number}.5",
        name=f"web-{number}-x7k4q",
        ports=[8080],
        ready=ready,
        weight=1,
    )


def endpoints(*found: agent.Endpoint, why: str = "") -> control.ServiceEndpoints:
    return control.ServiceEndpoints(
        namespace="default",
        name="web",
        ports=[agent.ServicePort(name="http", port=80)],
        endpoints=found,
        created_ms=now_ms() - 3 * DAY_MS,
        why=why,
    )


BALANCED = {"loadBalancer": {"ingress": [{"ip": "10.0.0.11"}, {"ip": "10.0.0.12"}]}}


class TestServices:
    async def test_show_what_the_leader_gave_them(self, bay: Bay) -> None:
        bay.control.documents = [
            a_service(status={"clusterIP": "10.96.0.5"}),
            a_service(
                "shop",
                type="LoadBalancer",
                status={"clusterIP": "10.96.0.6", "nodePorts": {"80/TCP": 30080}} | BALANCED,
            ),
            a_service(
                "dns",
                type="NodePort",
                ports=[{"port": 53, "protocol": "UDP", "nodePort": 30053}, {"port": 53}],
                status={"clusterIP": "10.96.0.7", "nodePorts": {"53/UDP": 30053, "53/TCP": 30054}},
            ),
            a_service("db", clusterIP="None", ports=[]),
            a_service("mail", type="ExternalName", externalName="mail.example.org", ports=[]),
        ]
        ended = await bay("get", "svc")

        assert ended.out == text("""
            NAME   TYPE           CLUSTER-IP   EXTERNAL-IP           PORT(S)                     AGE
            web    ClusterIP      10.96.0.5    <none>                80/TCP                      3d
            shop   LoadBalancer   10.96.0.6    10.0.0.11,10.0.0.12   80:30080/TCP                3d
            dns    NodePort       10.96.0.7    <none>                53:30053/UDP,53:30054/TCP   3d
            db     ClusterIP      None         <none>                <none>                      3d
            mail   ExternalName   <none>       mail.example.org      <none>                      3d
        """)

    async def test_show_the_port_that_was_given_and_not_the_one_that_was_asked_for(self, bay: Bay) -> None:
        bay.control.documents = [
            a_service(
                type="NodePort",
                ports=[{"port": 80, "nodePort": 30001}, {"port": 81, "nodePort": 30002}],
                status={
                    "clusterIP": "10.96.0.5",
                    "nodePorts": {"80/TCP": 30080},
                    "problem": "both are taken",
                },
            ),
            a_service("shop", type="NodePort", ports=[{"port": 80, "nodePort": 30003}]),
        ]
        ended = await bay("get", "svc")

        assert ended.out == text("""
            NAME   TYPE       CLUSTER-IP   EXTERNAL-IP   PORT(S)               AGE
            web    NodePort   10.96.0.5    <none>        80:30080/TCP,81/TCP   3d
            shop   NodePort   <pending>    <none>        80:30003/TCP          3d
        """)

    async def test_claim_nothing_while_it_is_not_known(self, bay: Bay) -> None:
        wished = a_service("db", clusterIP="10.96.0.9")
        bay.control.documents = [a_service(type="LoadBalancer"), wished]
        ended = await bay("get", "svc")

        assert ended.out == text("""
            NAME   TYPE           CLUSTER-IP   EXTERNAL-IP   PORT(S)   AGE
            web    LoadBalancer   <pending>    <pending>     80/TCP    3d
            db     ClusterIP      <pending>    <none>        80/TCP    3d
        """)

    async def test_wide_says_why_something_is_missing(self, bay: Bay) -> None:
        problem = "10.96.0.10 is the address of shop/db already"
        bay.control.documents = [a_service(status={"problem": problem})]
        ended = await bay("get", "svc", "-o", "wide")

        assert ended.out == text("""
            NAME   TYPE        CLUSTER-IP   EXTERNAL-IP   PORT(S)   AGE   SELECTOR   WHY
            web    ClusterIP   <pending>    <none>        80/TCP    3d    app=web    10.96.0.10 is the address of shop/db already
        """)

    async def test_described(self, bay: Bay) -> None:
        bay.control.documents = [
            a_service(
                type="LoadBalancer",
                sessionAffinity="ClientIP",
                externalTrafficPolicy="Local",
                ports=[{"name": "http", "port": 80, "targetPort": 8080, "appProtocol": "http"}],
                status={"clusterIP": "10.96.0.6", "nodePorts": {"80/TCP": 30080}, "problem": "too few"}
                | BALANCED,
            )
        ]
        bay.control.services = [endpoints(an_endpoint(1), an_endpoint(2), an_endpoint(3, ready=False))]
        ended = await bay("describe", "svc", "web")

        assert ended.code == 0, ended.err
        assert ended.out.partition("Selector:")[2] == text("""
                    app=web
            Type:            LoadBalancer
            Cluster IP:      10.96.0.6
            External IP:     10.0.0.11,10.0.0.12
            Port:            http  80/TCP (http)
            Target port:     8080/TCP
            Node port:       30080/TCP
            Endpoints:       10.42.1.5:8080,10.42.2.5:8080
            Affinity:        ClientIP (10800 s)
            External to:     Local
            Internal to:     Cluster
            Problem:         too few
            Events:          <none>
        """)

    async def test_described_before_the_leader_knows_them(self, bay: Bay) -> None:
        bay.control.documents = [a_service()]
        ended = await bay("describe", "svc/web")

        assert "Cluster IP:      <pending>\n" in ended.out
        assert "Endpoints:       <unknown>\n" in ended.out


class TestEndpoints:
    async def test_are_what_is_ready(self, bay: Bay) -> None:
        several = [an_endpoint(number) for number in (1, 2, 3, 4, 5)]
        bay.control.services = [endpoints(*several, an_endpoint(6, ready=False))]
        ended = await bay("get", "ep")

        assert ended.out == text("""
            NAME   ENDPOINTS                                                  AGE
            web    10.42.1.5:8080,10.42.2.5:8080,10.42.3.5:8080 + 2 more...   3d
        """)

    async def test_wide_shows_the_others_and_why(self, bay: Bay) -> None:
        bay.control.services = [endpoints(an_endpoint(1, ready=False), why="no pod is ready")]
        ended = await bay("get", "endpoints", "web", "-o", "wide")

        assert ended.out == text("""
            NAME   ENDPOINTS   AGE   NOT-READY        WHY
            web    <none>      3d    10.42.1.5:8080   no pod is ready
        """)

    async def test_of_a_label_are_those_of_services_with_it(self, bay: Bay) -> None:
        bay.control.services = [endpoints(an_endpoint(1))]
        ended = await bay("get", "ep", "-l", "team=blue")

        assert (ended.out, ended.code) == ("", 0)
        assert dict(bay.control.requests[-1].selector) == {"team": "blue"}

    async def test_yaml_is_kubernetes_own(self, bay: Bay) -> None:
        bay.control.services = [endpoints(an_endpoint(1), an_endpoint(2, ready=False))]
        ended = await bay("get", "ep", "web", "-o", "yaml")
        value = yaml.safe_load(ended.out)

        assert (value["apiVersion"], value["kind"], value["metadata"]["name"]) == ("v1", "Endpoints", "web")
        pod = {"kind": "Pod", "name": "web-1-x7k4q", "namespace": "default", "uid": "u1.1.1"}
        (subset,) = value["subsets"]
        assert subset["addresses"] == [{"ip": "10.42.1.5", "nodeName": "n1", "targetRef": pod}]
        assert [one["ip"] for one in subset["notReadyAddresses"]] == ["10.42.2.5"]
        assert subset["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]

    async def test_that_do_not_exist_are_an_error(self, bay: Bay) -> None:
        ended = await bay("get", "ep", "web")

        assert (ended.code, ended.err) == (1, 'error: endpoints "web" not found\n')

    async def test_are_watched(self, bay: Bay) -> None:
        bay.control.services = [endpoints(an_endpoint(1))]
        process = await bay.start("get", "ep", "-w")
        assert process.stdout is not None
        assert (await process.stdout.readline()).startswith(b"NAME")
        assert (await process.stdout.readline()).startswith(b"web    10.42.1.5:8080")
        bay.control.services = [endpoints(an_endpoint(1, ready=False))]
        assert (await process.stdout.readline()).startswith(b"web    <none>")
        process.send_signal(signal.SIGINT)
        await process.communicate()

        assert process.returncode == 130

    async def test_described(self, bay: Bay) -> None:
        bay.control.services = [endpoints(an_endpoint(1), an_endpoint(2, ready=False))]
        ended = await bay("describe", "ep", "web")

        assert ended.out.partition("Endpoints:\n")[2] == (
            "  ADDRESS     PORTS       READY   NODE   POD\n"
            "  10.42.1.5   http:8080   yes     n1     web-1-x7k4q\n"
            "  10.42.2.5   http:8080   no      n2     web-2-x7k4q\n"
        )

    async def test_by_hand_are_applied_and_deleted(self, bay: Bay, tmp_path: Path) -> None:
        path = tmp_path / "db.yaml"
        path.write_text(
            "apiVersion: v1\nkind: Endpoints\nmetadata: {name: db}\n"
            "subsets:\n- addresses: [{ip: 10.0.0.5}]\n  ports: [{port: 5432}]\n"
        )
        applied = await bay("apply", "-f", str(path))
        deleted = await bay("delete", "ep/db")

        assert (applied.out, applied.code) == ("endpoints/db created\n", 0)
        assert (deleted.out, deleted.code) == ('endpoints "db" deleted\n', 0)


class TestIngresses:
    async def test_in_kubectls_columns(self, bay: Bay) -> None:
        bay.control.documents = [
            an_ingress(
                ingressClassName="bayplan",
                tls=[{"secretName": "cert"}],
                rules=[{"host": f"{name}.org"} for name in "abca"] + [{"http": {"paths": []}}],
                status=BALANCED,
            )
        ]
        ended = await bay("get", "ing")

        assert ended.out == text("""
            NAME   CLASS     HOSTS                           ADDRESS               PORTS     AGE
            shop   bayplan   a.org,b.org,c.org + 1 more...   10.0.0.11,10.0.0.12   80, 443   3d
        """)

    async def test_without_rules_are_for_every_host(self, bay: Bay) -> None:
        bay.control.documents = [an_ingress(rules=[], status={"problem": "there is no service web"})]
        ended = await bay("get", "ingress", "-o", "wide")

        assert ended.out == text("""
            NAME   CLASS    HOSTS   ADDRESS     PORTS   AGE   WHY
            shop   <none>   *       <pending>   80      3d    there is no service web
        """)

    async def test_described(self, bay: Bay) -> None:
        default = {"service": {"name": "other", "port": {"name": "http"}}}
        tls = [{"secretName": "cert", "hosts": ["shop.example.org"]}]
        bay.control.documents = [an_ingress(defaultBackend=default, tls=tls, status=BALANCED)]
        ended = await bay("describe", "ing/shop")

        assert ended.out.partition("Class:")[2].lstrip() == text("""
            <none>
            Address:         10.0.0.11,10.0.0.12
            Default:         other:http
            TLS:
              cert for shop.example.org
            Rules:
              HOST               PATH    TYPE     SERVICE
              shop.example.org   /cart   Prefix   web:80
            Events:          <none>
        """)

    async def test_are_among_all(self, bay: Bay) -> None:
        bay.control.documents = [an_ingress(), a_service()]
        ended = await bay("get", "all", "-o", "name")

        assert ended.out == "service/web\ningress.networking.k8s.io/shop\n"

    async def test_are_deleted_by_their_short_name(self, bay: Bay) -> None:
        bay.control.documents = [an_ingress()]
        ended = await bay("delete", "ing", "shop")

        assert ended.out == 'ingress.networking.k8s.io "shop" deleted\n'
