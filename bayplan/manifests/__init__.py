"""Files → documents: YAML with line numbers, and what is wrong with them, each at its place."""
