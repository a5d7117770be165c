"""Channels and servers: the only place that sets gRPC options."""
