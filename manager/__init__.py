"""The control plane: elects a leader, plans, commits, and tells agents."""
