"""The benchmark of traffic: `python -m bench.traffic`. See bench/README.md."""
