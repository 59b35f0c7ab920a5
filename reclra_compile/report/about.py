"""What run.json has to look like, as far as a report reads it. Torch-free."""

from __future__ import annotations

from typing import Any

#: kinds by key; a key may be left out, and None stands for nothing known
_KINDS: dict[str, tuple[type, ...]] = {
    "wiring": (str,), "seed": (int,), "model": (str,), "fingerprint": (str,), "measure": (str,), "begun": (str,),
    "command": (list,), "settings": (dict,), "data": (dict,), "options": (dict,), "environment": (dict,),
    "resumed": (list,), "processes": (int,), "devices": (list,),
}  # fmt: skip
_OF_DATA: dict[str, tuple[type, ...]] = {"name": (str,), "train": (int,), "valid": (int,), "test": (int,)}
_NAMES = {str: "a text", int: "a whole number", list: "a list", dict: "an object"}


def wrong_in(about: dict[str, Any]) -> str:
    """What is not as `train` writes it, in a clause; "" where all is."""
    if wrong := _wrong(about, _KINDS, ""):
        return wrong
    wrong = _wrong(about.get("data") or {}, _OF_DATA, "data.")
    wrong = wrong or _wrong(about.get("options") or {}, {"compare": (list,), "model": (str,)}, "options.")
    for k, each in enumerate(about.get("resumed") or ()):
        if wrong:
            break
        here = f"resumed[{k}]"
        wrong = _wrong(each, {"environment": (dict,)}, here + ".") if isinstance(each, dict) else f"{here} is no object"
    return wrong


def _wrong(found: dict[str, Any], kinds: dict[str, tuple[type, ...]], before: str) -> str:
    for name, kind in kinds.items():
        value = found.get(name)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            return f"{before}{name} is {str(value)[:40]!r}, and should be {_NAMES[kind[0]]}"
    return ""
