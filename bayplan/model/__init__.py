"""What managers, agents and the CLI think in: frozen values, pure functions, no I/O."""
