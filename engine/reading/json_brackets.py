"""The end of a long JSON value, found by its brackets alone: nothing is built, however many parts the value has."""

from __future__ import annotations

import re

__all__ = ["Brackets"]

# a string, whole or as far as the text goes, or a bracket
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.?)*+("?)|[\[\]{}]', re.DOTALL)


class Brackets:
    """The state of one search, which continues where it stopped when there is more text."""

    def __init__(self) -> None:
        self._depth = 0
        self._at = 0  # in characters from where the value begins

    def end(self, text: str, begin: int) -> int | None:
        """The end in `text` of the object, array or string that begins at `begin`; ``None`` if it does not end in
        `text`.

        The text between is not checked to be JSON.
        """
        for token in _TOKEN.finditer(text, begin + self._at):
            kind = text[token.start()]
            if kind == '"':
                if not token[1]:  # cut off: looked at again when there is more
                    self._at = token.start() - begin
                    return None
            else:
                self._depth += 1 if kind in "[{" else -1
            if self._depth <= 0:
                return token.end()
            self._at = token.end() - begin
        return None
