from __future__ import annotations

import pytest

from bayplan.v1 import access_pb2 as access
from tests.attacks.world import World

pytestmark = [pytest.mark.etcd, pytest.mark.asyncio(loop_scope="package")]


class TestX:
    async def test_who(self, world: World) -> None:
        print(await world.access().WhoAmI(access.WhoAmIRequest()))
        print(await world.guarded())
