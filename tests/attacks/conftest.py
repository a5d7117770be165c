"""One cluster for the whole package, on one event loop; its managers' logs go to a file, at level debug."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import structlog

from tests.attacks.world import World, live_world


@pytest.fixture(scope="package")
def log_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """As bayplan/log.py renders it, so that what is looked for in it is what operators would find."""
    before = structlog.get_config()
    path = tmp_path_factory.mktemp("attacks") / "managers.log"
    with path.open("w") as file:
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
            wrapper_class=structlog.make_filtering_bound_logger("debug"),
            logger_factory=structlog.WriteLoggerFactory(file),
        )
        yield path
        structlog.configure(**before)


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def world(log_file: Path) -> AsyncIterator[World]:
    async with live_world(log_file.parent) as made:
        yield made
