"""Benchmarks: the cases, timing beside PyTorch, and the same cases for pytest-benchmark."""
