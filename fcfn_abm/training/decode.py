"""Decoding of images to arrays without implicit loss."""

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

_FORMATS = (
    "PNG",
    "JPEG",
    "WEBP",
    "GIF",
    "BMP",
    "TIFF",
)  # Pillow supports others, some through external programs
_GREY = {"1", "L", "LA"}
_COLOUR = {"RGB", "RGBA"}
_PALETTE = {"P", "PA"}
_GREY_OF_16_BITS = {"I;16", "I;16B", "I"}  # Pillow's names differ between versions
_OPAQUE = 255
_UPRIGHT = 1  # among EXIF orientations
_ORIENTATION = 0x0112
_BYTES_A_VALUE = 4 + 1  # as float32 and as decoded


def decode_images(
    file: Path, encoded: Iterable[bytes | None], rows: Labels, background: Background | None
) -> Pixels:
    """Decode some images of a file.

    Grey images have one channel, colour images three; grey images with a palette or an opaque alpha
    channel are grey. 16-bit grey PNGs keep their depth. Photographs are rotated by their EXIF tag.

    Parameters
    ----------
    file : Path
        File of the images, for messages.
    encoded : iterable of bytes
        Encoded images; None for a missing one.
    rows : array of int, shape (n,)
        Row of each image in the file, for messages.
    background : {"white", "black"}, optional
        Background of transparent pixels; by default they are rejected.

    Returns
    -------
    array of uint8 or uint16, shape (n, channels, height, width)

    Raises
    ------
    InvalidDataError
        If an image cannot be decoded, has values of unknown scale, or differs in size or type from
        the others (names the first such row); or if the images do not fit into memory.
    MissingExtraError
        If Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError(
            "Reading images requires Pillow, which is not installed: pip install 'fcfn-abm[train]'."
        ) from None
    images: Pixels | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata, which is not used
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for place, (row, data) in enumerate(zip(rows, encoded, strict=True)):
            pixels = _decode(f"{file}: the image in row {row}", data, background)
            if images is None:
                _require_room(file, len(rows), pixels.shape)
                images = np.empty((len(rows), *pixels.shape), dtype=pixels.dtype)
            if (pixels.shape, pixels.dtype) != (images.shape[1:], images.dtype):
                raise InvalidDataError(
                    f"{file}: all images must have the same size and type, but row {row} is "
                    f"{_describe(pixels)} and row {rows[0]} is {_describe(images[0])}."
                )
            images[place] = pixels
    return np.empty((0, 1, 1, 1), dtype=np.uint8) if images is None else images


def _decode(what: str, data: bytes | None, background: Background | None) -> Pixels:
    """Decode one image; shape (channels, height, width)."""
    from PIL import Image, ImageOps

    if data is None:
        raise InvalidDataError(f"{what} is missing.")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            image.load()
            form = image.format
            n_frames = (
                1 if form == "MPO" else getattr(image, "n_frames", 1)
            )  # MPO: photographs with previews
            is_turned = image.getexif().get(_ORIENTATION, _UPRIGHT) != _UPRIGHT
            upright = ImageOps.exif_transpose(image) if is_turned else image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InvalidDataError(
            f"{what} has more than {Image.MAX_IMAGE_PIXELS or 0:,} pixels, the limit."
        ) from None
    except Exception:  # Pillow raises many exceptions for corrupt files
        raise InvalidDataError(f"{what} cannot be decoded.") from None
    if n_frames > 1:
        raise InvalidDataError(f"{what} is a {form} with {n_frames} frames; one is allowed.")
    if form == "PNG" and upright.mode in _GREY_OF_16_BITS and "transparency" not in upright.info:
        return np.asarray(upright).astype(np.uint16)[None]
    if upright.mode not in _GREY | _COLOUR | _PALETTE:
        raise InvalidDataError(
            f"{what} is a {form} of mode {upright.mode!r}, whose scale of values is unknown; "
            "store images as PNG, grey (8 or 16 bits) or RGB."
        )
    pixels = np.asarray(_flatten(what, upright, background))
    return pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)


def _flatten(what: str, image: PIL.Image.Image, background: Background | None) -> PIL.Image.Image:
    """Return an image of mode L or RGB, without palette and transparency."""
    from PIL import Image

    is_grey = image.mode in _GREY or (image.mode in _PALETTE and _has_grey_palette(image))
    if not image.has_transparency_data and image.mode in {"L", "RGB"}:
        return image
    if image.has_transparency_data:
        image = image.convert("RGBA")
        is_opaque = bool((np.asarray(image.getchannel("A")) == _OPAQUE).all())
        if not is_opaque and background is None:
            raise InvalidDataError(
                f'{what} is partly transparent; set background = "white" or "black".'
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
    """Raise if the decoded images would not fit into memory."""
    needed, memory = n_images * int(np.prod(shape)) * _BYTES_A_VALUE, measure_memory()
    if needed > memory:
        raise InvalidDataError(
            f"{file}: {n_images:,} images of {describe_kind(shape)} need about "
            f"{format_gib(needed)} GiB of memory, but {format_gib(memory)} are available; use "
            "fewer (n_train, n_test)."
        )
