"""JSON from files that may hold anything: what cannot be read is a ValueError in words, whatever the parser met."""

from __future__ import annotations

import json
from typing import Any


def parsed_json(data: bytes | str) -> Any:
    """The value that a JSON text holds.

    Raises:
        ValueError: no JSON, no text in UTF-8 (or UTF-16, UTF-32), or lists and objects nested too deeply to be read.
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
        raise ValueError("it holds a number of thousands of digits") from None
