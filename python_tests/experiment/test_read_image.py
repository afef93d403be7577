"""An image file of every kind is read as a person sees it, or refused by name."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from vaal_ext.experiment.datasets.folder import ImageFolderPool
from vaal_ext.experiment.datasets.read_image import UnreadableImageError, read_image
from vaal_ext.labelling.images import ImageFiles

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("torchvision")

# A ramp from black to white, 256 levels wide: what it must be read as, in bytes.
LEVELS = np.tile(np.arange(256, dtype=np.uint8), (4, 1))


def read(path) -> np.ndarray:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def save_pgm(path, grey: np.ndarray, white: int) -> None:
    head = f"P5 {grey.shape[1]} {grey.shape[0]} {white}\n".encode()
    path.write_bytes(head + grey.astype(">u2").tobytes())


@pytest.mark.parametrize("kind", ["png", "tif", "pgm", "12 bits", "white is zero"])
def test_grey_of_16_bits_is_scaled_from_its_full_range(tmp_path, kind):
    sixteen = LEVELS.astype(np.uint16) * 257  # 255 becomes 65535
    if kind in ("pgm", "12 bits"):
        path = tmp_path / "ramp.pgm"
        bits = 12 if kind == "12 bits" else 16
        save_pgm(path, sixteen >> (16 - bits), 2**bits - 1)
    else:
        path = tmp_path / ("ramp.png" if kind == "png" else "ramp.tif")
        inverse = kind == "white is zero"
        image = Image.fromarray(65535 - sixteen if inverse else sixteen)
        image.save(path, **({"tiffinfo": {262: 0}} if inverse else {}))
    seen = read(path)
    assert seen.shape == (4, 256, 3)
    # 12 bits hold level v as floor(16.06 v): within 1/16 of a level, which rounds to v or v - 1.
    tolerance = 1 if kind == "12 bits" else 0
    assert abs(seen.astype(int) - LEVELS[..., None]).max() <= tolerance


@pytest.mark.parametrize("mode", ["I", "F"])
def test_grey_of_unknown_range_is_refused(tmp_path, mode):
    path = tmp_path / "depth.tif"
    Image.fromarray(LEVELS.astype(np.int32 if mode == "I" else np.float32)).save(path)
    with pytest.raises(UnreadableImageError, match=r"depth.tif is no readable image: the range of"):
        read_image(path)


def test_colours_are_kept_whatever_the_mode(tmp_path):
    rgb = np.zeros((2, 4, 3), dtype=np.uint8)
    rgb[..., 0], rgb[:, 2:] = 204, (0, 0, 255)  # of the web palette, that of P
    for mode in ("RGB", "P", "RGBA", "CMYK"):
        path = tmp_path / f"{mode}.tif"
        Image.fromarray(rgb).convert(mode).save(path)
        np.testing.assert_array_equal(read(path), rgb, err_msg=mode)
    black_and_white = tmp_path / "one.png"
    Image.fromarray(LEVELS).convert("1", dither=0).save(black_and_white)
    np.testing.assert_array_equal(read(black_and_white)[..., 0], np.where(LEVELS > 127, 255, 0))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "colour key"])
def test_white_shows_through_what_is_transparent(tmp_path, mode):
    """The left half is opaque black, the right half is transparent, and black below."""
    path = tmp_path / "drawing.png"
    drawing = np.zeros((2, 4, 4), dtype=np.uint8)
    drawing[:, :2, 3] = 255
    if mode == "P":
        image = Image.fromarray(np.repeat([[0, 0, 1, 1]], 2, axis=0).astype(np.uint8), "P")
        image.putpalette([0] * 768)
        image.save(path, transparency=1)
    elif mode == "colour key":
        Image.fromarray(np.repeat([[0, 0, 7, 7]], 2, axis=0).astype(np.uint8)).save(
            path, transparency=7
        )
    else:
        Image.fromarray(drawing).convert(mode).save(path)
    seen = read(path)
    assert (seen[:, :2] == 0).all()
    assert (seen[:, 2:] == 255).all()


@pytest.mark.parametrize("grey", [False, True])
def test_images_stand_as_their_orientation_says(tmp_path, grey):
    from PIL import Image as pillow

    upright = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
    if grey:
        upright = np.repeat(upright[..., :1], 3, axis=2)
    stored = np.rot90(upright)  # which orientation 6 turns back, a quarter clockwise
    exif = pillow.Exif()
    exif[0x0112] = 6
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "photo.png"
    pixels = stored[..., 0].astype(np.uint16) * 257 if grey else stored
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, exif=exif)
    np.testing.assert_array_equal(read(path), upright)
    expected = upright.transpose(2, 0, 1)
    np.testing.assert_array_equal(ImageFolderPool(tmp_path)[0], expected)
    np.testing.assert_array_equal(ImageFiles(tmp_path, None)[0] * 255, expected)


def chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


HEAD = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))
NOISE = zlib.compress(np.random.default_rng(0).bytes(52))  # four rows: a filter, four pixels
BODY = chunk(b"IDAT", NOISE)
DAMAGED = {
    "empty": b"",
    "text": b"this is no image",
    "truncated": png(HEAD, BODY)[:60],
    "broken chunk": png(HEAD, chunk(b"IDAT", NOISE[:20]), chunk(b"\1\2\3\4", NOISE[20:])),
    "bad checksum": png(HEAD, chunk(b"tEXt", b"a\0b")[:-1] + b"\0", BODY),
    "short IHDR": png(chunk(b"IHDR", b"\0\0\0\4")),
    "bomb": png(chunk(b"IHDR", struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)), BODY),
    "text bomb": png(HEAD, chunk(b"zTXt", b"a\0\0" + zlib.compress(b"a" * (1 << 21))), BODY),
    "no data": png(HEAD, chunk(b"IEND", b"")),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_whatever_a_decoder_raises_names_the_file(tmp_path, name):
    path = tmp_path / "damaged.png"
    path.write_bytes(DAMAGED[name])
    with pytest.raises(UnreadableImageError) as refused:
        read_image(path)
    text = str(refused.value)
    assert text.startswith(f"{path} is no readable image: ")
    assert "\n" not in text


def test_a_damaged_exif_does_not_lose_the_image(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(LEVELS).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(read(path)[..., 0], LEVELS)
