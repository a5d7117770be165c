"""From a join token to a context: the first certificate of a user, and where it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path

from bayplan.client import contexts
from bayplan.client.access import role_word
from bayplan.client.contexts import Config, Context
from bayplan.client.errors import AccessDeniedError, ContextError, UnavailableError
from bayplan.identity import certificates, joining
from bayplan.identity.credentials import CredentialsError, load_credentials
from bayplan.identity.names import Identity, Kind
from bayplan.identity.tokens import JoinToken, TokenError, parse_token

FIRST_CONTEXT = "default"


async def login(
    managers: Sequence[str], token: str, *, context: str = "", file: Path | None = None
) -> Context:
    """Use up a user's token; the new context is the current one.

    Args:
        managers: addresses to ask, kept as they are: what can be reached from here, others may not be.
        token: as `bay user create` printed it.
        context: its name; empty, or another user's: one is chosen (see `context_name`).
        file: the configuration; None: the user's.

    Raises:
        AccessDeniedError: the token is none, or the managers do not take it.
        UnavailableError: no manager answers.
        ContextError: the configuration cannot be used, or `context` is of another cluster.
    """
    file = contexts.config_file() if file is None else file
    try:
        parsed = parse_token(token)
    except TokenError as error:
        raise AccessDeniedError(str(error)) from error
    # All that can fail here does so before the token is used up.
    config = contexts.prepare(file)
    if context:
        contexts.check_name(context)
        if context in config.contexts:
            _check_same_cluster(file, context, parsed)
    try:
        with joining.joining_key(contexts.all_credentials(file), parsed.id) as key:
            joined = await joining.join(managers, parsed, name="", key=key)
            identity = joined.credentials.identity
            if identity.kind is Kind.USER:
                return _save(file, context, managers, joined)
    except joining.JoinError as error:
        if error.is_final:
            raise AccessDeniedError(str(error)) from error
        raise UnavailableError(f"no manager can answer right now: {error}") from error
    except OSError as error:
        raise ContextError(f"cannot change {error.filename}: {error.strerror}") from error
    raise AccessDeniedError(f"this token is not for a user but for a {identity.kind}")


def _save(file: Path, wanted: str, managers: Sequence[str], joined: joining.Joined) -> Context:
    identity = joined.credentials.identity

    def named(config: Config) -> Context:
        held = config.contexts.get(wanted)
        # Whose the token is, is known only now that it is used up: too late to refuse.
        is_free = held is None or _is_of(held, identity)
        return Context(
            name=wanted if wanted and is_free else context_name(config, identity),
            managers=tuple(managers),
            cluster=identity.cluster,
            user=identity.name,
            role=role_word(joined.role),
        )

    return contexts.save_login(file, joined.credentials, named)


def context_name(config: Config, identity: Identity) -> str:
    """The context of this user of this cluster; else "default" if that is free; else one after the cluster."""
    for context in config.contexts.values():
        if _is_of(context, identity):
            return context.name
    short = identity.cluster[:8].rstrip("-.")
    names = chain(
        (FIRST_CONTEXT, short, f"{short}-{identity.name}"[:63]), (f"{short}-{number}" for number in count(2))
    )
    return next(name for name in names if name not in config.contexts)


def _is_of(context: Context, identity: Identity) -> bool:
    return (context.cluster, context.user) == (identity.cluster, identity.name)


def _check_same_cluster(file: Path, context: str, token: JoinToken) -> None:
    try:
        held = load_credentials(contexts.credentials_directory(file, context))
        roots = certificates.from_pem(held.roots_pem) if held is not None else []
    except (CredentialsError, certificates.CertificateError):
        return  # They are of no use to anybody.
    if roots and token.root_digest not in map(certificates.digest, roots):
        raise ContextError(
            f'context "{context}" is of another cluster than the token, or its root was replaced since:'
            f" choose another name with --context, or first `bay config delete-context {context}`"
        )
