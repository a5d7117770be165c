"""What `bay` says about tokens, users, certificates and keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bayplan.cli.failures import CommandError
from bayplan.cli.listing import Listing, ask_first, short, show, text_of, when
from bayplan.cli.run import note, say
from bayplan.cli.text import clean, now_ms, timestamp

if TYPE_CHECKING:
    from bayplan.client import AuditEntry, Ca, Client, IdentityInfo, JoinTokenInfo, NewToken, WhoAmI

_DIGEST_SHOWN = 16


# Who


async def whoami(client: Client, *, output: str) -> None:
    """Who the cluster takes us for."""
    who = await client.whoami()
    if output in {"json", "yaml"}:
        say(text_of(_of_whoami(who), output))
        return
    if output == "name":
        say(clean(short(who.identity)))
        return
    rows = (
        ("Identity", who.identity or "<none>"),
        ("Role", who.role or "<none>"),
        ("Cluster", who.cluster),
        ("Certificate", _until(who.certificate_until_ms, never="<none>")),
        ("Access", _until(who.access_ends_ms, never="until it is revoked")),
    )
    for name, value in rows:
        say(f"{name + ':':<14}{clean(value)}")


def _until(at_ms: int, *, never: str) -> str:
    return f"until {timestamp(at_ms)} ({when(at_ms, never='')})" if at_ms else never


def _of_whoami(who: WhoAmI) -> dict[str, Any]:
    return {
        "identity": who.identity,
        "role": who.role,
        "cluster": who.cluster,
        "certificateUntil": timestamp(who.certificate_until_ms),
        "accessEnds": timestamp(who.access_ends_ms),
    }


# Tokens


async def create_join_token(client: Client, role: str, *, ttl_ms: int, uses: int, quiet: bool) -> None:
    """Print what to run on the host that joins."""
    made = await client.create_join_token(role, ttl_ms=ttl_ms, uses=uses)
    if quiet:
        say(clean(made.token))
        return
    say(join_command(made, role))
    if role == "node":
        managers = clean(",".join(made.managers))
        note(
            "note: where systemd is to start it:"
            f" bay install agent --managers {managers} --join-token {clean(made.token)}"
        )
    note(f"note: {_lasts(made)}")


def join_command(made: NewToken, role: str) -> str:
    """What makes a host join."""
    token = clean(made.token)
    if role == "node":
        return f"bayplan-agent --managers {clean(','.join(made.managers))} --join-token {token}"
    first = clean(made.managers[0]) if made.managers else "HOST:7400"
    return (
        "bayplan-manager --id NAME --etcd ENDPOINTS --advertise ADDRESS:7400"
        f" --join {first} --join-token {token}"
    )


def _lasts(made: NewToken) -> str:
    uses = made.about.uses_left
    times = "once" if uses <= 1 else f"{uses} times"
    ends = when(made.about.expires_ms, never="")
    return f"the token can be used {times}" + (f", and ends {ends}" if ends else "")


async def join_tokens(client: Client, *, output: str, quiet: bool) -> None:
    """Every token, without its secret."""
    listing: Listing[JoinTokenInfo] = Listing(
        kind="join-token",
        headers=("ID", "ROLE", "EXPIRES", "USES-LEFT", "MADE-BY"),
        row=lambda one: (
            one.id,
            f"{one.role}/{one.name}" if one.name else one.role,
            "revoked" if one.revoked else when(one.expires_ms, never="<never>"),
            str(one.uses_left),
            short(one.made_by) or "<none>",
        ),
        name=lambda one: one.id,
        shape=lambda one: {
            "id": one.id,
            "role": one.role,
            "name": one.name,
            "created": timestamp(one.created_ms),
            "expires": timestamp(one.expires_ms),
            "usesLeft": one.uses_left,
            "madeBy": one.made_by,
            "revoked": one.revoked,
        },
    )
    show(listing, await client.join_tokens(), output=output, quiet=quiet)


async def revoke_join_token(client: Client, id_: str) -> None:
    """By its id; a whole token is taken for its id, and not repeated."""
    if id_.startswith("bay1."):
        id_ = id_.split(".")[2] if id_.count(".") >= 2 else id_
    await client.revoke_join_token(id_)
    say(f"join-token/{clean(id_)} revoked")


# Users, nodes, managers


async def create_user(client: Client, name: str, role: str, *, ttl_ms: int, quiet: bool) -> None:
    """Print what they are to run."""
    from bayplan.client.access import ROLES

    if role not in ROLES:
        raise CommandError(f'"{clean(role)}" is no role: one of {", ".join(ROLES)}', exit_code=2)
    made = await client.create_user(name, role, ttl_ms=ttl_ms)
    if quiet:
        say(clean(made.token))
        return
    say(f"bay login {clean(','.join(made.managers))} --token {clean(made.token)}")
    note(f"note: {_lasts(made)}; {clean(name)} logs in with this command")


async def users(client: Client, *, output: str, quiet: bool) -> None:
    """Every user, and until when they have access."""
    listing: Listing[IdentityInfo] = Listing(
        kind="user",
        headers=("NAME", "ROLE", "STATUS", "ACCESS-ENDS", "CERTIFICATE-UNTIL"),
        row=lambda one: (
            one.name,
            one.role or "<none>",
            _status(one),
            when(one.access_ends_ms, never="<never>"),
            when(one.certificate_until_ms, never="<none>"),
        ),
        name=lambda one: one.name,
        shape=lambda one: {
            "name": one.name,
            "role": one.role,
            "status": _status(one),
            "created": timestamp(one.created_ms),
            "accessEnds": timestamp(one.access_ends_ms),
            "certificateUntil": timestamp(one.certificate_until_ms),
            "issuer": one.issuer,
        },
    )
    show(listing, await client.identities("user"), output=output, quiet=quiet)


def _status(one: IdentityInfo) -> str:
    if one.revoked:
        return "Revoked"
    if one.access_ends_ms and one.access_ends_ms <= now_ms():
        return "Ended"
    return "Active" if one.certificate_until_ms else "Invited"


async def revoke(client: Client, kind: str, name: str) -> bool:
    """Say whether it had been revoked before; whether it was not."""
    changed = await client.revoke(kind, name)
    say(f"{kind}/{clean(name)} {'revoked' if changed else 'already revoked'}")
    return changed


async def revoke_node(client: Client, name: str, *, yes: bool) -> None:
    """Its pods go on: the agent still runs, it is only not listened to any more."""
    name = name.removeprefix("node/").removeprefix("nodes/")
    shown = clean(name)
    ask_first(
        f"Node {shown} will not be listened to any more. Its pods go on running there; they are replaced"
        " elsewhere after 5 minutes.",
        yes=yes,
    )
    if await revoke(client, "node", name):
        note(
            f"note: pods on {shown} go on running; they are replaced after 5 minutes, or at once with"
            f" `bay node lost {shown}`"
        )


async def revoke_manager(client: Client, name: str, *, yes: bool) -> None:
    """It must join again to come back."""
    name = name.removeprefix("manager/")
    ask_first(f"Manager {clean(name)} will be shut out until it joins again with a new token.", yes=yes)
    await revoke(client, "manager", name)


# Certificates and keys


async def show_ca(client: Client, *, output: str) -> None:
    """The roots, and who keeps the old one alive."""
    _print_ca(await client.ca(), output=output)


def _print_ca(ca: Ca, *, output: str) -> None:
    if output in {"json", "yaml"}:
        roots = [
            {
                "digest": root.digest,
                "signs": number == 0,
                "since": timestamp(root.since_ms),
                "until": timestamp(root.until_ms),
            }
            for number, root in enumerate(ca.roots)
        ]
        say(text_of({"roots": roots, "waiting": list(ca.waiting)}, output))
        return
    order = {root.digest: number for number, root in enumerate(ca.roots)}
    listing: Listing[Any] = Listing(
        kind="root",
        headers=("ROOT", "SIGNS", "SINCE", "UNTIL"),
        row=lambda root: (
            root.digest if output == "wide" else root.digest[:_DIGEST_SHOWN],
            "no" if order[root.digest] else "yes",
            when(root.since_ms, never="<unknown>"),
            when(root.until_ms, never="<unknown>"),
        ),
        name=lambda root: str(root.digest),
        shape=lambda root: {"digest": root.digest},
    )
    show(listing, ca.roots, output=output)
    if ca.waiting:
        note(f"note: still with a certificate of an older root: {_some(ca.waiting)}")


def _some(identities: Sequence[str]) -> str:
    shown = ", ".join(clean(short(identity)) for identity in identities[:10])
    return shown + (f" and {len(identities) - 10} more" if len(identities) > 10 else "")


async def rotate_ca(client: Client, *, finish: bool, stolen: bool, yes: bool) -> None:
    """A new root, or the end of the old one."""
    if finish and stolen:
        raise CommandError("write --finish or --stolen, not both", exit_code=2)
    if stolen:
        ask_first("Every user must log in, and every node join, again. Pods run on meanwhile.", yes=yes)
    elif finish:
        waiting = (await client.ca()).waiting
        if waiting:
            ask_first(
                f"The old root is still needed by {_some(waiting)}: they must join, or log in, again.",
                yes=yes,
            )
    ca = await client.rotate_ca(finish=finish, stolen=stolen)
    _print_ca(ca, output="")
    if stolen:
        note(
            "note: nobody but managers has a good certificate now. On a manager's host run"
            " `bayplan-manager --new-admin-token` and `bay init`; then `bay user create` for users, and for nodes"
            " `bay join-token create --role node`"
        )
    elif not finish:
        note(
            "note: the new root signs from now on. The old one is trusted until every certificate was renewed"
            " (bay ca show), or until `bay ca rotate --finish`"
        )


async def rotate_keys(client: Client) -> None:
    """New keys for what lies in etcd."""
    note("encrypting everything in the store again ...")
    rotated = await client.rotate_keys()
    say(
        f"keys rotated: cluster key {clean(rotated.cluster_key_id)}, {rotated.rewritten} values encrypted again"
    )


# What was decided


async def audit(client: Client, *, since_ms: int, limit: int, denied: bool, who: str, output: str) -> None:
    """Decisions about callers, oldest first."""
    found = await client.audit(since_ms=since_ms, limit=limit, denied=denied, who=who)
    listing: Listing[AuditEntry] = Listing(
        kind="audit",
        headers=("TIME", "MANAGER", "WHO", "FROM", "METHOD", "TARGET", "DECISION", "WHY"),
        row=_audit_row,
        name=lambda one: f"{one.at_ms}",
        shape=lambda one: {
            "time": timestamp(one.at_ms),
            "timeMs": one.at_ms,
            "manager": one.manager,
            "who": one.who,
            "via": one.via,
            "from": one.address,
            "method": one.method,
            "target": one.target,
            "allowed": one.allowed,
            "why": one.why,
            "outcome": one.outcome,
            "count": one.count,
        },
    )
    show(listing, found.entries, output=output)
    if found.unreachable:
        note(f"note: without the part of {clean(', '.join(found.unreachable))}: not reached")


def _audit_row(one: AuditEntry) -> tuple[str, ...]:
    decision = "allowed" if one.allowed else "denied"
    if one.allowed and one.outcome not in {"", "OK"}:
        decision = f"allowed ({one.outcome})"
    return (
        timestamp(one.at_ms) or "<unknown>",
        one.manager,
        (short(one.who) or "<nobody>") + (f" via {one.via}" if one.via else ""),
        one.address or "<none>",
        one.method.rpartition(".")[2],
        one.target or "<none>",
        decision + (f" x{one.count}" if one.count > 1 else ""),
        one.why or "<none>",
    )
