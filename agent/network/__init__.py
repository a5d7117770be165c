"""The pods' network on this host: devices, routes, addresses, firewall."""
