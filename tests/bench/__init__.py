"""Benchmarks: `make bench`, or `python -m tests.bench --local`. Numbers are reported, never asserted."""
