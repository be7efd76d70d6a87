# SPDX-License-Identifier: Apache-2.0
"""A program: makes a picture smaller. Run by `shrinker.py` in a process of its own, never imported.

shrink.py FORMAT WIDTH HEIGHT METHOD MAX_PIXELS MAX_MEMORY MAX_CPU_SECONDS MAX_OUTPUT

The picture is read from standard input, which is a file, and the result written to standard output, which is
another. Decoders of pictures are where strangers' bytes meet C code: so this process has no more memory, time
and room than its limits, knows no secrets, opens one format only, and ends after one picture. Its exit status
says how it went.
"""

from __future__ import annotations

import os
import resource
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image  # at run time only when the limits are in force

DONE = 0
ORIGINAL_WILL_DO = 10
"""The picture is no larger than what is wanted, and does not move."""
NOT_READABLE = 11
TOO_LARGE = 12

JPEG_QUALITY = 82
MAX_PROFILE = 16 * 1024
"""Bytes of a colour profile that goes into the thumbnail."""


def limit(max_memory: int, max_cpu_seconds: int, max_output: int) -> None:
    for what, value in (
        (resource.RLIMIT_AS, max_memory),
        (resource.RLIMIT_CPU, max_cpu_seconds),
        (resource.RLIMIT_FSIZE, max_output),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (value, value))


def main(arguments: list[str]) -> int:
    kind, width, height, method = arguments[0], int(arguments[1]), int(arguments[2]), arguments[3]
    max_pixels, max_memory, max_cpu_seconds, max_output = map(int, arguments[4:8])
    limit(max_memory, max_cpu_seconds, max_output)
    import warnings

    from PIL import Image, ImageOps

    Image.MAX_IMAGE_PIXELS = max_pixels
    warnings.simplefilter("error")
    try:
        with Image.open(sys.stdin.buffer, formats=[kind]) as picture:
            if picture.width * picture.height > max_pixels:
                return TOO_LARGE
            moves = getattr(picture, "is_animated", False)
            turned = picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            size = (picture.height, picture.width) if turned else picture.size
            wanted = crop_size(size, width, height) if method == "crop" else scale_size(size, width, height)
            if wanted == size and not moves:
                return ORIGINAL_WILL_DO
            profile = picture.info.get("icc_profile")
            # A JPEG decoder can leave out what a small result won't show.
            ask = cover(size, wanted)
            picture.draft("RGB", (ask[1], ask[0]) if turned else ask)
            small = ImageOps.exif_transpose(plain(picture)) or picture
            if method == "crop":
                small = ImageOps.fit(small, wanted, Image.Resampling.LANCZOS)
            elif small.size != wanted:
                small = small.resize(wanted, Image.Resampling.LANCZOS, reducing_gap=2.0)
            return write(small, profile)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError):
        return TOO_LARGE
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, Warning):
        return NOT_READABLE  # what Pillow's plugins raise for broken files


def scale_size(size: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    """The largest of the same shape that fits into the box; never larger than the picture."""
    if size[0] <= width and size[1] <= height:
        return size
    if size[0] * height >= size[1] * width:
        return width, max(1, round(size[1] * width / size[0]))
    return max(1, round(size[0] * height / size[1])), height


def crop_size(size: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    """What is asked for, or as much of that shape as the picture has."""
    shrink = min(1.0, size[0] / width, size[1] / height)
    return max(1, round(width * shrink)), max(1, round(height * shrink))


def cover(size: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int]:
    """The smallest of the picture's shape that has no side shorter than wanted."""
    factor = max(wanted[0] / size[0], wanted[1] / size[1])
    return max(1, int(size[0] * factor)), max(1, int(size[1] * factor))


def plain(picture: Image.Image) -> Image.Image:
    """The first frame, in a mode that can be resized and saved."""
    if picture.mode in ("RGB", "RGBA", "L", "LA"):
        picture.load()
        return picture
    if picture.mode.startswith("I;16") or picture.mode == "I":
        return picture.convert("I").point(lambda value: value / 256).convert("L")
    transparent = "transparency" in picture.info or picture.mode in ("PA", "La", "RGBa")
    return picture.convert("RGBA" if transparent else "RGB")


def write(picture: Image.Image, profile: bytes | None) -> int:
    options = {"icc_profile": profile if profile and len(profile) <= MAX_PROFILE else None}
    if picture.mode in ("RGBA", "LA") and picture.getchannel("A").getextrema() != (255, 255):
        picture.save(sys.stdout.buffer, "PNG", compress_level=6, **options)
    else:
        flat = picture.convert("L" if picture.mode in ("L", "LA") else "RGB")
        flat.save(sys.stdout.buffer, "JPEG", quality=JPEG_QUALITY, progressive=True, **options)
    sys.stdout.buffer.flush()
    return DONE


if __name__ == "__main__":
    status = main(sys.argv[1:])
    # Without the interpreter's own ending, which would only free what the system frees anyway.
    os._exit(status)
