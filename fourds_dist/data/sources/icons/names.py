"""What an icon's name says: what it shows (the class) and how it is drawn (the style).

Designers put the style into a suffix (`home-outline`, `home-24-filled`), a prefix (`baseline-home`) or the
name of the set (`fa6-solid`, `Unicons Thin Line`). What is left of the name once words on style, size and
corners are taken off is the class, by the most usual of its synonyms.
"""

from __future__ import annotations

STYLES = ("line", "solid", "glyph", "duotone", "colour")
"""The domains. `glyph` is what declares no style: sets with one drawing per icon, heavy or light as they please."""

STYLE_WORDS = {
    "duotone": "duotone",
    "twotone": "duotone",
    "bulk": "duotone",
    "fill": "solid",
    "filled": "solid",
    "solid": "solid",
    "bold": "solid",
    "baseline": "solid",
    "bxs": "solid",
    "outline": "line",
    "outlined": "line",
    "line": "line",
    "linear": "line",
    "light": "line",
    "thin": "line",
    "regular": "line",
}
"""Word -> style, in order of precedence: `bold-duotone` is duotone, `outline-bold` solid."""

SHAPE_WORDS = frozenset(["rounded", "round", "sharp", "bx", "sm", "lg", "xs", "xl", "small", "large", "alt"])
"""Words on corners and sizes: they change neither class nor style."""

SUBJECTS = frozenset(["chart", "flash", "font", "format", "head", "text", "traffic", "trend", "type"])
"""After these a style word is part of what is shown: `text-bold`, `chart-line`, `traffic-light`."""

SYNONYMS = {
    name: usual
    for usual, others in {
        "home": "house",
        "trash": "bin trash-can delete",
        "settings": "cog gear",
        "envelope": "mail email",
        "user": "person account",
        "users": "people group",
        "close": "x times cross xmark",
        "plus": "add",
        "check": "checkmark tick",
        "search": "magnify magnifying-glass",
        "shopping-cart": "cart",
        "printer": "print",
        "microphone": "mic",
        "airplane": "plane flight",
        "paper-plane": "send",
        "scissors": "cut",
        "image": "picture",
        "file": "document",
        "lightning": "bolt flash",
        "thumbs-up": "like thumb-up",
        "thumbs-down": "dislike thumb-down",
        "warning": "alert-triangle",
        "clock": "time",
        "paperclip": "attachment attach",
        "chart-pie": "pie-chart",
        "chart-bar": "bar-chart",
        "lock-open": "unlock",
        "shop": "store",
        "qr-code": "qrcode",
        "question": "help",
        "speech-bubble": "chat comment message",
        "eye-off": "eye-slash",
        "tv": "television",
        "thermometer": "temperature",
        "microphone-off": "mic-off",
        "monitor": "desktop",
        "bell": "notification",
        "pencil": "edit pen",
        "cloud-download": "download-cloud",
        "cloud-upload": "upload-cloud",
        "sync": "refresh",
        "caret-down": "triangle-down",
        "lightbulb": "bulb light-bulb",
        "square": "stop",
        "battery": "battery-full",
        "timer": "stopwatch",
        "megaphone": "bullhorn",
    }.items()
    for name in others.split()
}
"""Other name -> the name of the class: words for which designers draw one and the same thing."""

_TRADE_MARKS = """
    android apple discord dropbox facebook figma github gitlab google instagram linkedin microsoft paypal pinterest
    reddit skype slack snapchat spotify telegram tiktok twitch twitter vimeo whatsapp windows wordpress youtube
"""
BRANDS = frozenset(_TRADE_MARKS.split())
"""Trade marks, which sets of general icons hold too; left out like the sets of logos."""


def style_and_class(name: str, set_words: str) -> tuple[str | None, str]:
    """(style or None where none is declared, class) of the icon `name`.

    Words count at either end of the name; those of `set_words` (the set's prefix and title, in lower case)
    where the name has none. A name of nothing but such words keeps its first: `bold-regular` shows something
    bold.
    """
    words = [word for word in name.split("-") if word]
    found: list[str] = []
    while len(words) > 1 and _is_decoration(words[-1]) and not _is_shown(words[-2:]):
        found.append(words.pop())
    while len(words) > 1 and _is_decoration(words[0]):
        found.append(words.pop(0))
    declared = [word for word in STYLE_WORDS if word in found]
    declared = declared or [word for word in STYLE_WORDS if word in set_words.split()]
    drawn = "-".join(words)
    return (STYLE_WORDS[declared[0]] if declared else None), SYNONYMS.get(drawn, drawn)


def _is_decoration(word: str) -> bool:
    return word.isdigit() or word.removesuffix("px").isdigit() or word in STYLE_WORDS or word in SHAPE_WORDS


def _is_shown(last_two: list[str]) -> bool:
    return last_two[0] in SUBJECTS and last_two[1] in STYLE_WORDS
