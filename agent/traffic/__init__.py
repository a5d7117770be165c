"""What goes to services: HAProxy on this node, and what it is told."""
