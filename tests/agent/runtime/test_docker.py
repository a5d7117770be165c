from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from agent.runtime.docker import DockerRuntime
from agent.runtime.port import (
    ContainerSpec,
    ContainerState,
    CreateError,
    Credential,
    ImageError,
    Mount,
    Runtime,
)
from agent.runtime.pulled_images import PulledImages
from tests.contracts.runtime import RuntimeContract
from tests.contracts.runtime_networks import NETWORK
from tests.contracts.runtime_sandbox import a_sandbox
from tests.contracts.runtime_world import CLUSTER, MIB, NODE, ended, spec, started, text_of
from tests.docker_engine import DockerEngine, ImageRegistry

pytestmark = pytest.mark.docker

WALL_S = 1_700_000_000.0
SAYS_HELLO_ON_80 = ("sh", "-c", "while :; do echo hello | nc -l -p 80; done")
ASKS_80 = ("sh", "-c", "until nc 127.0.0.1 80; do sleep 0.1; done; hostname; cat /etc/resolv.conf")
# For user "me", password "secret".
ACCOUNT = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"


class DockerWorld:
    """Obeys `World`, on a real engine."""

    def __init__(self, engine: DockerEngine, registry: ImageRegistry, pulled_file: Path) -> None:
        self._engine = engine
        self._registry = registry
        self._pulled_file = pulled_file
        self._runtimes: list[Runtime] = []
        self._foreign: list[str] = []
        self._networks = [NETWORK.name]
        self.image = engine.image
        self.registry = registry.name
        self.runtime = self.another_agent(node=NODE)

    def another_agent(self, *, node: str) -> Runtime:
        runtime = DockerRuntime(
            cluster=CLUSTER,
            node=node,
            wall_s=lambda: WALL_S,
            socket=self._engine.socket,
            pulled_file=self._pulled_file,
        )
        self._runtimes.append(runtime)
        return runtime

    async def push(self, name: str) -> None:
        await asyncio.to_thread(self._engine.push, name)

    async def push_again(self, name: str) -> None:
        """Another image under that name; what is here under it stays (the registry has two names)."""
        await asyncio.to_thread(self._engine.push, name.replace("127.0.0.1", "localhost"))

    async def stop_registry(self) -> None:
        self._registry.stop()

    async def kill_container(self, container_id: str) -> None:
        await asyncio.to_thread(self._engine.call, "POST", f"containers/{container_id}/kill")

    async def remove_container(self, container_id: str) -> None:
        await asyncio.to_thread(self._engine.call, "DELETE", f"containers/{container_id}", force="1")

    async def pause(self, container_id: str) -> None:
        await asyncio.to_thread(self._engine.call, "POST", f"containers/{container_id}/pause")

    async def add_foreign(self, name: str) -> str:
        foreign = await asyncio.to_thread(self._engine.run, name, "sleep", "1000")
        self._foreign.append(foreign)
        return foreign

    async def add_foreign_network(self, name: str, subnet: str) -> None:
        self._networks.append(name)
        body = {"Name": name, "IPAM": {"Config": [{"Subnet": subnet}]}}
        await asyncio.to_thread(self._engine.call, "POST", "networks/create", body=body)

    async def is_running(self, container_id: str) -> bool:
        return await asyncio.to_thread(self._engine.is_running, container_id)

    async def close(self) -> None:
        for runtime in self._runtimes:
            for container in await runtime.list_containers():
                await self.remove_container(container.id)
        for foreign in self._foreign:
            with suppress(RuntimeError):
                await self.remove_container(foreign)
        for network in self._networks:
            with suppress(RuntimeError):
                await asyncio.to_thread(self._engine.call, "DELETE", f"networks/{network}")
        for image in PulledImages(self._pulled_file, lambda: WALL_S).oldest_first():
            with suppress(RuntimeError):
                await asyncio.to_thread(self._engine.call, "DELETE", f"images/{image.names[0]}")
        for runtime in self._runtimes:
            await runtime.aclose()


