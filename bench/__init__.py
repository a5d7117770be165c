"""Benchmarks: a file each, run by hand, each figure beside its comparison in the same run. See README.md."""
