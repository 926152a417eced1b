"""The error tree: what was expected, what was found, what to do.

    GranSAMError                exit 1
    ├── InputError              exit 2   a caller's argument, option, class name or array (also a ValueError)
    ├── ImageError              per photo, with a short ``reason``; a run goes on (also a ValueError)
    ├── TooManyFailures         exit 4   --max-failures reached
    ├── EnvironmentFault        exit 5   this machine cannot do what was asked
    │   ├── BundleError         exit 5   a model bundle that must not be run
    │   ├── DeviceError         exit 5   a device, provider or precision that cannot be had
    │   │   └── OutOfMemoryError  exit 5 its memory does not hold what a run needs
    │   └── MissingExtraError   exit 5   an optional package is not installed (also an ImportError)
    └── OutputError             exit 6   output folder unusable, locked or of another run

Example:
    >>> str(BundleError("image.onnx", expected="sha256 ab12", found="sha256 cd34", do="download the bundle again"))
    'image.onnx\\n  expected: sha256 ab12\\n  found:    sha256 cd34\\n  do this:  download the bundle again'
"""

from __future__ import annotations


class GranSAMError(Exception):
    """Base of all errors that this package raises on purpose.

    Args:
        what: The thing that is wrong: a file, an option, an argument.
        expected: What would have been right.
        found: What is there instead.
        do: What the reader can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, expected: str = "", found: str = "", do: str = "") -> None:
        self.what, self.expected, self.found, self.do = what, expected, found, do
        labelled = (("expected: ", expected), ("found:    ", found), ("do this:  ", do))
        super().__init__("\n".join([what, *(f"  {label}{text}" for label, text in labelled if text)]))

    def __reduce__(self) -> tuple[object, ...]:
        """Keyword-only details survive pickling between processes."""
        return (_rebuild, (type(self), self.what, self.__dict__))


def _rebuild(kind: type[GranSAMError], what: str, state: dict[str, object]) -> GranSAMError:
    error = kind.__new__(kind)
    GranSAMError.__init__(error, what, expected=str(state["expected"]), found=str(state["found"]), do=str(state["do"]))
    error.__dict__.update(state)
    return error


class InputError(GranSAMError, ValueError):
    """A caller's argument, option, class name or array is not usable."""

    exit_code = 2


class ImageError(GranSAMError, ValueError):
    """One photo cannot be read; ``reason`` is a short machine-readable word such as ``truncated``."""

    def __init__(self, reason: str, what: str, *, expected: str = "", found: str = "", do: str = "") -> None:
        super().__init__(what, expected=expected, found=found, do=do)
        self.reason = reason


class TooManyFailures(GranSAMError):
    """A run met more bad photos than ``--max-failures`` allows; what was written stays."""

    exit_code = 4


class EnvironmentFault(GranSAMError):
    """This machine cannot do what was asked."""

    exit_code = 5


class BundleError(EnvironmentFault):
    """A model bundle is missing, damaged, or breaks the bundle format."""


class DeviceError(EnvironmentFault):
    """A device, provider, backend or precision that was asked for cannot be had."""


class OutOfMemoryError(DeviceError):
    """The memory of a device, or what of it may be used, does not hold what a graph or a run needs."""


class MissingExtraError(EnvironmentFault, ImportError):
    """An optional package is needed; the message names the extra to install."""


class OutputError(GranSAMError):
    """The output folder is unusable, locked by another run, or belongs to another run."""

    exit_code = 6
