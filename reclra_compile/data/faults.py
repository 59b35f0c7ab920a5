"""What can be wrong with a data set: the D codes, and how such an error is made."""

from __future__ import annotations

import importlib
import os
from typing import Any

from reclra_compile.errors import DataError, Fault, Location

CODES: dict[str, str] = {
    "D001": "the data set's name is not known",
    "D002": "no data folder is given, or it is not a folder",
    "D003": "the data set's files are not in the data folder",
    "D004": "a file cannot be read: corrupt, cut short or not permitted",
    "D005": "a file can be read, but not its content: wrong format, missing array, wrong type or shape",
    "D006": "images and labels differ in number",
    "D007": "a label is out of range",
    "D008": "an image or a class folder cannot be used",
    "D009": "an optional package that the data set needs is not installed",
    "D010": "the images, or the model file's own samples, do not fit the model's input",
    "D011": "the validation size or the seed is not possible",
    "D012": "the batch size is not possible",
    "D013": "the model file's own data is not of the form that is needed",
    "D014": "the model file's loss cannot be used, or does not fit output and targets",
    "D015": "the data cannot be preprocessed, augmented or read in this way",
    "D016": "a top-5 error is asked for where there are no classes, or few",
}


def problem(code: str, message: str, fix: str, file: str | os.PathLike[str] | None = None) -> DataError:
    """A data error with one fault, in `file` where one is to blame."""
    where = None if file is None else Location(os.fspath(file))
    return DataError(Fault(code, message, where, fix))


def why(error: Exception) -> str:
    """The cause in one line: some libraries raise without a text, some with several lines."""
    return " ".join(str(error).split()) or type(error).__name__


def optional(module: str, package: str, purpose: str) -> Any:
    """The module of an optional package, or an error that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise problem(
            "D009",
            f"{purpose} needs the package {package}, which cannot be imported: {why(error)}",
            f"pip install {package}",
        ) from error
