"""Benchmarks on real servers: `python -m tests.benchmarks NAME [--json]`."""
