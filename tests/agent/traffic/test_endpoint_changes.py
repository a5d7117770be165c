"""From the servers that HAProxy has to those that it should have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from agent.traffic.endpoint_changes import RunningServer, leaving, parse_servers, plan_changes
from agent.traffic.haproxy_backends import Backend, Server

A = Server(name="a", id=1, address="10.42.1.5", port=80, weight=100, node="")
B = Server(name="b", id=2, address="10.42.2.5", port=80, weight=100, node="n2")


def a_backend(*servers: Server, server_options: str = "") -> Backend:
    return Backend(
        name="shop.web.80",
        service="shop/web",
        port=80,
        is_http=True,
        options=("balance leastconn",),
        server_options=server_options,
        servers={each.name: each for each in servers},
    )


def running(*servers: Server, **fields: bool) -> dict[str, dict[str, RunningServer]]:
    state = {"is_ready": True, **fields}
    return {
        "shop.web.80": {
            each.name: RunningServer(
                id=each.id, address=each.address, port=each.port, weight=each.weight, **state
            )
            for each in servers
        }
    }


class TestPlan:
    def test_nothing_for_what_is_so(self) -> None:
        plan = plan_changes(running(A, B), [a_backend(A, B)])
        assert (plan.commands, plan.reload_reason) == ((), "")

    def test_a_new_one_has_all_that_its_line_in_the_file_has(self) -> None:
        backend = a_backend(A, B, server_options=" maxconn 5")
        plan = plan_changes(running(A), [backend])
        add, enable = plan.commands
        assert add == f"add server shop.web.80/{backend.server_text(B)}"
        assert "id 2 weight 100 track nodes/n2 maxconn 5" in add
        assert f"server {backend.server_text(B)}" in backend.text
        assert enable == "enable server shop.web.80/b"

    def test_one_that_leaves_is_drained_and_never_put_in_maintenance(self) -> None:
        plan = plan_changes(running(A, B), [a_backend(A)])
        assert plan.commands == ("set server shop.web.80/b state drain",)

    def test_one_that_is_drained_already_is_left_alone(self) -> None:
        assert not plan_changes(running(B, is_ready=False), [a_backend()]).commands

    def test_one_that_comes_back_is_made_ready(self) -> None:
        plan = plan_changes(running(A, is_ready=False), [a_backend(A)])
        assert plan.commands == ("set server shop.web.80/a state ready",)

    def test_a_weight_changes_in_place(self) -> None:
        plan = plan_changes(running(A), [a_backend(replace(A, weight=7))])
        assert plan.commands == ("set server shop.web.80/a weight 7",)

    def test_another_address_needs_a_reload(self) -> None:
        plan = plan_changes(running(A), [a_backend(replace(A, port=81))])
        assert plan.commands == ()
        assert plan.reload_reason == "shop.web.80/a has another address or id"

    @given(
        has=st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.integers(1, 3), st.booleans())),
        wants=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 3)),
    )
    def test_after_a_plan_there_is_nothing_left_to_do(
        self, has: Mapping[str, tuple[int, bool]], wants: Mapping[str, int]
    ) -> None:
        def server(name: str, weight: int) -> Server:
            return Server(name=name, id=ord(name), address="10.0.0.1", port=80, weight=weight, node="")

        known = {
            name: RunningServer(id=ord(name), address="10.0.0.1", port=80, weight=weight, is_ready=is_ready)
            for name, (weight, is_ready) in has.items()
        }
        backend = a_backend(*(server(name, weight) for name, weight in wants.items()))
        plan = plan_changes({backend.name: known}, [backend])
        after = {backend.name: known, **plan.after}
        assert plan_changes(after, [backend]).commands == ()
        assert {name for name, one in after[backend.name].items() if one.is_ready} == set(wants)
        assert leaving(after, {backend.name: backend}).get(backend.name, set()) == has.keys() - wants.keys()


class TestState:
    def test_is_read_from_what_haproxy_prints(self) -> None:
        text = (
            "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight\n"
            "7 shop.db.80 101 a 127.9.1.1 2 0 1 1 63 1 0 2 0 0 0 1 - 5432 - 0 0 - - 0\n"
            "7 shop.db.80 102 b 127.9.1.2 2 8 3 3 11 1 0 0 0 0 0 1 - 5433 - 0 0 - - 0\n"
            "7 shop.db.80 103 c 127.9.1.3 0 1 3 3 11 1 0 0 0 0 0 1 - 5433 - 0 0 - - 0\n\n"
        )
        found = parse_servers(text)["shop.db.80"]
        assert found["a"] == RunningServer(id=101, address="127.9.1.1", port=5432, weight=1, is_ready=True)
        assert (found["b"].is_ready, found["b"].port, found["b"].weight) == (False, 5433, 3)
        assert not found["c"].is_ready
