"""Bayplan: a container orchestrator for teams of 2 to 50 people and 3 to 300 hosts."""

__version__ = "0.1.0"
