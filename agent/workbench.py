"""What every pod's runner works with."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from agent.engine import Engine
from agent.images import Images
from agent.journal import Journal
from agent.metrics import AgentMetrics
from agent.network.port import PodNetwork
from agent.probes.port import Prober
from agent.runtime.port import Runtime
from agent.status_board import StatusBoard
from agent.tables import Tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """One per agent."""

    node: str
    address: str  # Where other hosts reach this one.
    runtime: Runtime
    prober: Prober
    engine: Engine
    images: Images
    board: StatusBoard
    journal: Journal
    wall_s: Callable[[], float]  # Seconds since the Unix epoch.
    chance: random.Random
    network: PodNetwork
    tables: Tables
    metrics: AgentMetrics
