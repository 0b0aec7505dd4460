"""One image file becomes one square of uint8 RGB pixels, or a reason why it can't."""

import math
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from bench.data.dataset import NO_LABEL, UnreadableError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM")
_SEVERAL_PICTURES_FINE = {"MPO"}  # a phone's JPEG with a depth map or preview behind the picture
_TALLEST_16_BIT = 65535
UPRIGHT = 1  # EXIF: the pixels are stored as they are seen
_QUARTER_TURNS = 5  # EXIF orientations from this one on swap width and height
TURNED = "turned"  # in a mask's info: it was turned as its own EXIF says
_GREY = (128, 128, 128)  # around an image that is no square


def open_image(file: Path | bytes) -> Image.Image:
    """Open a picture without decoding it yet; the content decides its format, not the suffix.

    Raises:
        UnreadableError: for an empty file, another format than the listed ones, or several pictures in one.
    """
    if (len(file) if isinstance(file, bytes) else file.stat().st_size) == 0:
        raise UnreadableError("the file is empty")
    try:
        image = Image.open(BytesIO(file) if isinstance(file, bytes) else file, formats=_FORMATS)
    except UnidentifiedImageError:
        raise UnreadableError(f"not a {', '.join(_FORMATS)} picture") from None
    if (frames := getattr(image, "n_frames", 1)) > 1 and image.format not in _SEVERAL_PICTURES_FINE:
        image.close()
        raise UnreadableError(f"holds {frames} pictures, not one")
    return image


def to_square(image: Image.Image, side: int) -> np.ndarray:
    """Return the centre square of an image, resized: uint8, shape (side, side, 3), RGB.

    The same as resizing the shorter side and cropping the centre, but cropped first, so that a picture of
    8000x1 pixels stays small. Antialiased bicubic; a picture that has the size already keeps its pixels.
    """
    width, height = image.size
    shorter = min(width, height)
    scale = side / shorter
    if scale < 1:  # JPEG only: decode at 1/2, 1/4 or 1/8 where that is still large enough
        image.draft(None, (math.ceil(width * scale), math.ceil(height * scale)))
    plain = _to_plain(ImageOps.exif_transpose(image))
    width, height = plain.size
    shorter = min(width, height)
    left, top = (width - shorter) / 2, (height - shorter) / 2
    box = (left, top, left + shorter, top + shorter)
    square = plain.resize((side, side), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    return np.asarray(square.convert("RGB"))


def to_square_with_mask(image: Image.Image, mask: Image.Image, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return image and mask, the longer side resized to `side`, centred on a square: nothing is cropped.

    Image: uint8, shape (side, side, 3), antialiased bicubic, on grey. Mask: uint8, shape (side, side), by the
    nearest pixel, NO_LABEL around it. What has the size already keeps its pixels.

    Raises:
        UnreadableError: if the mask has another size than the image, or may lie over it in two ways.
    """
    mask = _turned_alike(mask, image)
    plain = _to_plain(ImageOps.exif_transpose(image)).convert("RGB")
    if mask.size != plain.size:
        raise UnreadableError("its mask is {}x{}, the image {}x{}".format(*mask.size, *plain.size))
    scale = side / max(plain.size)
    width, height = (max(1, round(length * scale)) for length in plain.size)
    corner = (side - width) // 2, (side - height) // 2
    square, labels = Image.new("RGB", (side, side), _GREY), Image.new("L", (side, side), NO_LABEL)
    square.paste(plain.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0), corner)
    labels.paste(mask.resize((width, height), Image.Resampling.NEAREST), corner)
    return np.asarray(square), np.asarray(labels)


def orientation(image: Image.Image) -> int:
    """Return how a picture is to be turned before it is seen, by its EXIF."""
    found = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    return found if found in range(UPRIGHT, 9) else UPRIGHT


def _turned_alike(mask: Image.Image, image: Image.Image) -> Image.Image:
    """Return the mask of a picture that EXIF turns, turned too if it lies over the pixels as they are stored.

    Some tools draw masks over the picture as it is seen, others over its pixels; their sizes may tell.
    """
    turn = orientation(image)
    if turn == UPRIGHT or mask.info.get(TURNED):
        return mask
    seen = image.size[::-1] if turn >= _QUARTER_TURNS else image.size
    if seen == image.size:
        raise UnreadableError(
            "EXIF turns it, and nothing tells whether its mask is turned too; save both upright"
        )
    if mask.size == image.size:
        mask.getexif()[ExifTags.Base.Orientation] = turn
        return ImageOps.exif_transpose(mask)
    return mask


def _to_plain(image: Image.Image) -> Image.Image:
    """Return the image in RGB or 8-bit grey: what is transparent lies on white, 16 bits are scaled to 8.

    Raises:
        UnreadableError: for 32-bit pixels, which don't say what white is.
    """
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bit(image))
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return image if image.mode == "L" else image.convert("RGB")


def _eight_bit(image: Image.Image) -> np.ndarray:
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if image.mode == "F" or low < 0 or high > _TALLEST_16_BIT:
        raise UnreadableError(f"32-bit pixels from {low:g} to {high:g}; save it with 8 or 16 bits")
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
