"""`bay policy`."""

from __future__ import annotations

from tests.bayplan.cli.conftest import Bay, text


async def test_set_and_list(bay: Bay) -> None:
    assert (await bay("policy", "set", "edge", "privileged")).out == "policy/edge configured\n"
    assert (await bay("policy", "set", "edge", "privileged")).out == "policy/edge unchanged\n"
    assert (await bay("policy", "list")).out == text("""
        NAMESPACE   LEVEL
        edge        privileged
    """)


async def test_a_level_that_is_none_is_refused(bay: Bay) -> None:
    ended = await bay("policy", "set", "edge", "root")
    assert (ended.code, ended.err) == (2, 'error: "root" is no policy: baseline or privileged\n')
