"""`bay admin etcd-certs`: a directory with all that one host needs to speak TLS with etcd.

The first directory holds the CA; others, for further hosts, are made below it and copied there,
so that the CA's key leaves its host never. Certificates that are good are kept.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from bayplan.cli.failures import CommandError
from bayplan.cli.install_steps import Accounts
from bayplan.identity import certificates, etcd
from bayplan.identity.credentials import write_private

# Certificates that end sooner are made anew when the command is repeated.
RENEW_BELOW_S = 60 * 86400.0
CLIENT_NAME = "bayplan-manager"
_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the operator asked for."""

    directory: Path  # Of the CA.
    hosts: Sequence[str]
    name: str = ""  # Of a member on another host; empty: this host.
    owner: str = ""  # Who reads server.key beside root.
    is_renewal: bool = False  # Also what is good for long.
    dry_run: bool = False


def make_certificates(order: Order, accounts: Accounts, say: Callable[[str], None], *, now_s: float) -> Path:
    """Make what is missing, a line each; returns the directory for the host. Raises CommandError."""
    if order.name and not _NAME.fullmatch(order.name):
        raise CommandError(f'"{order.name}" cannot be the name of a member', exit_code=2)
    if order.owner and not accounts.exists(order.owner):
        raise CommandError(f"there is no user {order.owner} on this host")
    target = order.directory / order.name
    try:
        ca = _ca(order, say, now_s=now_s)
        if order.name:
            _keep(target / "ca.pem", certificates.to_pem(ca.certificate), order, say)
        name = order.name or "etcd"
        hosts = [*dict.fromkeys((*order.hosts, *etcd.LOCAL_HOSTS))]
        _pair(
            target / "server.pem",
            lambda: etcd.new_member(ca, name, hosts, now_s=now_s),
            order,
            say,
            ca=ca,
            hosts=hosts,
            now_s=now_s,
        )
        _pair(
            target / "client.pem",
            lambda: etcd.new_etcd_client(ca, CLIENT_NAME, now_s=now_s),
            order,
            say,
            ca=ca,
            hosts=[],
            now_s=now_s,
        )
        if order.owner and not order.dry_run:
            accounts.own(target / "server.key", owner=order.owner, group=order.owner)
    except certificates.CertificateError as error:
        raise CommandError(str(error), exit_code=2) from error
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from error
    return target


def _ca(order: Order, say: Callable[[str], None], *, now_s: float) -> certificates.Root:
    public, private = order.directory / "ca.pem", order.directory / "ca.key"
    if public.exists() and private.exists():
        ca = certificates.Root(certificate=_read(public), key=_read_key(private))
        say(f"unchanged  {public} and ca.key: {_ends(ca.certificate)}")
        return ca
    if public.exists() or private.exists():
        raise CommandError(
            f"of {public} and ca.key one is missing: run this where the CA was made, "
            "or move the other away for a new CA"
        )
    ca = etcd.new_etcd_ca(now_s=now_s)
    if not order.dry_run:
        _write(private, certificates.key_to_pem(ca.key), is_private=True)
        _write(public, certificates.to_pem(ca.certificate), is_private=False)
    say(f"created    {public} and ca.key: {_ends(ca.certificate)}")
    return ca


def _pair(
    path: Path,
    make: Callable[[], tuple[certificates.Key, x509.Certificate]],
    order: Order,
    say: Callable[[str], None],
    *,
    ca: certificates.Root,
    hosts: Sequence[str],
    now_s: float,
) -> None:
    private = path.with_suffix(".key")
    words = f"{path} and {private.name}"
    before = _read(path) if path.exists() and private.exists() else None
    if before is not None and not order.is_renewal and _is_good(before, ca, hosts, now_s=now_s):
        say(f"unchanged  {words}: {_for(hosts)}{_ends(before)}")
        return
    key, certificate = make()
    if not order.dry_run:
        # The key first: until both are there, etcd cannot use either, and says so.
        _write(private, certificates.key_to_pem(key), is_private=True)
        _write(path, certificates.to_pem(certificate), is_private=False)
    say(f"{'created' if before is None else 'changed':9}  {words}: {_for(hosts)}{_ends(certificate)}")


def _is_good(
    certificate: x509.Certificate, ca: certificates.Root, hosts: Sequence[str], *, now_s: float
) -> bool:
    return (
        certificates.is_issued_by(certificate, ca.certificate)
        and certificate.not_valid_after_utc.timestamp() - now_s > RENEW_BELOW_S
        and _hosts(certificate) == set(hosts)
    )


def _hosts(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(each.value) for each in names}


def _keep(path: Path, content: bytes, order: Order, say: Callable[[str], None]) -> None:
    if path.exists() and path.read_bytes() == content:
        return
    if not order.dry_run:
        _write(path, content, is_private=False)
    say(f"created    {path}")


def _write(path: Path, content: bytes, *, is_private: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    new = path.with_name(f".{path.name}.new")
    write_private(new, content)
    if path.exists():
        # A key that is renewed stays readable to etcd and the manager, which are not root.
        before = path.stat()
        os.chown(new, before.st_uid, before.st_gid)
        new.chmod(stat.S_IMODE(before.st_mode))
    elif not is_private:
        new.chmod(0o644)
    new.replace(path)


def _read(path: Path) -> x509.Certificate:
    try:
        found = certificates.from_pem(path.read_bytes())
    except certificates.CertificateError as error:
        raise CommandError(f"{path}: {error}") from error
    return found[0]


def _read_key(path: Path) -> certificates.Key:
    try:
        return certificates.key_from_pem(path.read_bytes())
    except certificates.CertificateError as error:
        raise CommandError(f"{path}: {error}") from error


def _for(hosts: Sequence[str]) -> str:
    return f"for {', '.join(hosts)}; " if hosts else ""


def _ends(certificate: x509.Certificate) -> str:
    return f"ends {datetime.fromtimestamp(certificate.not_valid_after_utc.timestamp(), UTC):%Y-%m-%d}"
