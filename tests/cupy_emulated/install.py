"""Load the stand-ins, and lead the calls of CuPy's runtime module to them."""

from __future__ import annotations

import ctypes

from . import guard, modules, patch, record, standins
from .requirements import check, wheel
from .settings import settings


def install() -> None:
    """Do it, once the runtime module is loaded and before anything of it runs."""
    check()
    driver = ctypes.CDLL(str(standins.driver()))  # later found by its name, libcuda.so.1
    ctypes.CDLL(str(standins.empty(f"libcublasLt.so.{wheel().cuda}")))  # cuda-pathfinder loads it before cuBLAS
    ctypes.CDLL(str(standins.cublas()))
    if (nccl := standins.nccl()) is not None:
        ctypes.CDLL(str(nccl))  # later found by its name, libnccl.so.2
    found = settings()
    memory = ctypes.c_uint64(found.memory << 20)
    numbers = found.arch, found.multiprocessors, found.devices, found.timeout, int(found.lazy), int(found.guard), memory
    driver.standin_settings(*numbers, found.trace.encode())
    driver.standin_server(str(standins.server()).encode())
    modules.serve(driver)
    patch.redirect(wheel().runtime, driver)


def finish() -> None:
    """Do what needs all of CuPy, once it is imported."""
    if settings().guard:
        guard.use(ctypes.CDLL(str(standins.driver())))
    if settings().record:
        record.use(settings().record)
