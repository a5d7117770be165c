"""A manager whose cluster key comes from an operator's command. On real time: a child process does not jump."""

from __future__ import annotations

import random
from pathlib import Path

from manager.access.access import begin
from manager.access.settings import AccessSettings
from manager.store.sealing import ClusterKey
from tests.fakes.store import FakeEtcd, FakeStore
from tests.manager.access.world import DAY_S, Clock


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


class TestTheKeyOfACommand:
    async def test_founds_a_cluster_and_is_not_written_to_disk(
        self, server: FakeEtcd, clock: Clock, tmp_path: Path
    ) -> None:
        key = ClusterKey.generate()
        settings = AccessSettings(
            data_dir=tmp_path, join="", join_token="", join_token_file=None,
            cluster_key_command=f"echo {key.to_text()}", certificate_life_s=DAY_S, insecure_loopback=False,
        )  # fmt: skip
        for _ in range(2):
            access = await begin(
                settings,
                manager_id="m1",
                etcd=FakeStore(server, "m1"),
                wall_s=clock,
                chance=random.Random(1),
            )

        assert access.store.cluster_key_id == access.cluster_keys.current()[1] == key.id
        written = files(tmp_path)
        assert written.keys() == {"admin.token", "identity.pem", "roots.pem"}
        assert not any(key.to_text().encode() in content for content in written.values())
