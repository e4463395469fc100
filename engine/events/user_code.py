"""Whether a function of the user's can be sent to another process."""

from __future__ import annotations

import pickle

from headrace.errors import ConfigurationError

__all__ = ["require_sendable"]


def require_sendable(function: object, where: str) -> None:
    """Raises `ConfigurationError` at `where` for a function that cannot be sent to the workers."""
    try:
        pickle.dumps(function)
    except Exception as error:  # whatever the function's own pickling raises
        raise ConfigurationError(
            f"the function cannot be sent to the workers ({error})",
            where=where,
            hint="define it at the top level of a module, or name it as 'module:function'",
        ) from error
