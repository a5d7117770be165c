"""`python -m bayplan.cli` is `bay`."""

from bayplan.cli.main import main

main()
