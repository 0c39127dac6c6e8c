"""CuPy backend, not built yet: so far, the place where its kernel sources are found (source.py)."""
