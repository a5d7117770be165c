"""Names of services and pods, answered on the bridge by a process of its own."""
