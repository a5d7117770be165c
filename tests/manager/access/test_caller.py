from __future__ import annotations

from contextvars import Context, copy_context

import pytest

from bayplan.v1.callers_pb2 import ROLE_ADMIN, ROLE_OPERATOR, ROLE_UNSPECIFIED, ROLE_VIEWER
from manager.access.caller import (
    ON_BEHALF_OF,
    Caller,
    DeniedError,
    current_caller,
    may_pass_on,
    note_target,
    on_behalf,
    require_node,
    require_role,
    role_name,
    role_words,
    set_caller,
)

ANNA = "spiffe://c1/user/anna"


def called_by(caller: Caller) -> Context:
    """A call of its own, as each has its own task."""
    call = copy_context()
    call.run(set_caller, caller)
    return call


def a_user(role: int, *, via: str = "") -> Caller:
    return Caller(kind="user", name="anna", identity=ANNA, generation=2, role=role, via=via)


class TestRoles:
    @pytest.mark.parametrize("role", [ROLE_OPERATOR, ROLE_ADMIN])
    def test_those_above_include_those_below(self, role: int) -> None:
        called_by(a_user(role)).run(require_role, ROLE_OPERATOR, "reading secrets")

    def test_those_below_are_denied_in_words(self) -> None:
        caller = a_user(ROLE_VIEWER)
        with pytest.raises(DeniedError) as caught:
            called_by(caller).run(require_role, ROLE_OPERATOR, "reading secrets")

        assert str(caught.value) == "anna is a viewer: reading secrets needs the role operator"
        assert caller.denied == str(caught.value), "for the record"

    @pytest.mark.parametrize("kind", ["node", "manager", ""])
    def test_who_is_no_user_has_none(self, kind: str) -> None:
        with pytest.raises(DeniedError):
            called_by(Caller(kind=kind, name="n1")).run(require_role, ROLE_VIEWER, "it")

    def test_have_words(self) -> None:
        roles = (ROLE_UNSPECIFIED, ROLE_VIEWER, ROLE_OPERATOR, ROLE_ADMIN)

        assert [role_words(role) for role in roles] == ["no user", "a viewer", "an operator", "an admin"]
        assert role_name(ROLE_ADMIN) == "admin"


class TestNodes:
    def test_may_speak_for_themselves(self) -> None:
        called_by(Caller(kind="node", name="n1")).run(require_node, "n1")

    @pytest.mark.parametrize(
        "caller", [Caller(kind="node", name="n2"), Caller(kind="user", name="n1", role=3), Caller(kind="")]
    )
    def test_nobody_else_may(self, caller: Caller) -> None:
        with pytest.raises(DeniedError, match=f"the certificate of {caller.words} cannot speak for node n1"):
            called_by(caller).run(require_node, "n1")

    def test_what_is_no_name_is_shown_as_text(self) -> None:
        with pytest.raises(DeniedError) as caught:
            called_by(Caller(kind="node", name="n1")).run(require_node, "\x1b[2J" + "x" * 999)

        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 200


class TestWithoutAGate:
    """Of a cluster that runs insecurely on loopback, and of most tests."""

    def test_nobody_is_checked(self) -> None:
        require_role(ROLE_ADMIN, "everything")
        require_node("n1")

        assert on_behalf() == ()
        assert may_pass_on()

    def test_nothing_is_noted_of_what_all_calls_share(self) -> None:
        note_target("web")

        assert current_caller().target == ""


class TestPassingOn:
    def test_it_is_said_for_whom(self) -> None:
        """With the generation of the certificate: it may be revoked on its way."""
        assert called_by(a_user(ROLE_VIEWER)).run(on_behalf) == ((ON_BEHALF_OF, f"{ANNA}#2"),)

    def test_for_who_has_no_certificate_nothing_is_said(self) -> None:
        assert called_by(Caller(kind="")).run(on_behalf) == ()

    def test_only_what_another_manager_passed_on_is_to_be_believed(self) -> None:
        assert called_by(a_user(ROLE_VIEWER, via="m2")).run(may_pass_on)
        assert not called_by(a_user(ROLE_VIEWER)).run(may_pass_on)


class TestCaller:
    def test_is_the_calls_own(self) -> None:
        anna, bob = a_user(ROLE_VIEWER), Caller(kind="user", name="bob")
        first, second = called_by(anna), called_by(bob)
        first.run(note_target, "web")

        assert second.run(current_caller) is bob
        assert (anna.target, bob.target) == ("web", "")
