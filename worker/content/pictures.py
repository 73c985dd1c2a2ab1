"""Pictures as a mail can hold them: upright, no wider than is seen, and stripped of all that a camera adds.

Owns the formats that leave (JPEG and PNG) and their sizes. Refuses: moving pictures, which a reader cannot
stop (WCAG 2.2.2), drawings that are programs (SVG), and whatever would take more memory than it is worth.
A photograph's place and camera never leave: they have led to people.
"""

import base64
import io
import warnings
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from worker.errors import WrongUse

#: Width of the text in CSS pixels (look.css): no picture is shown wider.
COLUMN: Final = 528
#: Device pixels for each of those: what sharp screens show.
_DENSITY: Final = 2
#: Pixels of a picture that is read at all.
_MOST_PIXELS: Final = 50_000_000
_FORMATS: Final = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP")
_QUALITY: Final = 82
#: Above this ratio of height to width it is a mistake.
_TALLEST: Final = 4
#: What a damaged or hostile file makes the decoders raise.
_DAMAGED: Final = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture, ready for a mail. The same file gives the same bytes."""

    kind: str  #: its MIME type
    width: int  #: as it is shown, in CSS pixels
    height: int
    was: tuple[int, int]  #: device pixels in its file
    has: tuple[int, int]  #: device pixels that leave
    encoded: str  #: its bytes in base64

    @property
    def resized(self) -> bool:
        """Whether it was larger than a mail can show."""
        return self.was != self.has

    @property
    def data(self) -> bytes:
        """Its bytes."""
        return base64.b64decode(self.encoded)


class PictureError(WrongUse):
    """A file is no picture that a mail can hold."""


def read(name: str, data: bytes) -> Picture:
    """Make a file ready.

    Args:
        name: for the error.
        data: what it holds.

    Raises:
        PictureError: it is too large, damaged, moving, or no picture.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = _opened(name, data)
            upright = ImageOps.exif_transpose(found)
            plain = _in_srgb(upright)
            was, shown = plain.size, min(plain.width, COLUMN)
            plain.thumbnail((COLUMN * _DENSITY, COLUMN * _DENSITY * _TALLEST), Image.Resampling.LANCZOS)
            kind, saved = _saved(plain, photograph=found.format in {"JPEG", "WEBP", "TIFF"})
    except UnidentifiedImageError as error:
        raise _error(name, "is no picture", "Use JPEG or PNG.") from error
    except (*_DAMAGED, Warning) as error:
        raise _error(
            name, "is damaged, or no picture that can be read", "Save it anew, as JPEG or PNG."
        ) from error
    height = max(1, round(plain.height * shown / plain.width))
    return Picture(kind, shown, height, was, plain.size, base64.b64encode(saved).decode())


def _opened(name: str, data: bytes) -> Image.Image:
    found = Image.open(io.BytesIO(data), formats=_FORMATS)
    width, height = found.size
    # By the header, before a pixel is made: a few hundred bytes can say that they are gigabytes.
    if width * height > _MOST_PIXELS:
        raise _error(name, f"has {width:,} by {height:,} pixels", "Save it smaller.")
    if height > width * _TALLEST:
        raise _error(name, f"is over {_TALLEST} times as high as wide", "Cut it, or turn it.")
    if getattr(found, "n_frames", 1) > 1:
        raise _error(
            name, "is a moving picture, which no reader can stop", "Use one frame, and link to the film."
        )
    found.load()
    return found


def _in_srgb(found: Image.Image) -> Image.Image:
    """Return the pixels alone, in the colours that every screen takes them for."""
    mode = "RGBA" if found.has_transparency_data else "RGB"
    profile = found.info.get("icc_profile")
    if profile and found.mode in {"RGB", "RGBA", "CMYK", "L"}:
        try:
            made = ImageCms.profileToProfile(
                found,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                outputMode=mode,
            )
        except (ImageCms.PyCMSError, OSError):  # a damaged profile: the plain values are close enough
            made = None
        found = made or found
    converted = found.convert(mode)
    # A new picture of the same pixels: whatever else the file said stays behind.
    return Image.frombytes(mode, converted.size, converted.tobytes())


def _saved(plain: Image.Image, *, photograph: bool) -> tuple[str, bytes]:
    out = io.BytesIO()
    if photograph and plain.mode == "RGB":
        plain.save(out, "JPEG", quality=_QUALITY, optimize=True, progressive=True)
        return "image/jpeg", out.getvalue()
    plain.save(out, "PNG", optimize=True)
    return "image/png", out.getvalue()


def _error(name: str, what: str, remedy: str) -> PictureError:
    return PictureError(f"{name} {what}", remedy=remedy)
