"""Every kind of image is read with the values that it shows, or refused by its name."""

import io
import struct
import zlib

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from test_datasets import load, pictures, write

from fcfn_abm import memory
from fcfn_abm.errors import InvalidDataError

GREY = pictures(1, (6, 5))[0]
COLOUR = pictures(1, (6, 5, 3), seed=1)[0]
INK = np.arange(0, 240, 8, dtype=np.uint8).reshape(6, 5)  # how opaque


def saved(image, form="PNG", **options):
    place = io.BytesIO()
    image.save(place, form, **options)
    return place.getvalue()


def read(tmp_path, *images, **options):
    """Store images as they are, and return all of them as they are read for training."""
    rows = list(images)
    write(tmp_path / "train.parquet", rows, [0] * len(rows), encode=lambda image: image)
    write(tmp_path / "test.parquet", rows[:1], [0], encode=lambda image: image)
    return load("parquet", path=str(tmp_path), **options).train_images


def shown(pixels, most=255):
    """Return what an array of pixels shows: channels first, from 0 to 1."""
    channels = pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)
    return channels.astype(np.float32) / np.float32(most)


def test_grey_of_16_bits_keeps_every_value(tmp_path):
    ramp = np.linspace(0, 65_535, 30).astype(np.uint16).reshape(6, 5)
    (image,) = read(tmp_path, saved(Image.fromarray(ramp)))
    assert_array_equal(image, shown(ramp, 65_535))
    assert len(np.unique(image)) == 30


def test_8_and_16_bits_have_one_scale(tmp_path):
    half = np.full((6, 5), 128, dtype=np.uint8)
    wide = half.astype(np.uint16) * 257  # the same brightness
    write(tmp_path / "train.parquet", [half] * 4, [0] * 4)
    write(tmp_path / "test.parquet", [wide] * 4, [0] * 4)
    for split in ("own", "paper"):
        data = load("parquet", path=str(tmp_path), split=split)
        for images in (data.train_images, data.test_images):
            assert_array_equal(images, np.full_like(images, np.float32(128) / np.float32(255)))


def in_palette(colours):
    """Return an image that has each of 30 colours once."""
    image = Image.new("P", (5, 6))
    image.putdata(range(30))
    image.putpalette(colours.reshape(-1).tolist())
    return image


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(GREY),
        Image.merge("LA", (Image.fromarray(GREY), Image.new("L", (5, 6), 255))),
        in_palette(np.repeat(GREY.reshape(-1, 1), 3, axis=1)),
    ],
    ids=["L", "LA", "P"],
)
def test_grey_is_one_channel_however_it_is_stored(tmp_path, image):
    assert_array_equal(read(tmp_path, saved(image)), [shown(GREY)])


@pytest.mark.parametrize(
    "image",
    [
        saved(Image.fromarray(COLOUR)),
        saved(Image.fromarray(np.dstack([COLOUR, np.full((6, 5), 255, np.uint8)]))),
        saved(in_palette(COLOUR)),
        saved(Image.fromarray(COLOUR), "WEBP", lossless=True),
        saved(Image.fromarray(COLOUR), "BMP"),
        saved(Image.fromarray(COLOUR), "TIFF"),
    ],
    ids=["RGB", "RGBA", "P", "WebP", "BMP", "TIFF"],
)
def test_colour_is_three_channels_however_it_is_stored(tmp_path, image):
    assert_array_equal(read(tmp_path, image), [shown(COLOUR)])


def test_black_and_white_is_grey_of_two_values(tmp_path):
    image = Image.fromarray(GREY > 127)
    assert image.mode == "1"
    assert_array_equal(read(tmp_path, saved(image))[0, 0], GREY > 127)


