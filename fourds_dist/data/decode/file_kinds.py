"""Kinds of files by name: images, images in formats that are not read, and files that systems leave behind.

Packing, prediction and evaluation use the same rules, so they read the same files.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import BinaryIO

from PIL import TiffImagePlugin

from fourds_dist.data.decode.pixels import FORMATS

_IMAGES = ".jpg .jpeg .jpe .jif .jfif .jfi .mpo .png .apng .webp .bmp .tif .tiff .gif .ppm .pgm .pbm .pnm"
IMAGE_EXTENSIONS = frozenset(_IMAGES.split())
"""Extensions of files that count as images; the content is checked when a file is opened."""

UNREAD_FORMATS = {
    extension: name
    for name, extensions in {
        "HEIC": ".heic .heics .heif .heifs .hif",
        "AVIF": ".avif .avifs",
        "DICOM": ".dcm .dicom .dic .ima",
        "camera raw": (
            ".dng .raw .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .orf .rw2 .raf .pef .srw .x3f .3fr .iiq .erf .kdc .mos"
        ),
        "JPEG 2000": ".jp2 .j2k .j2c .jpc .jpf .jpx .jpm",
        "JPEG XL": ".jxl",
        "JPEG XR": ".jxr .wdp .hdp",
        "OpenEXR": ".exr",
        "Radiance": ".hdr",
        "Photoshop": ".psd .psb",
        "GIMP": ".xcf",
        "vector graphics": ".svg .svgz .eps .ai .emf .wmf",
        "PDF": ".pdf .djvu",
        "volume": ".nii .nii.gz .mha .mhd .nrrd .nhdr .mgz",
        "slide": ".svs .ndpi .mrxs .scn .vms .vsi .czi .lif .bif",
        "microscopy": ".nd2 .oib .oif .oir .lsm .dm3 .dm4 .stk",
        "astronomy": ".fits .fit .fts",
        "array": ".npy .npz",
        "Targa": ".tga .icb .vda .vst",
        "icon": ".ico .icns .cur",
        "other image": ".pcx .sgi .rgb .ras .sun .pam .pfm .dds .ktx .bpg .flif .qoi .dib .xbm .xpm .fli .flc",
        "video": ".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv",
    }.items()
    for extension in extensions.split()
}  # fmt: skip
"""Extension -> name of the format, for images that need conversion before packing."""

_LEFT_BY_SYSTEMS = frozenset(
    {
        # Synology, QNAP and NetApp
        *(
            "@eadir",
            "#recycle",
            "#snapshot",
            "@recycle",
            "@recently-snapshot",
            "@sharebin",
            "@tmp",
            "@appstore",
        ),
        *("@__thumb", "@transcode", "@sharesnap", "~snapshot", "@synoresource", "@synoeastream"),
        # macOS, and what archives from there hold
        *("__macosx", "icon\r", "network trash folder", "temporary items", "thevolumesettingsfolder"),
        # Windows
        *(
            "thumbs.db",
            "ehthumbs.db",
            "ehthumbs_vista.db",
            "desktop.ini",
            "$recycle.bin",
            "recycler",
            "recycled",
        ),
        *(
            "system volume information",
            "autorun.inf",
            "$extend",
            "$windows.~bt",
            "$windows.~ws",
            "picasa.ini",
        ),
        # Linux, and tools
        *("lost+found", "__pycache__", "aquota.user", "aquota.group"),
    }
)
_LEFT_PREFIXES = (".", "~$", "@eadir@", "synophoto_thumb_", "synofile_thumb_", "thumbs.db:", "desktop.ini:")


_BEGINNINGS = (
    b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+",
    *(b"P%d" % n for n in range(1, 7)),
)  # fmt: skip
"""First bytes of the formats that are read, except WebP."""

_OTHER_BEGINNINGS = {
    b"\0\0\0\x0cjP": "a JPEG 2000 image", b"\xff\x4f\xff\x51": "a JPEG 2000 image", b"\xff\x0a": "a JPEG XL image",
    b"\0\0\0\x0cJXL": "a JPEG XL image", b"8BPS": "a Photoshop image", b"\x93NUMPY": "a NumPy array",
    b"%PDF": "a PDF", b"PK\x03\x04": "a zip archive", b"\x1f\x8b": "compressed by gzip", b"SIMPLE": "a FITS image",
    b"version https://git-lfs": "a pointer of Git LFS", b"\0\5\x16\7": "metadata that macOS writes beside a file",
}  # fmt: skip


def other_kind(head: bytes) -> str | None:
    """Return the kind, by its first bytes, of a file with an image's name, and the remedy; None if it may be an image.

    Args:
        head: first 32 bytes of the file, or the whole of a shorter file.
    """
    if head.startswith(_BEGINNINGS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return None
    if head.lstrip()[:1] in (b"<", b"{"):
        return "it is a page of HTML, XML or JSON, probably of a failed download; download the file again"
    if head[4:8] == b"ftyp":
        return f"it is {'an AVIF' if head[8:11] == b'avi' else 'a HEIC'} image; convert it to JPEG or PNG"
    known = next((kind for begin, kind in _OTHER_BEGINNINGS.items() if head.startswith(begin)), None)
    return known and f"it is {known}{'; convert it to JPEG or PNG' if 'image' in known else ''}"


def why_unread(file: BinaryIO) -> str:
    """Return why Pillow does not know a file with an image's name, and the remedy.

    Args:
        file: open at its first byte.
    """
    head = file.read(32)
    if not head:
        return "it is empty"
    begins = f"it begins with {head[:8]!r}"
    if known := other_kind(head) or _values_of_tiff(head, file):
        return f"{begins}: {known}"
    return f"{begins}, which is not a readable {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"


def _values_of_tiff(head: bytes, file: BinaryIO) -> str | None:
    """Describe the values of a TIFF that Pillow does not read, and the remedy; None if the file is no whole TIFF."""
    if head[:4] not in (b"II*\0", b"MM\0*"):
        return None
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(head[:8])
        file.seek(directory.next)
        directory.load(file)
        num, width = directory.get(277, 1), directory.get(256)
        bits, kind = (directory.get(tag, (1,))[0] for tag in (258, 339))
    except Exception:  # a damaged directory raises errors of any type
        return None
    if not width:
        return None
    type_of_values = {2: "signed", 3: "float"}.get(kind, "unsigned")
    values = f"{num} {bits}-bit {type_of_values} value{'s' * (num > 1)}"
    return (
        f"it is a TIFF of {values} per pixel, which is not read; convert it to 8-bit or 16-bit RGB, or to one value "
        "per pixel of at most 32 bits"
    )


def is_left_by_system(name: str) -> bool:
    """Return whether a file or folder of this name is hidden, or was left behind by an operating system, NAS or tool.

    Examples are .DS_Store, ._photo.jpg, @eaDir, #recycle, __MACOSX, Thumbs.db, lost+found and .ipynb_checkpoints.
    """
    lower = name.lower()
    if lower.startswith("found.") and lower[6:].isdecimal():  # chkdsk's
        return True
    return lower in _LEFT_BY_SYSTEMS or lower.startswith(_LEFT_PREFIXES)


def is_image(name: str) -> bool:
    """Return whether a file of this name counts as an image: an image's extension, in any case, not left by a
    system."""
    return extension_of(name) in IMAGE_EXTENSIONS and not is_left_by_system(name)


def extension_of(name: str) -> str:
    """Return the extension in lower case, with its dot; empty if there is none. The extension of a.nii.gz is
    .nii.gz."""
    lower = name.lower()
    return ".nii.gz" if lower.endswith(".nii.gz") else PurePath(lower).suffix


def kind_of(name: str) -> str:
    """Return the kind under which a file that is not an image is counted: `hidden`, its extension or `no extension`."""
    if name.startswith("."):
        return "hidden"
    return name.lower() if is_left_by_system(name) else extension_of(name) or "no extension"
