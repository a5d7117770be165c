"""Which finished containers go. Pure.

Of each container of a slot the last two that finished stay a day, so that `logs -p` can show why something
ended. A container that was made and never started, and a sandbox, have no log and go sooner.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from agent.next_step import attempt_of
from agent.pod_spec import UNNAMED
from agent.runtime.port import LABEL_CONTAINER, LABEL_POD, SANDBOX, Container, ContainerState
from bayplan.model.names import PodId

KEPT_PER_SLOT = 2
KEPT_S = 24 * 3600.0
# Long enough that no create is still on its way to its start.
NO_LOG_S = 60.0


def leftovers(containers: Iterable[Container], pods: Collection[str], *, now_s: float) -> list[Container]:
    """What may be removed.

    Args:
        containers: all of ours.
        pods: uids of the pods that the agent still looks after: the newest of each of their containers stays.
        now_s: Unix epoch.
    """
    newest: dict[tuple[str, str], tuple[int, float, str]] = {}
    everything = list(containers)
    for container in everything:
        line = (container.labels.get(LABEL_POD, ""), _name(container))
        order = (attempt_of(container), container.created_s, container.id)
        newest[line] = max(newest.get(line, order), order)
    current = {order[2] for (pod, _), order in newest.items() if pod in pods}
    removable = []
    finished: dict[tuple[str, str], list[Container]] = {}
    for container in everything:
        if container.id in current:
            continue
        if container.state is ContainerState.EXITED and _name(container) != SANDBOX:
            finished.setdefault((_slot(container), _name(container)), []).append(container)
        elif now_s - _unused_since_s(container) > NO_LOG_S:
            removable.append(container)
    for group in finished.values():
        group.sort(key=lambda each: (each.finished_s, each.id), reverse=True)
        removable += [
            container
            for index, container in enumerate(group)
            if index >= KEPT_PER_SLOT or now_s - container.finished_s > KEPT_S
        ]
    return removable


def of_slot(containers: Iterable[Container], pod_uid: str, name: str) -> list[Container]:
    """Containers of one name in the pod's slot that have ever run, the newest first: for `logs -p`."""
    slot = _slot_of(pod_uid)
    ran = [each for each in containers if (_slot(each), _name(each)) == (slot, name) and each.started_s > 0]
    return sorted(ran, key=lambda each: (each.started_s, each.id), reverse=True)


def _unused_since_s(container: Container) -> float:
    """When it was made, or ended; a moment that never comes while it lives."""
    match container.state:
        case ContainerState.CREATED:
            return container.created_s
        case ContainerState.EXITED:
            return container.finished_s
        case _:
            return math.inf


def _name(container: Container) -> str:
    return container.labels.get(LABEL_CONTAINER, UNNAMED)


def _slot(container: Container) -> str:
    return _slot_of(container.labels.get(LABEL_POD, ""))


def _slot_of(pod_uid: str) -> str:
    try:
        pod = PodId.parse(pod_uid)
    except ValueError:
        return pod_uid
    return f"{pod.workload_uid}.{pod.slot}"