def drawn_in_alpha(mode):
    """Return black ink on nothing."""
    ink = Image.new(mode, (5, 6))
    ink.putalpha(Image.fromarray(INK))
    return saved(ink)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_ink_on_nothing_shows_on_the_background_that_was_asked_for(tmp_path, mode):
    image = drawn_in_alpha(mode)
    n_channels = len(mode)
    (white,) = read(tmp_path, image, background="white")
    assert_array_equal(white, np.repeat(shown(255 - INK), n_channels, axis=0))
    (black,) = read(tmp_path, image, background="black")
    assert_array_equal(black, np.zeros((n_channels, 6, 5)))
    with pytest.raises(InvalidDataError, match=r"row 0 is partly transparent.*background = \"wh"):
        read(tmp_path, image)
    with pytest.raises(ValueError, match="background"):
        read(tmp_path, image, background="green")


@pytest.mark.parametrize(
    "image",
    [Image.fromarray(GREY), Image.fromarray(COLOUR), in_palette(COLOUR)],
    ids=["L", "RGB", "P"],
)
def test_a_colour_that_stands_for_nothing_is_transparent(tmp_path, image):
    first = image.getpixel((0, 0))
    with pytest.raises(InvalidDataError, match="partly transparent"):
        read(tmp_path, saved(image, transparency=first))
    (read_again,) = read(tmp_path, saved(image, transparency=first), background="white")
    assert (read_again[:, 0, 0] == 1).all()
    assert_array_equal(read_again[:, 1:], read(tmp_path, saved(image))[0][:, 1:])


@pytest.mark.parametrize(
    ("image", "form", "mode"),
    [
        (Image.fromarray(GREY.astype(np.float32)), "TIFF", "F"),
        (Image.fromarray(GREY.astype(np.int32)), "TIFF", "I"),
        (Image.fromarray(GREY.astype(np.uint16)), "TIFF", "I;16"),  # 12 bits are stored so too
        (Image.fromarray(COLOUR).convert("CMYK"), "JPEG", "CMYK"),
        (Image.fromarray(COLOUR).convert("LAB"), "TIFF", "LAB"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_without_a_known_scale_are_refused_by_file_row_and_mode(tmp_path, image, form, mode):
    place = "train.parquet: the image in row 1"
    words = rf"{place} is a {form} of mode '{mode}', whose scale of values is unknown"
    with pytest.raises(InvalidDataError, match=words):
        read(tmp_path, saved(Image.fromarray(GREY)), saved(image, form))


def test_an_animation_is_not_its_first_picture(tmp_path):
    frames = [Image.fromarray(grey) for grey in pictures(3)]
    for form in ("GIF", "PNG", "TIFF"):
        many = saved(frames[0], form, save_all=True, append_images=frames[1:])
        with pytest.raises(InvalidDataError, match=f"row 0 is a {form} with 3 frames"):
            read(tmp_path, many)


def test_photographs_are_turned_as_the_camera_noted(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    (image,) = read(tmp_path, saved(Image.fromarray(COLOUR), exif=exif))
    assert_array_equal(image, shown(np.rot90(COLOUR, -1)))


def bomb(width, height):
    """Return a small PNG that claims to be large."""

    def chunk(name, data):
        head = struct.pack(">I", len(data)) + name + data
        return head + struct.pack(">I", zlib.crc32(name + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"")
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def test_an_image_of_very_many_pixels_is_not_decoded(tmp_path):
    for side in (12_000, 20_000):  # Pillow warns of the one, and refuses the other
        with pytest.raises(InvalidDataError, match=r"row 1 has more than 89,478,485 pixels"):
            read(tmp_path, saved(Image.fromarray(GREY)), bomb(side, side))


def test_images_are_counted_before_they_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_LIMITS", (tmp_path / "limit",))
    (tmp_path / "limit").write_text(str(100_000_000))
    large = saved(Image.new("L", (1000, 1000)))
    read(tmp_path, *[large] * 20)  # 5 bytes each: just as much
    words = r"train.parquet: 21 images of 1000 x 1000 in grey need about 0.098 GiB .*n_train"
    with pytest.raises(InvalidDataError, match=words):
        read(tmp_path, *[large] * 20, b"not decoded")
    read(tmp_path, *[large] * 20, b"not decoded", n_train=2)


def test_programs_are_not_run_on_images(tmp_path):
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 6\nshowpage\n"
    with pytest.raises(InvalidDataError, match="cannot be decoded"):
        read(tmp_path, postscript)
