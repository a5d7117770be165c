from __future__ import annotations

import asyncio
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from manager.metrics import LAG_EVERY_S, LeaderFigures, ManagerFigures, ManagerMetrics

LEADS = ManagerFigures(
    epoch=7,
    store_revision=1234,
    leader=LeaderFigures(
        nodes={"Ready": 3, "Down": 1},
        pods={"Running": 40},
        services=5,
        agents=3,
        queues={"commit": 2},
    ),
)
APPLY = "/bayplan.v1.Control/Apply"


def metrics(figures: ManagerFigures = LEADS) -> ManagerMetrics:
    return ManagerMetrics(lambda: figures, methods={APPLY})


async def samples(of: ManagerMetrics) -> dict[str, float]:
    """As Prometheus reads the page: `name{label}` and the value."""
    page = (await of.page()).decode()
    return {
        sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


class TestPage:
    async def test_of_a_leader(self) -> None:
        found = await samples(metrics())

        assert found["bayplan_leader"] == 1
        assert found["bayplan_epoch"] == 7
        assert found["bayplan_store_revision"] == 1234
        assert found["bayplan_nodes{Ready}"] == 3
        assert found["bayplan_nodes{Down}"] == 1
        assert found["bayplan_pods{Running}"] == 40
        assert found["bayplan_services"] == 5
        assert found["bayplan_agents_connected"] == 3
        assert found["bayplan_queue_length{commit}"] == 2

    async def test_of_one_that_does_not_lead_says_nothing_of_nodes(self) -> None:
        """Three managers, of which one knows: a sum over them must be what it says."""
        found = await samples(metrics(ManagerFigures(epoch=7, store_revision=1234, leader=None)))

        assert found["bayplan_leader"] == 0
        assert [
            name for name in found if name.startswith(("bayplan_nodes", "bayplan_pods", "bayplan_agents"))
        ] == []

    async def test_times_commits(self) -> None:
        counted = metrics()
        counted.committed(0.004)
        counted.committed(0.3)
        found = await samples(counted)

        assert found["bayplan_commit_seconds_count"] == 2
        assert found["bayplan_commit_seconds_bucket{0.005}"] == 1

    async def test_counts_calls_by_method_and_outcome(self) -> None:
        counted = metrics()
        for code in ("OK", "OK", "PERMISSION_DENIED"):
            counted.called(APPLY, code)
        found = await samples(counted)

        assert found["bayplan_api_calls_total{OK}{" + APPLY + "}"] == 2
        assert found["bayplan_api_calls_total{PERMISSION_DENIED}{" + APPLY + "}"] == 1

    async def test_calls_of_methods_that_there_are_not_make_no_series(self) -> None:
        """Anybody can call anything."""
        counted = metrics()
        for number in range(1000):
            counted.called(f"/made.up/{number}", "UNIMPLEMENTED")
        found = await samples(counted)

        assert found["bayplan_api_calls_total{UNIMPLEMENTED}{other}"] == 1000
        assert len([name for name in found if name.startswith("bayplan_api_calls_total")]) == 1


class TestLag:
    @pytest.mark.virtual_time
    async def test_of_a_loop_that_is_free_is_none(self) -> None:
        counted = metrics()
        task = asyncio.ensure_future(counted.run())
        await asyncio.sleep(LAG_EVERY_S * 10 + 0.1)
        task.cancel()
        found = await samples(counted)

        assert (
            found["bayplan_loop_lag_seconds_bucket{0.001}"] == found["bayplan_loop_lag_seconds_count"] == 10
        )

    async def test_of_one_that_was_held_up_is_seen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("manager.metrics.LAG_EVERY_S", 0.01)
        counted = metrics()
        task = asyncio.ensure_future(counted.run())
        await asyncio.sleep(0)
        time.sleep(0.06)  # noqa: ASYNC251 - this is the fault
        await asyncio.sleep(0.03)
        task.cancel()

        assert (await samples(counted))["bayplan_loop_lag_seconds_sum"] >= 0.05
