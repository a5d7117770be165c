"""The process on each host that runs containers and reports what it sees."""
