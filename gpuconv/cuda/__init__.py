"""CuPy backend: launchers of our own CUDA kernels.  Not yet run on a GPU."""
