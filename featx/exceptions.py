"""All errors and warnings of featx; SampleFault and ParameterFault, the parts of two of them.

Each error is a :class:`FeatxError`, and also of the builtin type that a caller would catch without
knowing featx. Messages state what was passed, what was expected and a cure. Errors and warnings
keep the parts of their message as attributes, from which the command makes a message for the shell.
Several faults are raised as one error.

Names of files and classes may hold anything, so control characters are shown as Python escapes
(see ``featx._text``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from featx._text import one_line, without_controls

_N_SHOWN = 10


class FeatxError(Exception):
    """Base class of all errors that featx raises; its text holds no control characters."""

    def __str__(self) -> str:
        return without_controls(super().__str__())


class ParameterFault(NamedTuple):
    """A fault of one parameter.

    Attributes
    ----------
    name : str
        Name of the parameter; empty if `reason` is the complete message.
    value : str
        Representation of the value that was passed.
    reason : str
        Expected values, or the reason why the value is faulty.

    Examples
    --------
    >>> print(ParameterFault("batch_size", "0", "expected a positive integer."))
    batch_size=0: expected a positive integer.
    """

    name: str
    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}={self.value}: {self.reason}" if self.name else self.reason


class ParameterError(FeatxError, ValueError):
    """A parameter of an estimator or function has a faulty value.

    Parameters
    ----------
    message : str
        Text of the error, all faults included.
    faults : iterable of ParameterFault or str, default=None
        Faults that the message lists; None for one fault, which is the message.

    Attributes
    ----------
    faults : list of ParameterFault
        Faults, each with the ``name`` of the parameter, its ``value`` and the ``reason``.
    """

    def __init__(self, message: str, faults: Iterable[ParameterFault | str] | None = None) -> None:
        super().__init__(message)
        self.faults = [
            ParameterFault("", "", fault) if isinstance(fault, str) else fault
            for fault in ([message] if faults is None else faults)
        ]

    @classmethod
    def of(cls, name: str, value: object, reason: str) -> ParameterError:
        """Return the error for one parameter, its value and the reason why it is faulty.

        Parameters
        ----------
        name : str
            Name of the parameter.
        value : object
            Value that was passed; the message shows its representation.
        reason : str
            Expected values, or the reason why the value is faulty.

        Returns
        -------
        ParameterError
            Error, to be raised by the caller.

        Examples
        --------
        >>> ParameterError.of("batch_size", 0, "expected a positive integer.")
        ParameterError('batch_size=0: expected a positive integer.')
        """
        fault = ParameterFault(name, repr(value), reason)
        return cls(str(fault), [fault])


class InputError(FeatxError, ValueError):
    """`X` or `y` is of a kind, shape or content that featx cannot use."""


class SampleFault(NamedTuple):
    """A fault of one sample, which could not be read.

    Attributes
    ----------
    position : int
        Row of the sample in `X`, counted from 0.
    name : str
        Path of the file, or the kind of object that the sample is.
    reason : str
        Reason why the sample cannot be read.
    """

    position: int
    name: str
    reason: str

    def __str__(self) -> str:
        return f"[{self.position}] {one_line(self.name)}: {one_line(self.reason)}"


class BadSampleError(InputError):
    """Samples are missing, damaged or not images.

    Parameters
    ----------
    faults : iterable of SampleFault
        All faulty samples that were found.
    n_samples : int
        Number of samples in `X`.
    n_unseen : int, default=0
        Number of samples that were not decoded, and may be faulty too.

    Attributes
    ----------
    faults : list of SampleFault
        Faulty samples, ordered by position; the message shows the first ten.
    finding : str
        Message without the cure at its end.
    """

    def __init__(self, faults: Iterable[SampleFault], n_samples: int, n_unseen: int = 0) -> None:
        self.faults = sorted(faults)
        self.n_samples = n_samples
        self.n_unseen = n_unseen
        unseen = f"\n{n_unseen} more were not decoded yet." if n_unseen else ""
        self.finding = f"{describe_faults(self.faults, n_samples)}{unseen}"
        super().__init__(
            f"{self.finding}\n"
            "Repair or remove them, or pass on_error='nan' to get rows of NaN in their place."
        )

    def __reduce__(self) -> tuple[type, tuple[list[SampleFault], int, int]]:
        return type(self), (self.faults, self.n_samples, self.n_unseen)


class MissingRowsError(FeatxError, LookupError):
    """The cache does not hold, or no longer holds, the requested embeddings."""


class UnreadableImageError(InputError):
    """Bytes or an array are not a readable image; the message is the reason alone."""


class BackboneError(FeatxError, ValueError):
    """A backbone cannot be built, or cannot be used as one."""


class EngineError(FeatxError, RuntimeError):
    """An engine cannot run a network."""


class WeightsError(FeatxError, OSError):
    """The weights of a backbone cannot be downloaded, are missing, or belong to another model."""


class UntrustedTypesError(FeatxError, TypeError):
    """A saved estimator holds types that are not trusted; nothing was loaded from it.

    Parameters
    ----------
    finding : str
        Untrusted types, and the place where they are.
    types : sequence of str, default=()
        Names of the types, as `trusted` takes them.
    """

    def __init__(self, finding: str, types: Sequence[str] = ()) -> None:
        super().__init__(finding, types)
        self.finding = finding
        self.types = list(types)

    def __str__(self) -> str:
        cure = f" If you trust them, name them: trusted={self.types!r}" if self.types else ""
        return without_controls(f"{self.finding}{cure}")


class SavedFileError(FeatxError, ValueError):
    """A file is not a saved featx estimator, is damaged, or was made for other embeddings."""


class MissingExtraError(FeatxError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class FeatxWarning(UserWarning):
    """Base class of all warnings that featx emits; its text holds no control characters."""

    def __str__(self) -> str:
        return without_controls(super().__str__())


class ParameterWarning(FeatxWarning):
    """A parameter has no effect because of the value of another; the message names both."""


class BackboneWarning(FeatxWarning):
    """A backbone cannot be used, and is left out of a comparison."""


class WeightsWarning(FeatxWarning):
    """Weights from a file may belong to a network that differs from the one that was built."""


class BadSampleWarning(FeatxWarning):
    """Samples could not be read: they became rows of NaN, or were left out.

    Parameters
    ----------
    faults : iterable of SampleFault
        All faulty samples.
    n_samples : int
        Number of samples in `X`.

    Attributes
    ----------
    faults : list of SampleFault
        Faulty samples, ordered by position; the message shows the first ten.
    """

    def __init__(self, faults: Iterable[SampleFault], n_samples: int) -> None:
        self.faults = sorted(faults)
        self.n_samples = n_samples
        super().__init__(
            f"{describe_faults(self.faults, n_samples)}\n"
            "Their embeddings are NaN; featx leaves these rows out of training and scores."
        )

    def __reduce__(self) -> tuple[type, tuple[list[SampleFault], int]]:
        return type(self), (self.faults, self.n_samples)


class NearDuplicateWarning(FeatxWarning):
    """Training and test samples are nearly the same; the message names some.

    Parameters
    ----------
    finding : str
        Number and names of the near-duplicates.
    cure : str, default=""
        Advice on how to treat them.
    """

    def __init__(self, finding: str, cure: str = "") -> None:
        super().__init__(finding, cure)
        self.finding = finding
        self.cure = cure

    def __str__(self) -> str:
        return without_controls(f"{self.finding} {self.cure}".rstrip())


class CacheDamageWarning(FeatxWarning):
    """A damaged or foreign file in the cache was quarantined; its rows are computed again."""


class CacheWriteWarning(FeatxWarning):
    """Embeddings could not be stored; they are returned nevertheless."""


class CacheDtypeWarning(FeatxWarning):
    """Embeddings exceed the range of the cache's dtype; they are stored in float32."""


class NotCachedWarning(FeatxWarning):
    """The backbone or the reader cannot be identified, so embeddings are not cached."""


class UnstableBackboneWarning(FeatxWarning):
    """A callable returned another backbone than before, so its cached rows cannot be used."""


class EngineWarning(FeatxWarning):
    """A faster engine cannot run a network, so another engine does."""


class FineTuneWarning(FeatxWarning):
    """Fine-tuning ended early or deviated from its parameters; the message states why."""


class FolderWarning(FeatxWarning):
    """Files in an image folder were left out."""


def describe_faults(faults: Sequence[SampleFault], n_samples: int) -> str:
    """Return the number of faulty samples, and the first ten of them, one per line.

    Examples
    --------
    >>> print(describe_faults([SampleFault(3, "a.png", "empty file (0 bytes)")], n_samples=5))
    1 of 5 samples cannot be read:
      [3] a.png: empty file (0 bytes)
    """
    lines = [f"{len(faults)} of {n_samples} samples cannot be read:"]
    lines += [f"  {fault}" for fault in faults[:_N_SHOWN]]
    if len(faults) > _N_SHOWN:
        lines.append(f"  ... and {len(faults) - _N_SHOWN} more")
    return "\n".join(lines)
