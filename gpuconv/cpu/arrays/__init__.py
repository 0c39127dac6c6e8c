"""Passes over memory in NumPy alone: the inside of the operators in gpuconv/cpu, one file each, as in loops/."""
