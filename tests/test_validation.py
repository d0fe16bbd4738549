"""Faulty parameters: one message with each value, what was expected, and near names."""

import os

import numpy as np
import pytest

from featx._validation import ParameterFaults, did_you_mean
from featx.exceptions import ParameterError


def messages(check):
    faults = ParameterFaults("Owner")
    check(faults)
    return list(map(str, faults.faults))


@pytest.mark.parametrize("value", [1, 64, np.int64(3), "auto", None])
def test_check_positive_int_sound_value_passes(value):
    assert not messages(lambda f: f.check_positive_int("n", value, also=("auto", None)))


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "many", np.zeros(2), None, [1]])
def test_check_positive_int_other_value_is_fault(value):
    (message,) = messages(lambda f: f.check_positive_int("n", value, also=("auto",)))
    assert message.endswith("expected a positive integer or 'auto'.")


@pytest.mark.parametrize("value", ["Avg", 3, ["avg"], np.array(["avg"]), {}])
def test_check_option_other_value_is_fault(value):
    (message,) = messages(lambda f: f.check_option("pooling", value, ["avg", None]))
    assert "expected one of 'avg', None." in message


def test_check_option_sound_value_passes():
    assert not messages(lambda f: f.check_option("pooling", None, ["avg", None]))


def test_add_long_value_is_shortened():
    (message,) = messages(lambda f: f.add("x", "a" * 1000, "less"))
    assert message == f"x='{'a' * 76}...: expected less"


def test_add_path_is_shown_to_its_end():
    path = os.path.join("a" * 100, "photos")
    assert messages(lambda f: f.add("x", path, "less")) == [f"x={path!r}: expected less"]


def test_raise_any_one_fault_is_one_line():
    faults = ParameterFaults("Owner")
    faults.raise_any()
    faults.add("x", 1, "two.")
    with pytest.raises(
        ParameterError, match=r"^Owner has a faulty parameter: x=1: expected two\.$"
    ):
        faults.raise_any()


def test_did_you_mean_far_names_suggests_nothing():
    assert did_you_mean("zzz", ["vgg16", "vgg19"]) == ""
    assert did_you_mean("vgg1", ["vgg16", "xyz"]) == " Did you mean 'vgg16'?"
