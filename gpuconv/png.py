"""Pictures as PNG, in a page or a notebook."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np


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
