"""One image file becomes one square of uint8 RGB pixels, or a reason why it can't."""

import math
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from bench.data.dataset import NO_LABEL, UnreadableError
from bench.data.framing import AS_IT_IS, WHITE, Framing

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM")
_SEVERAL_PICTURES_FINE = {"MPO"}  # a phone's JPEG with a depth map or preview behind the picture
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


def to_square(image: Image.Image, side: int, framing: Framing = AS_IT_IS) -> np.ndarray:
    """Return an image as a square, resized: uint8, shape (side, side, 3), RGB.

    Antialiased bicubic; a picture that has the size already keeps its pixels. The centre square is the same
    as resizing the shorter side and cropping the centre, but cropped first, so that a picture of 8000x1
    pixels stays small.

    Args:
        image: of any shape.
        side: pixels.
        framing: what of it is shown, and how deep pixels are scaled.

    Raises:
        UnreadableError: for 32-bit pixels, which don't say what white is.
    """
    width, height = image.size
    scale = side / (max(width, height) if framing.fit == "pad" else min(width, height))
    if scale < 1:  # JPEG only: decode at 1/2, 1/4 or 1/8 where that is still large enough
        image.draft(None, (math.ceil(width * scale), math.ceil(height * scale)))
    plain = _to_plain(ImageOps.exif_transpose(image), framing)
    if framing.fit == "pad":
        return np.asarray(_on_grey(plain, side))
    width, height = plain.size
    shorter = min(width, height)
    left, top = (width - shorter) / 2, (height - shorter) / 2
    box = (left, top, left + shorter, top + shorter) if framing.fit == "crop" else None
    square = plain.resize((side, side), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    return np.asarray(square.convert("RGB"))


def to_whole_square(image: Image.Image, side: int, framing: Framing = AS_IT_IS) -> np.ndarray:
    """Return an image whole on a grey square, as one with a mask is: uint8, shape (side, side, 3)."""
    return np.asarray(_on_grey(_to_plain(ImageOps.exif_transpose(image), framing), side))


def part_shown(size: tuple[int, int], side: int) -> tuple[slice, slice]:
    """Return the rows and columns of a square that an image takes which is whole in it.

    Args:
        size: the image's width and height.
        side: of the square.
    """
    (width, height), (left, top) = _within(size, side), _centred(_within(size, side), side)
    return slice(top, top + height), slice(left, left + width)


def upright(image: Image.Image, framing: Framing = AS_IT_IS) -> Image.Image:
    """Return an image as it is seen: turned as its EXIF says, on white, in RGB of 8 bits."""
    return _to_plain(ImageOps.exif_transpose(image), framing).convert("RGB")


def seen_size(image: Image.Image) -> tuple[int, int]:
    """Return the width and height of an image as it is seen."""
    width, height = image.size
    return (height, width) if orientation(image) >= _QUARTER_TURNS else (width, height)


def _on_grey(plain: Image.Image, side: int) -> Image.Image:
    """Return all of a picture, its longer side resized to `side`, in the centre of a grey square."""
    size = _within(plain.size, side)
    square = Image.new("RGB", (side, side), _GREY)
    resized = plain.convert("RGB").resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    square.paste(resized, _centred(size, side))
    return square


def _within(size: tuple[int, int], side: int) -> tuple[int, int]:
    scale = side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _centred(size: tuple[int, int], side: int) -> tuple[int, int]:
    return (side - size[0]) // 2, (side - size[1]) // 2


def to_square_with_mask(
    image: Image.Image, mask: Image.Image, side: int, framing: Framing = AS_IT_IS
) -> tuple[np.ndarray, np.ndarray]:
    """Return image and mask, the longer side resized to `side`, centred on a square: nothing is cropped.

    Image: uint8, shape (side, side, 3), antialiased bicubic, on grey. Mask: uint8, shape (side, side), by the
    nearest pixel, NO_LABEL around it. What has the size already keeps its pixels.

    Raises:
        UnreadableError: if the mask has another size than the image, or may lie over it in two ways.
    """
    mask = _turned_alike(mask, image)
    plain = _to_plain(ImageOps.exif_transpose(image), framing)
    if mask.size != plain.size:
        raise UnreadableError("its mask is {}x{}, the image {}x{}".format(*mask.size, *plain.size))
    size, labels = _within(plain.size, side), Image.new("L", (side, side), NO_LABEL)
    labels.paste(mask.resize(size, Image.Resampling.NEAREST), _centred(size, side))
    return np.asarray(_on_grey(plain, side)), np.asarray(labels)


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


def _to_plain(image: Image.Image, framing: Framing) -> Image.Image:
    """Return the image in RGB or 8-bit grey: what is transparent lies on white, 16 bits are scaled to 8.

    Raises:
        UnreadableError: for 32-bit pixels, which don't say what white is.
    """
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bit(image, framing.levels))
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return image if image.mode == "L" else image.convert("RGB")


def _eight_bit(image: Image.Image, levels: tuple[int, int]) -> np.ndarray:
    values, (black, white) = np.asarray(image), levels
    low, high = values.min(), values.max()
    if image.mode == "F" or low < 0 or high > WHITE:
        raise UnreadableError(f"32-bit pixels from {low:g} to {high:g}; save it with 8 or 16 bits")
    scaled = (values.astype(np.int64).clip(black, white) - black) * 510 + (white - black)
    return (scaled // (2 * (white - black))).astype(np.uint8)
