"""Where HAProxy and the agent meet: names below the run directory's own directory. Imports nothing."""

from __future__ import annotations

DIRECTORY = "proxy"
CONFIGURATION = "haproxy.cfg"
MASTER_SOCKET = "master.sock"
STATS_SOCKET = "stats.sock"
METRICS_SOCKET = "metrics.sock"
LOG_SOCKET = "log.sock"
# An open connection that idles takes 2 KiB, one that carries data two buffers of 16 KiB.
CONNECTIONS_MAX = 32768
