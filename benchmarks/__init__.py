"""Benchmarks of the whole product, each against what one would use without it."""
