from __future__ import annotations

import importlib
import pkgutil
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

import bayplan.v1
from bayplan.v1 import access_pb2, callers_pb2, control_pb2
from bayplan.v1.callers_pb2 import ROLE_ADMIN, ROLE_OPERATOR, ROLE_VIEWER, Callers
from manager.access.methods import FOREIGN, UndeclaredMethodError, callers_of, target_of, words_of_callers
from manager.manager import SERVICES


def every_service() -> list[ServiceDescriptor]:
    """Of proto/, served or not."""
    modules = [
        importlib.import_module(f"bayplan.v1.{found.name}")
        for found in pkgutil.iter_modules(bayplan.v1.__path__)
        if found.name.endswith("_pb2")
    ]
    return [service for module in modules for service in module.DESCRIPTOR.services_by_name.values()]


def undeclared(service: ServiceDescriptor) -> list[str]:
    options: list[tuple[str, Any]] = [(each.name, each.GetOptions()) for each in service.methods]
    return [
        f"{service.full_name}/{name}"
        for name, declared in options
        if declared.Extensions[callers_pb2.callers] == Callers()
    ]


class TestProto:
    def test_every_method_says_who_may_call_it(self) -> None:
        """Who adds a method must decide it: it is a line of the proto, and seen in its review."""
        missing = [name for service in every_service() for name in undeclared(service)]

        assert not missing, f"give these the option `callers` in proto/: {missing}"

    def test_a_manager_serves_every_service(self) -> None:
        assert {service.full_name for service in every_service()} == {each.full_name for each in SERVICES}

    def test_no_method_but_joining_is_for_everybody(self) -> None:
        found = callers_of(SERVICES)

        assert {path for path, callers in found.items() if callers.anyone} == {
            "/bayplan.v1.Access/Join",
            "/grpc.health.v1.Health/Check",
            "/grpc.health.v1.Health/Watch",
        }

    def test_what_is_not_ours_is_declared_too(self) -> None:
        assert FOREIGN.items() <= callers_of(SERVICES).items()
        assert len(callers_of(SERVICES)) == len(FOREIGN) + sum(len(each.methods) for each in SERVICES)

    def test_a_method_that_says_nothing_is_named(self) -> None:
        """A manager does not start with it."""
        file = descriptor_pb2.FileDescriptorProto(name="forgotten.proto", package="test")
        file.message_type.add(name="Nothing")
        service = file.service.add(name="Forgetful")
        service.method.add(name="Reboot", input_type=".test.Nothing", output_type=".test.Nothing")
        pool = descriptor_pool.DescriptorPool()
        pool.Add(file)

        with pytest.raises(UndeclaredMethodError) as caught:
            callers_of([pool.FindServiceByName("test.Forgetful")])

        assert str(caught.value) == (
            "test.Forgetful/Reboot does not say who may call it: give it the option `callers` in proto/"
        )


class TestWords:
    @pytest.mark.parametrize(
        ("callers", "words"),
        [
            (Callers(user=ROLE_VIEWER), "viewers, operators and admins"),
            (Callers(user=ROLE_OPERATOR), "operators and admins"),
            (Callers(user=ROLE_ADMIN), "admins"),
            (Callers(node=True), "nodes"),
            (Callers(manager=True), "managers"),
            (Callers(node=True, manager=True), "nodes and managers"),
            (Callers(user=ROLE_ADMIN, node=True, manager=True), "admins, nodes and managers"),
        ],
    )
    def test_say_whom_a_method_is_for(self, callers: Callers, words: str) -> None:
        assert words_of_callers(callers) == words

    def test_there_are_some_for_every_method(self) -> None:
        assert all(words_of_callers(each) for each in callers_of(SERVICES).values() if not each.anyone)


class TestTarget:
    @pytest.mark.parametrize(
        ("request_", "target"),
        [
            (control_pb2.GetRequest(kind="Secret", namespace="default", name="db"), "Secret/default/db"),
            (control_pb2.GetRequest(name="db"), "db"),
            (access_pb2.RevokeIdentityRequest(kind="node", name="n1"), "node/n1"),
            (access_pb2.RevokeJoinTokenRequest(id="0123456789"), "0123456789"),
            (control_pb2.VersionRequest(), ""),
        ],
    )
    def test_is_what_a_request_names(self, request_: Message, target: str) -> None:
        assert target_of(request_) == target

    def test_is_no_secret(self) -> None:
        """It is written into the record of calls."""
        proof = access_pb2.TokenProof(id="0123456789", secret="hunter2")
        join = access_pb2.JoinRequest(certificate_request=b"hunter2", name="n1", token=proof)
        key = access_pb2.TakeClusterKeyRequest(id="k1", key=b"hunter2")
        login = control_pb2.SetRegistryRequest(registry="r", username="hunter2", password="hunter2")

        assert [target_of(each) for each in (join, key, login)] == ["n1", "k1", "r"]

    async def test_of_a_stream_is_not_known_before_it_is_read(self) -> None:
        async def requests() -> AsyncGenerator[control_pb2.ExecInput, None]:
            yield control_pb2.ExecInput()

        stream = requests()
        assert target_of(stream) == ""
        await stream.aclose()