@pytest.fixture
async def world(
    docker_engine: DockerEngine, image_registry: ImageRegistry, tmp_path: Path
) -> AsyncIterator[DockerWorld]:
    world = DockerWorld(docker_engine, image_registry, tmp_path / "pulled.json")
    yield world
    await world.close()


class TestDockerRuntime(RuntimeContract):
    """The contract, on a real engine."""


class TestDockerLimits:
    async def test_the_kernel_is_told_of_requests_and_limits(
        self, world: DockerWorld, docker_engine: DockerEngine
    ) -> None:
        """A limit above what the host has is legal, as in Kubernetes."""
        made = await world.runtime.create(
            ContainerSpec(
                name="bay-contract-limits",
                image=world.image,
                labels={},
                command=("sleep", "9"),
                cpu_request_millis=500,
                cpu_limit_millis=900_000,
                memory_limit_bytes=32 * MIB,
                pids_limit=99,
            )
        )

        config = docker_engine.inspect(made.id)["HostConfig"]
        await world.runtime.start(made.id)

        assert config["CpuShares"] == 512
        assert config["CpuQuota"] / config["CpuPeriod"] == 900
        assert config["Memory"] == config["MemorySwap"] == 32 * MIB
        assert config["PidsLimit"] == 99
        assert config["RestartPolicy"]["Name"] == "no"
        assert config["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}

    async def test_a_limit_that_the_engine_refuses_says_so(self, world: DockerWorld) -> None:
        with pytest.raises(CreateError, match="Minimum memory limit"):
            await started(world, memory_limit_bytes=1000)

    async def test_args_replace_what_the_image_runs(
        self, world: DockerWorld, docker_engine: DockerEngine
    ) -> None:
        made = await world.runtime.create(
            ContainerSpec(
                name="bay-contract-args",
                image=world.image,
                labels={},
                args=("env",),
                env={"COLOUR": "red=blue"},
                working_dir="/bin",
                hostname="a" * 62 + "-b",
            )
        )

        config = docker_engine.inspect(made.id)["Config"]
        assert (config["Entrypoint"], config["Cmd"]) == (None, ["env"])
        assert "COLOUR=red=blue" in config["Env"]
        assert config["WorkingDir"] == "/bin"
        assert config["Hostname"] == "a" * 62


class TestDockerSandbox:
    async def test_those_that_join_it_speak_over_localhost_and_have_its_name(
        self, world: DockerWorld, docker_engine: DockerEngine, tmp_path: Path
    ) -> None:
        names = tmp_path / "resolv.conf"
        names.write_text("search shop.svc.cluster.local\n")
        sandbox = await a_sandbox(world)
        mounts = (Mount(source=str(names), target="/etc/resolv.conf"),)
        talks = replace(spec(world, "web"), joins=sandbox.id, mounts=mounts, command=SAYS_HELLO_ON_80)
        asks = replace(spec(world, "side"), joins=sandbox.id, mounts=mounts, command=ASKS_80)
        for each in (talks, asks):
            await world.runtime.start((await world.runtime.create(each)).id)
        side = await ended(world, await world.runtime.inspect(docker_engine.inspect(asks.name)["Id"]))

        said = world.runtime.logs(side.id, follow=False, tail=-1, since_s=0, timestamps=False)
        assert (await text_of(said))[0].split() == ["hello", "web-1", "search", "shop.svc.cluster.local"]

    async def test_its_image_is_made_again_when_somebody_has_removed_it(
        self, world: DockerWorld, docker_engine: DockerEngine
    ) -> None:
        image, _ = await world.runtime.ensure_sandbox_image()
        await asyncio.to_thread(docker_engine.call, "DELETE", f"images/{image}", force="1")

        again, _ = await world.runtime.ensure_sandbox_image()

        assert docker_engine.call("GET", f"images/{again}/json")

    async def test_ten_pods_make_it_once(self, world: DockerWorld) -> None:
        with structlog.testing.capture_logs() as logged:
            images = await asyncio.gather(*(world.runtime.ensure_sandbox_image() for _ in range(10)))

        assert len(set(images)) == 1
        assert len(logged) <= 1


class TestDockerImages:
    async def test_ten_pods_pull_an_image_once(self, world: DockerWorld) -> None:
        name = f"{world.registry}/app:1"
        await world.push(name)

        with structlog.testing.capture_logs() as logged:
            pulled = await asyncio.gather(
                *(world.runtime.ensure_image(name, policy="IfNotPresent", credentials={}) for _ in range(10))
            )

        assert len(set(pulled)) == 1
        assert [entry["event"] for entry in logged] == ["image.pull_started", "image.pulled"]

    async def test_a_tag_that_moves_is_seen_when_asked(self, world: DockerWorld) -> None:
        """And both versions can be pruned: each was pulled by us."""
        name = f"{world.registry}/app:1"
        await world.push(name)
        first = await world.runtime.ensure_image(name, policy="Always", credentials={})
        await world.push_again(name)

        assert await world.runtime.ensure_image(name, policy="IfNotPresent", credentials={}) == first
        second = await world.runtime.ensure_image(name, policy="Always", credentials={})

        assert second != first
        await world.runtime.prune_images(keep=frozenset(), target_bytes=10**12)
        for reference, _ in (first, second):
            with pytest.raises(ImageError, match="not on this node"):
                await world.runtime.ensure_image(reference, policy="Never", credentials={})

    async def test_a_new_agent_knows_what_was_pulled(self, world: DockerWorld) -> None:
        name = f"{world.registry}/app:1"
        await world.push(name)
        await world.runtime.ensure_image(name, policy="Always", credentials={})

        again = world.another_agent(node=NODE)

        assert await again.prune_images(keep=frozenset(), target_bytes=1) > 0

    async def test_a_private_registry_wants_the_right_account(
        self, world: DockerWorld, docker_engine: DockerEngine, tmp_path: Path
    ) -> None:
        (tmp_path / "private").mkdir()
        registry = ImageRegistry(tmp_path / "private", account=ACCOUNT)
        registry.start()
        try:
            name = f"{registry.name}/app:1"
            docker_engine.push(name, username="me", password="secret")
            right = Credential(registry=registry.name, username="me", password="secret")
            wrong = Credential(registry=registry.name, username="me", password="guess")

            for credentials in ({}, {registry.name: wrong}):
                with pytest.raises(ImageError, match=r"no basic auth|unauthorized") as caught:
                    await world.runtime.ensure_image(name, policy="Always", credentials=credentials)
                assert "guess" not in str(caught.value)
            await world.runtime.ensure_image(name, policy="Always", credentials={registry.name: right})
        finally:
            registry.stop()


class TestDockerStarts:
    async def test_twenty_at_once_all_run(self, world: DockerWorld) -> None:
        made = [await world.runtime.create(spec(world, f"many-{index}")) for index in range(20)]

        await asyncio.gather(*(world.runtime.start(container.id) for container in made))

        listed = await world.runtime.list_containers()
        assert [container.state for container in listed] == [ContainerState.RUNNING] * 20
        assert len({container.address for container in listed}) == 20


class TestDockerMounts:
    async def test_a_mounted_file_can_be_read_and_not_written(
        self, world: DockerWorld, tmp_path: Path
    ) -> None:
        source = tmp_path / "resolv.conf"
        source.write_text("nameserver 10.42.1.1\n")
        mount = Mount(source=str(source), target="/etc/resolv.conf")
        command = ("sh", "-c", "cat /etc/resolv.conf; echo x 2>&1 > /etc/resolv.conf || echo refused")
        made = await world.runtime.create(replace(spec(world, command=command), mounts=(mount,)))
        await world.runtime.start(made.id)

        await ended(world, made)
        pieces = world.runtime.logs(made.id, follow=False, tail=-1, since_s=0, timestamps=False)
        out, _ = await text_of(pieces)
        assert out.splitlines()[0] == "nameserver 10.42.1.1"
        assert out.splitlines()[-1] == "refused"
        assert source.read_text() == "nameserver 10.42.1.1\n"
