from __future__ import annotations

import json

from bayplan.v1 import agent_link_pb2 as wire
from manager.cluster_state import ClusterState
from manager.dispatcher.session import NodeSession
from manager.past import plan_adoption
from manager.store import keys
from manager.store.port import Put

TEMPLATE = {
    "metadata": {"labels": {"app": "web"}},
    "spec": {"containers": [{"name": "web", "image": "web:1"}]},
}


def running(slot: int, *, template: bool) -> wire.PodStatus:
    incarnation = slot + 1
    return wire.PodStatus(
        uid=f"a1.{slot}.{incarnation}",
        state=wire.POD_STATE_RUNNING,
        assignment=wire.Assignment(
            uid=f"a1.{slot}.{incarnation}",
            workload_kind="Deployment",
            namespace="default",
            workload="web",
            workload_uid="a1",
            slot=slot,
            incarnation=incarnation,
            revision="0123abcd",
            want=wire.WANT_RUN,
            template_json=json.dumps(TEMPLATE) if template else "",
        ),
    )


class TestAdoption:
    def test_takes_over_every_pod_of_a_revision(self) -> None:
        """An agent says a template once, with the first of its pods."""
        session = NodeSession(
            node="n1",
            hello=wire.Hello(node="n1"),
            epoch=wire.Epoch(),
            reported=[running(0, template=True), running(1, template=False)],
        )

        adoption = plan_adoption(ClusterState(), [session], now_ms=0, is_dry=True)

        assert adoption.pods == 2
        assert adoption.documents == ["Deployment/default/web"]
        document = next(
            json.loads(operation.value)["document"]
            for operation in adoption.operations
            if isinstance(operation, Put) and operation.key == keys.resource("Deployment", "default", "web")
        )
        assert document["spec"]["replicas"] == 2
        assert document["spec"]["template"] == TEMPLATE
