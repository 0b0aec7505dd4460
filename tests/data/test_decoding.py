"""Image files of every odd kind, through `load`."""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.core.errors import InputError
from bench.data.decoding import open_image, part_shown, to_square, to_square_with_mask, to_whole_square
from bench.data.framing import Framing
from bench.data.loading import load
from bench.study.schema import Target

TARGET = Target(data="unused", image_size=28)  # stored at 32


def square(image, side=4):
    return to_square(image, side)


def make_class_folders(root: Path, classes=("ants", "bees"), count=2) -> Path:
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV"])
def test_opaque_modes_keep_their_colour(mode):
    white = Image.new("RGB", (6, 4), "white").convert(mode)
    assert (square(white) >= 250).all()
    assert square(white).shape == (4, 4, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_pixels_lie_on_white(mode):
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0)).convert(mode)
    assert (square(image) == 255).all()


def test_half_transparent_pixels_are_blended_with_white():
    assert np.allclose(square(Image.new("RGBA", (4, 4), (0, 100, 200, 128))), (127, 177, 227), atol=1)


def test_a_palette_with_a_transparent_colour(tmp_path):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((0, 0), 1)
    image.save(tmp_path / "p.png", transparency=0)
    pixels = square(open_image(tmp_path / "p.png"))
    assert pixels[0, 0].tolist() == [40, 50, 60]
    assert (pixels[1:] == 255).all()


@pytest.mark.parametrize(("value", "eight_bit"), [(0, 0), (257, 1), (32768, 128), (65535, 255)])
def test_16_bit_grey_is_scaled_to_8(tmp_path, value, eight_bit):
    Image.fromarray(np.full((4, 4), value, dtype=np.uint16)).save(tmp_path / "deep.png")
    assert (square(open_image(tmp_path / "deep.png")) == eight_bit).all()


def test_16_bit_grey_is_scaled_by_the_levels_of_its_data_set():
    values = np.array([[0, 1000, 1500, 2000, 4000]], dtype=np.uint16)
    image = Image.fromarray(np.repeat(values, 5, 0))
    pixels = to_square(image, 5, Framing(levels=(1000, 2000)))
    assert pixels[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def stripe(pixel):
    """Which channel is bright; 3: none, it is grey."""
    return 3 if np.ptp(pixel.astype(int)) < 10 else int(pixel.argmax())


@pytest.mark.parametrize("turned", [False, True])
def test_what_of_a_picture_is_shown(turned):
    """Of stripes of red, green and blue, three times as wide as high."""
    image = Image.fromarray(np.repeat(np.eye(3, dtype=np.uint8) * 255, 24, 0)[None].repeat(24, 0))
    image = image.transpose(Image.Transpose.ROTATE_270) if turned else image

    def shown(fit):
        pixels = to_square(image, 9, Framing(fit=fit))
        return [[stripe(pixel) for pixel in row] for row in (np.rot90(pixels) if turned else pixels)]

    whole = [0] * 3 + [1] * 3 + [2] * 3
    assert shown("crop") == [[1] * 9] * 9
    assert shown("stretch") == [whole] * 9
    assert shown("pad") == [[3] * 9] * 3 + [whole] * 3 + [[3] * 9] * 3


def test_the_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (64, 64), "black")
    image.paste("white", (0, 0, 64, 32))  # white above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter: white is then on the right
    image.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    pixels = square(open_image(tmp_path / "turned.jpg"), 64)
    assert pixels[:, 40:].min() > 200
    assert pixels[:, :24].max() < 50


def test_the_centre_square_is_taken():
    image = Image.new("RGB", (90, 30), "black")
    image.paste("white", (30, 0, 60, 30))
    assert (square(image, 30) == 255).all()


def test_an_image_of_the_right_size_keeps_its_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert (square(Image.fromarray(pixels), 32) == pixels).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 8000), (8000, 1), (8000, 8000)])
def test_sizes_from_1x1_to_8000x8000(tmp_path, size):
    Image.new("L", size, 200).save(tmp_path / "image.jpg")
    assert np.allclose(square(open_image(tmp_path / "image.jpg"), 32), 200, atol=2)


def test_a_large_jpeg_is_decoded_at_a_fraction_to_nearly_the_same_pixels(tmp_path):
    ramp = np.linspace(0, 255, 900).astype(np.uint8)
    image = Image.fromarray(np.stack([np.tile(ramp, (900, 1))] * 3, axis=2))
    image.save(tmp_path / "large.jpg", quality=95)
    drafted = square(open_image(tmp_path / "large.jpg"), 64).astype(int)
    assert np.abs(drafted - square(image, 64)).max() <= 4


