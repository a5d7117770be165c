"""Every method of every service, tried over the wire as everybody who could call it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from bayplan.transport.grpc import join_channel
from tests.attacks.world import World

pytestmark = [pytest.mark.etcd, pytest.mark.asyncio(loop_scope="package")]

TABLE = Path(__file__).with_name("methods.md")
CALLERS = ("nobody", "node", "manager", "viewer", "operator", "admin")
REFUSED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
# A stream that says nothing for so long was let in.
SILENCE_S = 0.5

# Fields without which an empty request would be refused for what it lacks, or would change the cluster that we test
# with. RotateKeys has no such field: it is done.
REQUESTS: dict[str, dict[str, Any]] = {
    "bayplan.v1.Access/Join": {"certificate_request": b"none", "token": {"id": "0", "secret": "0"}},
    "bayplan.v1.Access/RotateCa": {"finish": True},  # Where no rotation is under way.
    "bayplan.v1.Control/Adopt": {"dry_run": True},
}


def table() -> dict[str, dict[str, bool]]:
    """methods.md: method → caller → whether it is let through."""
    found: dict[str, dict[str, bool]] = {}
    service = ""
    for line in TABLE.read_text().splitlines():
        if heading := re.fullmatch(r"## (\S+)", line):
            service = heading[1]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if service and len(cells) == 1 + len(CALLERS) and set(cells[1:]) <= {"yes", "-"}:
            answers = [cell == "yes" for cell in cells[1:]]
            found[f"{service}/{cells[0]}"] = dict(zip(CALLERS, answers, strict=True))
    return found


async def served_methods(world: World) -> dict[str, MethodDescriptor]:
    """What a live manager says of itself, as the admin sees it."""
    async with world.admin.channel(world.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)

        async def ask(**request: str) -> reflection_pb2.ServerReflectionResponse:
            async def requests() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
                yield reflection_pb2.ServerReflectionRequest(**request)

            return await anext(aiter(stub.ServerReflectionInfo(requests())))

        names = [each.name for each in (await ask(list_services="")).list_services_response.service]
        files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
        for name in names:
            answer = await ask(file_containing_symbol=name)
            for content in answer.file_descriptor_response.file_descriptor_proto:
                file = descriptor_pb2.FileDescriptorProto.FromString(content)
                files[file.name] = file
    pool = descriptor_pool.DescriptorPool()

    def add(file: descriptor_pb2.FileDescriptorProto) -> None:
        for dependency in file.dependency:
            if dependency in files:
                add(files.pop(dependency))
        pool.Add(file)

    while files:
        add(files.pop(next(iter(files))))
    services = [pool.FindServiceByName(name) for name in names]
    return {f"{service.full_name}/{each.name}": each for service in services for each in service.methods}


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt."""

    method: MethodDescriptor
    channel: grpc.aio.Channel

    async def outcome(self) -> grpc.StatusCode:
        """OK also for a stream that stays open."""
        request_class: Any = message_factory.GetMessageClass(self.method.input_type)
        reply_class: Any = message_factory.GetMessageClass(self.method.output_type)
        path = f"/{self.method.containing_service.full_name}/{self.method.name}"
        fields = REQUESTS.get(path[1:], {})
        request: Message = request_class(**fields)
        kinds = {
            (False, False): self.channel.unary_unary,
            (False, True): self.channel.unary_stream,
            (True, False): self.channel.stream_unary,
            (True, True): self.channel.stream_stream,
        }
        make: Any = kinds[bool(self.method.client_streaming), bool(self.method.server_streaming)]
        begin = make(path, request_class.SerializeToString, reply_class.FromString)
        call = begin() if self.method.client_streaming else begin(request)
        try:
            if self.method.client_streaming:
                await call.write(request)
            if not self.method.server_streaming:
                await call
            else:
                async with asyncio.timeout(SILENCE_S):
                    await call.read()
        except (TimeoutError, asyncio.InvalidStateError):
            pass
        except grpc.aio.AioRpcError as error:
            return error.code()
        if not call.done():
            call.cancel()
            return grpc.StatusCode.OK
        code: grpc.StatusCode = await call.code()
        return code


