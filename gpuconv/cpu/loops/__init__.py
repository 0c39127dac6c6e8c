"""Passes over memory as plain loops, compiled by Numba: the inside of the operators in gpuconv/cpu, as in arrays/.

A pass works on one block, or on those that it takes from a counter (atomic.py), and holds no interpreter lock.  It gets
arrays without gaps, in their order of storage: (N, C, H, W), or (N, H, W, C) where channels are last.  What memory it
needs besides is given to it; and it uses nothing from outside this folder, where a change would go unnoticed (cache.py).
"""
