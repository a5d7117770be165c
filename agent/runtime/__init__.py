"""Containers on this host: Docker through aiodocker, and a simulated engine with the same contract."""
