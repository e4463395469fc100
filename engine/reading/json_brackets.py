"""Where a long JSON value ends, found by its brackets alone: nothing is built, however many parts the value has."""

from __future__ import annotations

import re

__all__ = ["Brackets"]

# a string, whole or as far as the text goes, or a bracket
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.?)*+("?)|[\[\]{}]', re.DOTALL)


class Brackets:
    """The state of one search, which goes on where it stopped when more of the text is there."""

    def __init__(self) -> None:
        self._depth = 0
        self._at = 0  # in characters from where the value begins

    def end(self, text: str, begin: int) -> int | None:
        """Where the object, array or string that begins at `begin` ends in `text`; ``None`` if not in it.

        Whether what lies between is JSON is not looked at.
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
