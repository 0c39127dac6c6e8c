"""Pictures in a page: images of a data set and the filters of a net, as PNG in an address."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

from .. import nn
from ..backend import asnumpy


def png(picture: np.ndarray) -> bytes:
    """Return a picture as a PNG file.   picture: (H, W) grey or (H, W, 3) RGB, uint8.

    Source: W3C, Portable Network Graphics Specification (Second Edition), sections 5, 9 and 11.
    """
    height, width = picture.shape[:2]
    kind = 2 if picture.ndim == 3 else 0
    rows = np.zeros((height, 1 + picture[0].size), np.uint8)  # each row starts with the number of its filter: none
    rows[:, 1:] = picture.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    packed = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def data_uri(picture: np.ndarray) -> str:
    """Return a picture as the address of an <img>."""
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode("ascii")


def image(pixels: np.ndarray) -> np.ndarray:
    """Return a stored picture as one to draw.   pixels: (C, H, W) uint8; C other than 3: the first channel in grey."""
    return np.ascontiguousarray(pixels.transpose(1, 2, 0)) if len(pixels) == 3 else np.ascontiguousarray(pixels[0])


def first_filters(net: nn.Net) -> tuple[str, np.ndarray] | None:
    """Return name and weights (K, C, R, S) of the first convolution that sees the picture; None if there is none."""
    for name, leaf in net.body.leaves():
        weights = leaf.params.get("w", leaf.state.get("w"))
        if weights is None:
            continue
        on_host = asnumpy(weights)
        sees = on_host.ndim == 4 and on_host.shape[1] == net.input_shape[0]
        return (name or "conv", np.asarray(on_host, np.float64)) if sees else None
    return None


def tile(weights: np.ndarray) -> np.ndarray:
    """Return a filter as a picture.   weights: (C, R, S) -> (R, S, 3) uint8 if C is 3, else (R, S)."""
    flat = weights if len(weights) == 3 else weights.mean(axis=0, keepdims=True)
    scale = np.abs(flat).max() or 1.0
    pixels = np.rint(127.5 + 127.5 * flat / scale).astype(np.uint8)
    return image(pixels)
