from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.dns.publisher import LOOK_EVERY_S, RETRY_S, WRITE_EVERY_S, ZonePublisher
from agent.dns.zone_file import FILE_NAME, write_zone
from agent.network.table import NetworkTable
from tests.agent.dns.builders import a_network, a_service, a_traffic, an_endpoint, lines_of

pytestmark = pytest.mark.virtual_time


class TestPublisher:
    async def test_writes_at_once_and_then_what_came_meanwhile_together(self, tmp_path: Path) -> None:
        file, publisher = tmp_path / FILE_NAME, ZonePublisher(tmp_path)
        async with asyncio.TaskGroup() as parts:
            running = parts.create_task(publisher.run())
            publisher.use(a_network(), a_traffic(a_service("a")))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert '"a"' in file.read_text()

            publisher.use(a_network(), a_traffic(a_service("b")))
            publisher.use(a_network(), a_traffic(a_service("c")))
            await asyncio.sleep(WRITE_EVERY_S / 2)
            assert '"a"' in file.read_text()
            await asyncio.sleep(WRITE_EVERY_S)
            assert file.read_text().splitlines() == lines_of(a_traffic(a_service("c")))
            running.cancel()

    async def test_leaves_the_file_alone_when_nothing_in_it_changes(self, tmp_path: Path) -> None:
        file, publisher = tmp_path / FILE_NAME, ZonePublisher(tmp_path)
        async with asyncio.TaskGroup() as parts:
            running = parts.create_task(publisher.run())
            publisher.use(a_network(), a_traffic(a_service(vip="10.96.0.7")))
            await asyncio.sleep(1)
            first = file.stat().st_ino
            publisher.use(a_network(), a_traffic(a_service(vip="10.96.0.7"), web=[an_endpoint("127.42.3.9")]))
            await asyncio.sleep(1)

            assert file.stat().st_ino == first
            running.cancel()

    async def test_writes_nothing_while_the_node_has_no_network(self, tmp_path: Path) -> None:
        publisher = ZonePublisher(tmp_path)
        async with asyncio.TaskGroup() as parts:
            running = parts.create_task(publisher.run())
            publisher.use(NetworkTable(), a_traffic())
            await asyncio.sleep(1)

            assert not (tmp_path / FILE_NAME).exists()
            running.cancel()

    async def test_a_file_that_somebody_deleted_is_written_again(self, tmp_path: Path) -> None:
        file, publisher = tmp_path / FILE_NAME, ZonePublisher(tmp_path)
        async with asyncio.TaskGroup() as parts:
            running = parts.create_task(publisher.run())
            publisher.use(a_network(), a_traffic())
            await asyncio.sleep(1)
            file.unlink()
            await asyncio.sleep(LOOK_EVERY_S + 1)

            assert file.read_text().splitlines() == lines_of(a_traffic())
            running.cancel()

    async def test_an_agent_that_knows_nothing_yet_leaves_what_the_one_before_it_wrote(
        self, tmp_path: Path
    ) -> None:
        """Its copy of the services is damaged, and no manager answers: names go on."""
        file, publisher = tmp_path / FILE_NAME, ZonePublisher(tmp_path)
        before = lines_of(a_traffic(a_service(vip="10.96.0.7")))
        write_zone(file, before)
        async with asyncio.TaskGroup() as parts:
            running = parts.create_task(publisher.run())
            publisher.use(a_network(), a_traffic(version=0))
            await asyncio.sleep(1)
            assert file.read_text().splitlines() == before

            publisher.use(a_network(), a_traffic())
            await asyncio.sleep(1)
            assert file.read_text().splitlines() == lines_of(a_traffic())
            running.cancel()

    async def test_tries_again_where_it_cannot_write(self, tmp_path: Path) -> None:
        blocked = tmp_path / "run"
        blocked.write_text("in the way")
        publisher = ZonePublisher(blocked)
        async with asyncio.TaskGroup() as parts:
            running = parts.create_task(publisher.run())
            publisher.use(a_network(), a_traffic())
            await asyncio.sleep(RETRY_S / 2)
            blocked.unlink()
            await asyncio.sleep(RETRY_S)

            assert (blocked / FILE_NAME).read_text().splitlines() == lines_of(a_traffic())
            running.cancel()