class TestMethods:
    async def test_the_table_has_every_method_that_is_served_and_no_other(self, world: World) -> None:
        """Whoever adds a method says in the table who may call it."""
        served = await served_methods(world)

        assert sorted(table()) == sorted(served)

    @pytest.mark.parametrize("manager", [0, 1])
    async def test_everybody_gets_through_to_what_the_table_says_and_to_nothing_else(
        self, world: World, manager: int
    ) -> None:
        """With a request that a method refuses for its content, so that nothing is done but for RotateKeys."""
        methods, allowed = await served_methods(world), table()
        # Failed attempts to join are rationed by address.
        address = await world.host(world.managers[manager])
        wrong: list[str] = []

        async def try_all(who: str, channel: grpc.aio.Channel) -> None:
            for name, method in sorted(methods.items()):
                if name.endswith("/RotateKeys") and allowed[name][who] and manager == 0:
                    continue  # It takes seconds: once is enough.
                code = await Call(method, channel).outcome()
                if (code not in REFUSED) != allowed[name][who]:
                    expected = "let through" if allowed[name][who] else "refused"
                    wrong.append(f"{name}: {who} should be {expected}, and got {code.name}")
                elif code in REFUSED and (code is grpc.StatusCode.UNAUTHENTICATED) != (who == "nobody"):
                    wrong.append(f"{name}: {who} was refused by {code.name}")

        async with AsyncExitStack() as stack, asyncio.TaskGroup() as callers:
            for who in CALLERS:
                made = (
                    join_channel(address, world.roots_pem, world.cluster)
                    if who == "nobody"
                    else world.members[who].channel(address)
                )
                callers.create_task(try_all(who, await stack.enter_async_context(made)))

        assert not wrong, "\n".join(["methods.md says otherwise:", *sorted(wrong)])

    async def test_refused_calls_change_nothing_and_are_written_down(self, world: World) -> None:
        """Each with who, which method, and why."""
        methods, allowed = await served_methods(world), table()
        address = await world.host()
        refused: set[tuple[str, str]] = set()

        async with world.unchanged(), AsyncExitStack() as stack:
            for who in CALLERS:
                made = (
                    join_channel(address, world.roots_pem, world.cluster)
                    if who == "nobody"
                    else world.members[who].channel(address)
                )
                channel = await stack.enter_async_context(made)
                for name, method in methods.items():
                    if not allowed[name][who]:
                        await Call(method, channel).outcome()
                        identity = "" if who == "nobody" else str(world.members[who].identity)
                        refused.add((identity, name))

        found = await world.audit(address=address.partition(":")[0])
        assert {(entry.who, entry.method) for entry in found} == refused
        assert all(entry.why and entry.outcome and not entry.allowed for entry in found)

    async def test_the_main_port_hears_nobody_without_a_certificate(self, world: World) -> None:
        """The handshake fails, so no method is reached and nothing is written down."""
        methods = await served_methods(world)
        address = await world.host()
        # join_channel adds one to the port.
        host, _, port = address.rpartition(":")
        channel = join_channel(f"{host}:{int(port) - 1}", world.roots_pem, world.cluster)

        async with channel:
            codes = await asyncio.gather(*(Call(each, channel).outcome() for each in methods.values()))

        assert set(codes) == {grpc.StatusCode.UNAVAILABLE}
        assert not await world.audit(denied=False, address=host)

    async def test_at_the_join_port_an_admin_is_nobody(self, world: World) -> None:
        """No certificate is asked for there, so none counts."""
        methods, allowed = await served_methods(world), table()
        host, _, port = (await world.host()).rpartition(":")

        async with world.admin.channel(f"{host}:{int(port) + 1}") as channel:
            codes = {name: await Call(each, channel).outcome() for name, each in methods.items()}

        heard = {name for name, code in codes.items() if code not in REFUSED}
        assert heard == {name for name, callers in allowed.items() if callers["nobody"]}

    async def test_an_unknown_method_is_not_served(self, world: World) -> None:
        async with world.admin.channel(world.address) as channel:
            call: Any = channel.unary_unary("/bayplan.v1.Control/Destroy")

            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call(b"")

        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
