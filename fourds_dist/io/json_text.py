"""JSON from files of any content: every parser error becomes a ValueError with a message for the user."""

from __future__ import annotations

import json
from typing import Any


def parse_json(data: bytes | str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: not JSON, not text in UTF-8, UTF-16 or UTF-32, or nested too deeply.
    """
    try:
        return json.loads(data)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no text: byte {error.start} is none of {error.encoding}") from None
    except RecursionError:
        raise ValueError("its lists and objects are nested too deeply") from None
    except json.JSONDecodeError:
        raise
    except ValueError:  # Python's limit for the digits of an integer
        raise ValueError("it holds a number with thousands of digits") from None
