"""Which finished containers go. Pure.

The last two finished containers of a slot stay a day, so that `logs -p` can show why something
ended. A container that was made and never started has no log and goes sooner.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from agent.next_step import attempt_of
from agent.runtime.port import LABEL_POD, Container, ContainerState
from bayplan.model.names import PodId

KEPT_PER_SLOT = 2
KEPT_S = 24 * 3600.0
# Long enough that no create is still on its way to its start.
NEVER_STARTED_S = 60.0


def leftovers(containers: Iterable[Container], pods: Collection[str], *, now_s: float) -> list[Container]:
    """What may be removed.

    Args:
        containers: all of ours.
        pods: uids of the pods that the agent still looks after: their newest container stays.
        now_s: Unix epoch.
    """
    newest: dict[str, tuple[int, float, str]] = {}
    everything = list(containers)
    for container in everything:
        pod = container.labels.get(LABEL_POD, "")
        order = (attempt_of(container), container.created_s, container.id)
        newest[pod] = max(newest.get(pod, order), order)
    current = {order[2] for pod, order in newest.items() if pod in pods}
    removable = []
    finished: dict[str, list[Container]] = {}
    for container in everything:
        if container.id in current:
            continue
        if container.state is ContainerState.EXITED:
            finished.setdefault(_slot(container), []).append(container)
        elif container.state is ContainerState.CREATED and now_s - container.created_s > NEVER_STARTED_S:
            removable.append(container)
    for group in finished.values():
        group.sort(key=lambda each: (each.finished_s, each.id), reverse=True)
        removable += [
            container
            for index, container in enumerate(group)
            if index >= KEPT_PER_SLOT or now_s - container.finished_s > KEPT_S
        ]
    return removable


def of_slot(containers: Iterable[Container], pod_uid: str) -> list[Container]:
    """Containers of the pod's slot that have ever run, the newest first: for `logs -p`."""
    slot = _slot_of(pod_uid)
    ran = [each for each in containers if _slot(each) == slot and each.started_s > 0]
    return sorted(ran, key=lambda each: (each.started_s, each.id), reverse=True)


def _slot(container: Container) -> str:
    return _slot_of(container.labels.get(LABEL_POD, ""))


def _slot_of(pod_uid: str) -> str:
    try:
        pod = PodId.parse(pod_uid)
    except ValueError:
        return pod_uid
    return f"{pod.workload_uid}.{pod.slot}"
