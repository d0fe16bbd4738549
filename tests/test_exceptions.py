"""Errors have a featx class and a builtin one, and keep their parts through pickling."""

import pickle

import pytest

from featx import exceptions
from featx.exceptions import (
    BadSampleError,
    NearDuplicateWarning,
    ParameterError,
    ParameterFault,
    SampleFault,
    UntrustedTypesError,
    describe_faults,
)

BUILTINS = {
    "ParameterError": ValueError,
    "InputError": ValueError,
    "BadSampleError": ValueError,
    "UnreadableImageError": ValueError,
    "BackboneError": ValueError,
    "EngineError": RuntimeError,
    "WeightsError": OSError,
    "UntrustedTypesError": TypeError,
    "SavedFileError": ValueError,
    "MissingExtraError": ImportError,
    "MissingRowsError": LookupError,
}


@pytest.mark.parametrize("name", BUILTINS)
def test_error_has_featx_and_builtin_base(name):
    error = getattr(exceptions, name)
    assert issubclass(error, exceptions.FeatxError)
    assert issubclass(error, BUILTINS[name])


def test_every_error_is_listed_here():
    errors = {
        name
        for name, value in vars(exceptions).items()
        if isinstance(value, type) and issubclass(value, exceptions.FeatxError)
    }
    assert errors == {"FeatxError", *BUILTINS}


def test_every_warning_is_of_featx():
    warnings = [
        value
        for value in vars(exceptions).values()
        if isinstance(value, type) and issubclass(value, Warning)
    ]
    assert len(warnings) > 1
    assert all(issubclass(warning, exceptions.FeatxWarning) for warning in warnings)


def test_describe_faults_shows_ten_and_counts_rest():
    faults = [SampleFault(row, f"{row}.png", "empty") for row in range(12)]
    lines = describe_faults(faults, 20).splitlines()
    assert lines[0] == "12 of 20 samples cannot be read:"
    assert lines[10] == "  [9] 9.png: empty"
    assert lines[11:] == ["  ... and 2 more"]


def test_parameter_error_keeps_faults_through_pickling():
    faults = [ParameterFault("a", "1", "expected 2"), ParameterFault("", "", "b is missing")]
    error = ParameterError("two faults", [faults[0], "b is missing"])
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.faults) == ("two faults", faults)


def test_parameter_error_of_value_has_parts():
    error = ParameterError.of("layer", "stage9", "no layer of this name")
    assert str(error) == "layer='stage9': no layer of this name"
    assert error.faults == [("layer", "'stage9'", "no layer of this name")]


def test_untrusted_types_error_keeps_types_through_pickling():
    error = pickle.loads(pickle.dumps(UntrustedTypesError("It holds a.B.", ["a.B"])))
    assert (error.finding, error.types) == ("It holds a.B.", ["a.B"])
    assert str(error) == "It holds a.B. If you trust them, name them: trusted=['a.B']"


def test_bad_sample_error_keeps_faults_through_pickling():
    error = BadSampleError([SampleFault(3, "b", "gone"), SampleFault(1, "a", "empty")], 5)
    again = pickle.loads(pickle.dumps(error))
    assert [fault.position for fault in again.faults] == [1, 3]
    assert (again.n_samples, str(again)) == (5, str(error))
    assert "on_error='nan'" in str(error)


def test_near_duplicate_warning_keeps_parts_through_pickling():
    assert str(NearDuplicateWarning("a and b.")) == "a and b."
    warning = pickle.loads(pickle.dumps(NearDuplicateWarning("a and b.", "Pass groups=.")))
    assert (warning.finding, warning.cure) == ("a and b.", "Pass groups=.")
    assert str(warning) == "a and b. Pass groups=."
