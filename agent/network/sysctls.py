"""What the kernel must be told so that a host routes pods' packets."""

from __future__ import annotations

from pathlib import Path

from agent.network.port import NetworkError

ROOT = Path("/proc/sys/net")


def wanted_sysctls(bridge: str, tunnel: str) -> dict[str, str]:
    """By path below net/. `tunnel` is empty where there is none."""
    wanted = {
        "ipv4/ip_forward": "1",
        f"ipv4/conf/{bridge}/forwarding": "1",
    }
    if tunnel:
        wanted |= {
            f"ipv4/conf/{tunnel}/forwarding": "1",
            # Loose: a node's own address may come through the tunnel though the route to it is another. Stricter
            # settings for all devices are overruled by it.
            f"ipv4/conf/{tunnel}/rp_filter": "2",
            # Pods have no IPv6; without this the tunnel would chatter about its own.
            f"ipv6/conf/{tunnel}/disable_ipv6": "1",
        }
    return wanted


def have_sysctls(wanted: dict[str, str], *, root: Path = ROOT) -> list[str]:
    """Set what differs; returns what was set. Raises NetworkError on what cannot be."""
    changed = []
    for name, value in wanted.items():
        path = root / name
        words = f"net.{name.replace('/', '.')}"
        try:
            if path.read_text().strip() == value:
                continue
            path.write_text(value)
        except FileNotFoundError:
            continue  # The kernel has no IPv6, or the device is gone: seen at the next look.
        except OSError as error:
            raise NetworkError(
                f"{words} is not {value} and cannot be set ({(error.strerror or '').lower()}): set it on the host"
            ) from error
        changed.append(words)
    return changed
