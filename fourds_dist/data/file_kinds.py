"""What a file is by its name: an image, an image in a format that is not read, or what a system leaves beside files.

Packing, prediction and evaluation look at the same files by these rules.
"""

from __future__ import annotations

from pathlib import PurePath

_IMAGES = ".jpg .jpeg .jpe .jif .jfif .jfi .mpo .png .apng .webp .bmp .tif .tiff .gif .ppm .pgm .pbm .pnm"
IMAGE_EXTENSIONS = frozenset(_IMAGES.split())
"""Of files that are taken for images; what they hold is seen when they are opened."""

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
"""Extension -> name of the format, of images that cannot be packed before they are converted."""

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


def is_left_by_system(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or is what an operating system, a NAS or a tool leaves behind.

    Such are .DS_Store, ._photo.jpg, @eaDir, #recycle, __MACOSX, Thumbs.db, lost+found and .ipynb_checkpoints.
    """
    lower = name.lower()
    if lower.startswith("found.") and lower[6:].isdecimal():  # chkdsk's
        return True
    return lower in _LEFT_BY_SYSTEMS or lower.startswith(_LEFT_PREFIXES)


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image: by its extension, in any case, and not left by a system."""
    return extension_of(name) in IMAGE_EXTENSIONS and not is_left_by_system(name)


def extension_of(name: str) -> str:
    """The extension in lower case, with its dot; empty without one. That of a.nii.gz is .nii.gz."""
    lower = name.lower()
    return ".nii.gz" if lower.endswith(".nii.gz") else PurePath(lower).suffix


def kind_of(name: str) -> str:
    """What to count a file under that is not taken for an image: hidden, its extension, or `no extension`."""
    if name.startswith("."):
        return "hidden"
    return name.lower() if is_left_by_system(name) else extension_of(name) or "no extension"
