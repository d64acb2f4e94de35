"""Plain values as a configuration in which every text stays what it is."""

import re
from typing import Any

from omegaconf import DictConfig, OmegaConf


def to_config(plain: dict[str, Any]) -> DictConfig:
    """Return plain dicts and lists as a configuration, the way back from ``to_dict``: a text with ``${`` stays one."""

    def escape(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: escape(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [escape(part) for part in value]
        return escape_interpolations(value) if isinstance(value, str) else value

    return OmegaConf.create(escape(plain))


def escape_interpolations(text: str) -> str:
    """Return a text that OmegaConf reads as ``text`` itself, whatever it holds."""
    return re.sub(r"(\\*)\$\{", r"\1\1\${", text)
