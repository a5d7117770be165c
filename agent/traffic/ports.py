"""The proxy's own ports, on the bridge's address alone, counted from `AgentSettings.proxy_port`."""

from __future__ import annotations

TCP = 0
"""Connections to VIPs whose port is TCP: the firewall sends them here, their first destination tells which."""
HTTP = 1
"""The same of HTTP."""
HEALTH = 2
"""Answers 200 while the proxy runs: other nodes' proxies look here whether this node lives."""
ECHO = 3
"""TCP and UDP: gives back what it gets, for `bay doctor network`. The agent's."""
COUNT = 4
