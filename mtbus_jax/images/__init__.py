"""Pictures from files as they come: PNG, JPEG, TIFF, BMP, GIF, WebP, DICOM, of any pixel type.

Prediction, curation and the dataset builder all read pictures through this package. `find` lists
files; `decode` gives their pictures in 8-bit grey or RGB; `read` gives `Frame`, the 8-bit grey
picture that the networks were trained on, and `from_array` does so for pixels in memory. Each has
the pixel spacing, if the file gives it, and a note for everything that was changed.
`docs/pictures.md` says how each kind of file is read.
"""

from mtbus_jax.images.finding import Found, Source, files_below, find, is_picture, natural_key
from mtbus_jax.images.frame import Decoded, Frame, ReadError, Spacing, as_text, from_array
from mtbus_jax.images.reading import (
    BETWEEN,
    HEAD_BYTES,
    decode,
    decode_mask,
    is_known,
    read,
    read_content,
)

__all__ = [
    "BETWEEN",
    "HEAD_BYTES",
    "Decoded",
    "Found",
    "Frame",
    "ReadError",
    "Source",
    "Spacing",
    "as_text",
    "decode",
    "decode_mask",
    "files_below",
    "find",
    "from_array",
    "is_known",
    "is_picture",
    "natural_key",
    "read",
    "read_content",
]
