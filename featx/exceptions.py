"""Every error and warning of featx.

Each error is a :class:`FeatxError` and, beside that, the builtin type that a caller would catch
without knowing featx. Messages say what was got, what was expected and how to cure it. Several
faults make one message. Names of files and classes in it may hold anything, so control characters
are shown as Python escapes (see :mod:`featx._text`).
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from featx._text import one_line, without_controls

_SHOWN = 10


class FeatxError(Exception):
    """Base class of all errors that featx raises; its text holds no control characters."""

    def __str__(self) -> str:
        return without_controls(super().__str__())


class ParameterError(FeatxError, ValueError):
    """A parameter of an estimator or function has a value that cannot work.

    Parameters
    ----------
    message : str
    faults : iterable of str, default=None
        What is wrong, one by one; None if the message says it.

    Attributes
    ----------
    faults : list of str
    """

    def __init__(self, message: str, faults: Iterable[str] | None = None) -> None:
        super().__init__(message)
        self.faults = [message] if faults is None else list(faults)


class InputError(FeatxError, ValueError):
    """`X` or `y` is of a kind, shape or content that featx cannot use."""


class SampleFault(NamedTuple):
    """One sample that could not be read.

    Attributes
    ----------
    position : int
        Row of the sample in `X`, counted from 0.
    name : str
        The path of the file, or what kind of object the sample is.
    reason : str
        What is wrong with it.
    """

    position: int
    name: str
    reason: str

    def __str__(self) -> str:
        return f"[{self.position}] {one_line(self.name)}: {one_line(self.reason)}"


class BadSampleError(InputError):
    """Samples that are missing, damaged or not images.

    Parameters
    ----------
    faults : iterable of SampleFault
        All faulty samples.
    n_samples : int
        How many samples there were in all.
    n_unseen : int, default=0
        How many of them were not decoded yet, and may be faulty too.

    Attributes
    ----------
    faults : list of SampleFault
        All of them, ordered by position; the message shows the first ten.
    """

    def __init__(self, faults: Iterable[SampleFault], n_samples: int, n_unseen: int = 0) -> None:
        self.faults = sorted(faults)
        self.n_samples = n_samples
        self.n_unseen = n_unseen
        unseen = f"\n{n_unseen} more were not decoded yet." if n_unseen else ""
        super().__init__(
            f"{describe_faults(self.faults, n_samples)}{unseen}\n"
            "Mend or remove them, or pass on_error='nan' to get rows of NaN in their place."
        )

    def __reduce__(self) -> tuple[type, tuple[list[SampleFault], int, int]]:
        return type(self), (self.faults, self.n_samples, self.n_unseen)


class MissingRowsError(FeatxError, LookupError):
    """Embeddings that were asked for are not stored, or no longer."""


class UnreadableImageError(InputError):
    """Bytes or an array are not an image that can be read; the message is the reason alone."""


class BackboneError(FeatxError, ValueError):
    """A backbone cannot be built, or cannot be used as one."""


class EngineError(FeatxError, RuntimeError):
    """An engine cannot run a network."""


class WeightsError(FeatxError, OSError):
    """The weights of a backbone cannot be had: no network, no such file, or a file of others."""


class UntrustedTypesError(FeatxError, TypeError):
    """A saved estimator holds types that are not trusted; nothing of it was loaded."""


class SavedFileError(FeatxError, ValueError):
    """A file is not a saved featx estimator, is damaged, or was made for other embeddings."""


class MissingExtraError(FeatxError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class FeatxWarning(UserWarning):
    """Base class of all warnings that featx emits; its text holds no control characters."""

    def __str__(self) -> str:
        return without_controls(super().__str__())


class ParameterWarning(FeatxWarning):
    """A parameter has no use beside the value of another; the message names both."""


class WeightsWarning(FeatxWarning):
    """Weights from a file may belong to a network that differs from the one that was built."""


class BadSampleWarning(FeatxWarning):
    """Samples could not be read and became rows of NaN, or were left out."""


class NearDuplicateWarning(FeatxWarning):
    """Samples that are nearly the same are trained on and judged by; the message names some.

    Parameters
    ----------
    finding : str
        How many there are, and which.
    cure : str, default=""
        What to do about them.
    """

    def __init__(self, finding: str, cure: str = "") -> None:
        super().__init__(finding, cure)
        self.finding = finding
        self.cure = cure

    def __str__(self) -> str:
        return without_controls(f"{self.finding} {self.cure}".rstrip())


class CacheDamageWarning(FeatxWarning):
    """A file of the cache was damaged or foreign; it was quarantined and is computed again."""


class CacheWriteWarning(FeatxWarning):
    """Embeddings could not be stored; they are returned all the same."""


class CacheDtypeWarning(FeatxWarning):
    """Embeddings have values that the cache's dtype cannot hold; they are kept in float32."""


class NotCachedWarning(FeatxWarning):
    """What computes the embeddings cannot be identified, so they are not cached."""


class UnstableBackboneWarning(FeatxWarning):
    """A callable gave another backbone than the last time; old rows cannot be used again."""


class EngineWarning(FeatxWarning):
    """An engine that would be faster cannot run a network; another does."""


class FineTuneWarning(FeatxWarning):
    """Fine-tuning ended early or did something else than was asked for; the message says why."""


class FolderWarning(FeatxWarning):
    """Files in an image folder were left out."""


def describe_faults(faults: Sequence[SampleFault], n_samples: int) -> str:
    """Say which samples are faulty: the count, then the first ten, one a line.

    Examples
    --------
    >>> print(describe_faults([SampleFault(3, "a.png", "empty file (0 bytes)")], n_samples=5))
    1 of 5 samples cannot be read:
      [3] a.png: empty file (0 bytes)
    """
    lines = [f"{len(faults)} of {n_samples} samples cannot be read:"]
    lines += [f"  {fault}" for fault in faults[:_SHOWN]]
    if len(faults) > _SHOWN:
        lines.append(f"  ... and {len(faults) - _SHOWN} more")
    return "\n".join(lines)
