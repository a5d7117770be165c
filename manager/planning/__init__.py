"""Deciding what should change: pure functions from a view to changes with reasons."""
