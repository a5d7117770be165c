"""The key of the root is in a thief's hands: what ends that, and what does not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from bayplan.identity import certificates
from bayplan.identity.names import Kind
from bayplan.v1 import access_pb2 as access
from bayplan.v1.access_pb2_grpc import AccessStub
from tests.attacks.world import World, denial, live_world

pytestmark = [pytest.mark.etcd, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """Of its own: afterwards nobody's certificate is good."""
    async with live_world(tmp_path_factory.mktemp("stolen")) as made:
        yield made


async def test_another_root_at_once_ends_what_was_forged_before_and_during_it(world: World) -> None:
    thief = world.signed(world.identity(Kind.USER, "admin"))
    later = world.signed(world.identity(Kind.MANAGER, "m2"))
    async with thief.channel(world.address) as held:
        assert (await AccessStub(held).WhoAmI(access.WhoAmIRequest())).identity == str(thief.identity)
        await world.access().RotateCa(access.RotateCaRequest(stolen=True))

        # On the connection that is open, and by the ways to another certificate.
        request = certificates.certificate_request(certificates.new_key())
        denied = [
            await denial(AccessStub(held).WhoAmI(access.WhoAmIRequest(), timeout=5)),
            await denial(AccessStub(held).Renew(access.RenewRequest(certificate_request=request), timeout=5)),
        ]
    assert {each.code for each in denied} == {grpc.StatusCode.UNAUTHENTICATED}
    for member in (thief, later):
        for manager in world.managers:
            async with member.channel(manager.address) as channel:
                answer = await denial(AccessStub(channel).WhoAmI(access.WhoAmIRequest(), timeout=5))
                assert answer.code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED}


async def test_managers_go_on_and_let_in_who_shows_a_new_token(world: World) -> None:
    first = world.managers[0]
    path = await first.access.new_admin_token()
    admin = await world.log_in(path.read_text())
    async with admin.channel(first.address) as channel:
        ca = await AccessStub(channel).ShowCa(access.ShowCaRequest(), timeout=5)

    assert len(ca.roots) == 1
    assert "node n1" in ca.waiting
    assert not {each for each in ca.waiting if each in {"manager m1", "manager m2"}}
