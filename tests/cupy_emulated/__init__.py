"""Real CuPy on a machine without a GPU: the CPU does the GPU's work.  See README.md.

Programs run as `python -m tests.cupy_emulated SCRIPT`.  In every process that this starts, site/sitecustomize.py calls
`activate.activate()`; nothing else imports this package.
"""
