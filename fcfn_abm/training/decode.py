"""Encoded images become arrays without a loss that nobody asked for."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from fcfn_abm.errors import InvalidDataError, MissingExtraError
from fcfn_abm.memory import format_gib, measure_memory
from fcfn_abm.training.sources import Labels, Pixels, describe_kind

if TYPE_CHECKING:
    import PIL.Image

type Background = Literal["white", "black"]

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # Pillow has others, and runs programs
_GREY = {"1", "L", "LA"}
_COLOUR = {"RGB", "RGBA"}
_PALETTE = {"P", "PA"}
_GREY_OF_16_BITS = {"I;16", "I;16B", "I"}  # Pillow's names of it have changed
_OPAQUE = 255
_UPRIGHT = 1  # of the orientations that a camera notes
_ORIENTATION = 0x0112
_BYTES_A_VALUE = 4 + 1  # as a float32, and as it was decoded


def decode_images(
    file: Path, encoded: Iterable[bytes | None], rows: Labels, background: Background | None
) -> Pixels:
    """Decode some images of a file.

    Grey is one channel, colour three; grey stored with a palette or an opaque alpha channel is
    grey. Grey PNG of 16 bits keeps them. A photograph is turned as its camera noted.

    Parameters
    ----------
    file : Path
        Where they come from, for messages.
    encoded : iterable of bytes
        One image each; None is missing.
    rows : array of int, shape (n,)
        Number of each image in the file, for messages.
    background : {"white", "black"}, optional
        What shows through transparent pixels; without it they are refused.

    Returns
    -------
    array of uint8 or uint16, shape (n, channels, height, width)

    Raises
    ------
    InvalidDataError
        Names the first row whose image cannot be decoded, has values without a scale, or is of
        another size or kind than the others; or says that the images do not fit into memory.
    MissingExtraError
        Without Pillow.
    """
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError(
            "Reading images needs Pillow, which is not installed: pip install 'fcfn-abm[train]'."
        ) from None
    images: Pixels | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata, which nothing here reads
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for place, (row, data) in enumerate(zip(rows, encoded, strict=True)):
            pixels = _decode(f"{file}: the image in row {row}", data, background)
            if images is None:
                _require_room(file, len(rows), pixels.shape)
                images = np.empty((len(rows), *pixels.shape), dtype=pixels.dtype)
            if (pixels.shape, pixels.dtype) != (images.shape[1:], images.dtype):
                raise InvalidDataError(
                    f"{file}: all images must be of one size and kind, but row {row} is "
                    f"{_describe(pixels)} and row {rows[0]} is {_describe(images[0])}."
                )
            images[place] = pixels
    return np.empty((0, 1, 1, 1), dtype=np.uint8) if images is None else images


def _decode(what: str, data: bytes | None, background: Background | None) -> Pixels:
    """Decode one image; shape (channels, height, width)."""
    from PIL import Image, ImageOps

    if data is None:
        raise InvalidDataError(f"{what} is missing: the file holds no bytes of it.")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            image.load()
            form = image.format
            n_frames = 1 if form == "MPO" else getattr(image, "n_frames", 1)  # MPO: photographs
            is_turned = image.getexif().get(_ORIENTATION, _UPRIGHT) != _UPRIGHT
            upright = ImageOps.exif_transpose(image) if is_turned else image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InvalidDataError(
            f"{what} has more than {Image.MAX_IMAGE_PIXELS or 0:,} pixels, and is not decoded."
        ) from None
    except Exception:  # Pillow raises whatever a damaged file leads to
        raise InvalidDataError(f"{what} cannot be decoded.") from None
    if n_frames > 1:
        raise InvalidDataError(f"{what} is a {form} of {n_frames} images: one is expected.")
    if form == "PNG" and upright.mode in _GREY_OF_16_BITS and "transparency" not in upright.info:
        return np.asarray(upright).astype(np.uint16)[None]
    if upright.mode not in _GREY | _COLOUR | _PALETTE:
        raise InvalidDataError(
            f"{what} is a {form} of mode {upright.mode!r}, for whose values no scale is known: "
            "store images as PNG, grey (8 or 16 bits) or RGB."
        )
    pixels = np.asarray(_flatten(what, upright, background))
    return pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)


def _flatten(what: str, image: PIL.Image.Image, background: Background | None) -> PIL.Image.Image:
    """Return an image of mode L or RGB: without a palette, and without transparency."""
    from PIL import Image

    is_grey = image.mode in _GREY or (image.mode in _PALETTE and _has_grey_palette(image))
    if not image.has_transparency_data and image.mode in {"L", "RGB"}:
        return image
    if image.has_transparency_data:
        image = image.convert("RGBA")
        is_opaque = bool((np.asarray(image.getchannel("A")) == _OPAQUE).all())
        if not is_opaque and background is None:
            raise InvalidDataError(
                f"{what} is partly transparent: say what shows through, with background = "
                '"white" or "black".'
            )
        if not is_opaque:
            image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    return image.convert("RGB").convert("L" if is_grey else "RGB")


def _has_grey_palette(image: PIL.Image.Image) -> bool:
    colours = np.array(image.getpalette("RGB")).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def _describe(pixels: Pixels) -> str:
    bits = " of 16 bits" if pixels.dtype == np.uint16 else ""
    return f"{describe_kind(pixels.shape)}{bits}"


def _require_room(file: Path, n_images: int, shape: tuple[int, ...]) -> None:
    """Raise if so many images do not fit into memory; before they are decoded."""
    needed, memory = n_images * int(np.prod(shape)) * _BYTES_A_VALUE, measure_memory()
    if needed > memory:
        raise InvalidDataError(
            f"{file}: {n_images:,} images of {describe_kind(shape)} need about "
            f"{format_gib(needed)} GiB of memory, and there are {format_gib(memory)}: use fewer "
            "(n_train, n_test)."
        )
