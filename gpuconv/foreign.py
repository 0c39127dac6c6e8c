"""How arrays of other libraries become ours: said to those who hand them over, and never done in silence.

A class is known by the name of its module, so no library is imported for it.
"""

from __future__ import annotations

from typing import Any

# By library: what makes a NumPy array of an array {x}; and a CuPy array where it may lie on a GPU.
_TO_NUMPY: dict[str, str] = {
    "PIL": "np.asarray({x}).transpose(2, 0, 1)[None] of a colour picture",
    "cupy": "cp.asnumpy({x})",
    "dask": "{x}.compute()",
    "h5py": "{x}[...]",
    "jax": "np.asarray({x})",
    "jaxlib": "np.asarray({x})",
    "pandas": "{x}.to_numpy()",
    "polars": "{x}.to_numpy()",
    "scipy": "{x}.toarray()",
    "tensorflow": "{x}.numpy()",
    "torch": "np.asarray({x}.detach())",
    "xarray": "{x}.to_numpy()",
}
_TO_CUPY: dict[str, str] = {
    "jax": "cp.from_dlpack({x})",
    "jaxlib": "cp.from_dlpack({x})",
    "torch": "cp.from_dlpack({x}.detach())",
}


def class_in_words(array: Any) -> str:
    """Return the name of a thing's class with its module, as users know it."""
    cls = type(array)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def way_out(name: str, array: Any, *, gpu: bool) -> str:
    """Return the end of a sentence: how what the argument of a name was given becomes an array; "" if nobody knows.

    gpu: whether a CuPy array will do, too.
    """
    library = type(array).__module__.partition(".")[0]
    if library in _TO_NUMPY:
        way = _TO_NUMPY[library]
    elif type(array).__qualname__ == "MaskedArray":
        way = "{x}.filled(0)"
    elif library != "numpy" and hasattr(array, "__dlpack__"):
        way = "np.from_dlpack({x})"
    elif isinstance(array, tuple) and len(array) == 2 and type(array[1]).__qualname__.endswith("Cache"):
        return ": a forward returns (y, cache), of which only y is passed on"
    elif isinstance(array, (list, tuple, memoryview)) or hasattr(array, "__array__"):
        way = "np.array({x})"
    else:
        return ""
    if gpu and library in _TO_CUPY:
        way += f", or {_TO_CUPY[library]} on a GPU"
    return f": pass {way.format(x=name)}"
