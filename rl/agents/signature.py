"""Signatures of constructors that pass keyword arguments on."""

import inspect
from collections.abc import Callable
from typing import Any


def forwarded_signature(*functions: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of the first function, its ``**kwargs`` replaced by the parameters of the others.

    Type checkers follow the typed ``**kwargs`` by themselves; this is for ``help`` and for checks of a configuration,
    which want to see every key with its default.
    """
    found: dict[str, inspect.Parameter] = {}
    for function in functions:
        for name, parameter in inspect.signature(function).parameters.items():
            if name != "self" and parameter.kind is not parameter.VAR_KEYWORD:
                keyword = parameter if function is functions[0] else parameter.replace(kind=parameter.KEYWORD_ONLY)
                found.setdefault(name, keyword)
    return inspect.Signature(sorted(found.values(), key=lambda parameter: parameter.kind))
