"""Class (what an icon shows) and style (how it is drawn) from the name of an icon.

The style is in a suffix (`home-outline`, `home-24-filled`), a prefix (`baseline-home`) or the name of the set
(`fa6-solid`, `Unicons Thin Line`). The class is the rest of the name without words on style, size and corners, replaced
by its most common synonym.
"""

from __future__ import annotations

STYLES = ("line", "solid", "glyph", "duotone", "colour")
"""The domains. `glyph` holds icons without a declared style, from sets with one drawing per icon."""

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
"""Words on corners and sizes, which change neither class nor style."""

SUBJECTS = frozenset(["chart", "flash", "font", "format", "head", "text", "traffic", "trend", "type"])
"""Words after which a style word is part of the class: `text-bold`, `chart-line`, `traffic-light`."""

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
"""Synonym -> name of the class."""

_TRADE_MARKS = """
    android apple discord dropbox facebook figma github gitlab google instagram linkedin microsoft paypal pinterest
    reddit skype slack snapchat spotify telegram tiktok twitch twitter vimeo whatsapp windows wordpress youtube
"""
BRANDS = frozenset(_TRADE_MARKS.split())
"""Trade marks in sets of general icons; left out like the sets of logos."""


def style_and_class(name: str, set_words: str) -> tuple[str | None, str]:
    """Return (style, or None if no style is declared; class) of the icon `name`.

    Style words at either end of the name count; without any, the words of `set_words` (prefix and title of the set, in
    lower case). A name that consists of such words only retains its first word as the class: `bold-regular` is "bold".
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
