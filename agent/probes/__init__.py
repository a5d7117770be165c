"""Whether a container has started, is ready, is alive."""