BAD = {
    "truncated.jpg": "can't be decoded",
    "empty.png": "the file is empty",
    "text.jpg": "not a JPEG",
    "notice.gif": ".gif is not among",
    "gif_inside.jpg": "not a JPEG",
    "animated.webp": "holds 2 pictures",
    "pages.tif": "holds 2 pictures",
    "floats.tif": "32-bit pixels",
    "deep.tif": "32-bit pixels",
    "bomb.png": "more than 89,478,485 pixels",
    "big_bomb.png": "more than 89,478,485 pixels",
    "broken_header.png": "can't be decoded",
    "notes.txt": ".txt is not among",
    "no_suffix": "no suffix is not among",
}


def write_bad_files(folder: Path) -> None:
    noise = Image.effect_noise((60, 60), 80)
    noise.save(folder / "whole.jpg")
    (folder / "truncated.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:700])
    (folder / "whole.jpg").unlink()
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("not an image at all")
    (folder / "notes.txt").write_text("notes")
    (folder / "no_suffix").write_text("?")
    noise.save(folder / "notice.gif")
    (folder / "gif_inside.jpg").write_bytes((folder / "notice.gif").read_bytes())
    other = Image.effect_noise((60, 60), 20)
    noise.convert("RGB").save(folder / "animated.webp", save_all=True, append_images=[other.convert("RGB")])
    noise.save(folder / "pages.tif", save_all=True, append_images=[other])
    Image.fromarray(np.ones((8, 8), dtype=np.float32)).save(folder / "floats.tif")
    Image.fromarray(np.full((8, 8), 70_000, dtype=np.int32)).save(folder / "deep.tif")
    (folder / "bomb.png").write_bytes(png_that_claims(10_000, 10_000))
    (folder / "big_bomb.png").write_bytes(png_that_claims(20_000, 20_000))
    (folder / "broken_header.png").write_bytes(png_that_claims(40, 40)[:45])


def test_every_bad_file_is_named_with_its_reason_and_left_out(tmp_path):
    write_bad_files(make_class_folders(tmp_path / "data") / "ants")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = load(TARGET, tmp_path / "data")
    assert dataset.names == ("ants/0.png", "ants/1.png", "bees/0.png", "bees/1.png")
    reasons = {r.name.removeprefix("ants/"): r.reason for r in dataset.rejected}
    assert set(reasons) == set(BAD)
    for name, start in BAD.items():
        assert reasons[name].startswith(start), f"{name}: {reasons[name]}"


def test_the_content_decides_the_format_not_the_suffix(tmp_path):
    make_class_folders(tmp_path / "data")
    (tmp_path / "data" / "ants" / "0.png").rename(tmp_path / "data" / "ants" / "0.jpg")
    assert "ants/0.jpg" in load(TARGET, tmp_path / "data").names


def test_a_class_of_which_no_image_can_be_read_is_an_error(tmp_path):
    make_class_folders(tmp_path / "data", ("ants", "bees", "wasps"))
    for file in (tmp_path / "data" / "bees").iterdir():
        file.write_bytes(b"")
    with pytest.raises(
        InputError, match=r"class 'bees' has no usable image \(2 left out, such as bees/0.png"
    ):
        load(TARGET, tmp_path / "data")


def test_no_readable_image_at_all_is_an_error(tmp_path):
    for file in make_class_folders(tmp_path / "data").rglob("*.png"):
        file.write_bytes(b"x")
    with pytest.raises(InputError, match="there is no usable image"):
        load(TARGET, tmp_path / "data")


@pytest.mark.parametrize("size", [(48, 32), (31, 48), (48, 48), (48, 1)])
def test_a_mask_comes_off_the_square_as_it_was_put_there(size):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    mask = Image.fromarray(rng.integers(0, 5, (size[1], size[0]), dtype=np.uint8))
    pixels, placed = to_square_with_mask(image, mask, 48)
    part = part_shown(size, 48)
    assert np.array_equal(placed[part], np.asarray(mask))
    around = placed.copy()
    around[part] = 255
    assert (around == 255).all(), "nothing of it is elsewhere"
    assert np.array_equal(to_whole_square(image, 48), pixels), "with a mask or without, it is shown alike"
