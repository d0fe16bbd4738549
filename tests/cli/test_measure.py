"""What networks cost, each measured in a process of its own."""

import json
import sys

import pytest
from command_line import CODES

from featx.backbones.registry import find_network
from featx.cli import measure, output
from featx.exceptions import EngineError

COST = measure.NetworkCost("openvino", "cpu:0, x86_64, 2 cores", 256, 1234.56, 1.25, None)


@pytest.mark.long
def test_measure_tiny_gives_rate_and_memory(run):
    code, text, _ = run("backbones", "--measure", "Tiny", "--json")
    assert code == 0
    (cost,) = json.loads(text)
    assert (cost["name"], cost["batch_size"], cost["imagenet_top1"]) == ("tiny", 256, None)
    assert cost["engine"] in ("keras", "openvino")
    assert min(cost["images_per_s"], cost["cpu_ms_per_image"]) > 0
    if sys.platform == "linux":  # the weights alone, at least
        assert cost["peak_memory_mb"] > 4 * cost["n_parameters"] / 1e6


def test_measure_process_that_fails_is_an_error(run, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "abacus")
    code, out, err = run("backbones", "--measure", "tiny")
    assert (code, out) == (CODES["input"], "")
    assert "error: tiny cannot be measured, since its process ended with 1: " in err
    assert "abacus" in err


@pytest.mark.filterwarnings("default")
def test_measure_shows_others_if_one_fails(run, monkeypatch):
    def measured(network):
        if network.name == "vgg16":
            raise EngineError("vgg16 cannot be measured, since its process ended with -9: killed")
        return COST

    monkeypatch.setattr(measure, "measure_in_new_process", measured)
    code, out, err = run("backbones", "--measure", "vgg16", "tiny", "--json")
    assert (code, [cost["name"] for cost in json.loads(out)]) == (0, ["tiny"])
    assert "EngineWarning: vgg16 cannot be measured" in err


def test_measure_without_names_takes_all(run, monkeypatch):
    monkeypatch.setattr(measure, "measure_in_new_process", lambda network: COST)
    _, out, _ = run("backbones", "--measure")
    assert all(name in out for name in ("tiny", "vgg16", "convnext_xlarge"))


def test_measure_unknown_names_are_listed_first(run, monkeypatch):
    monkeypatch.setattr(measure, "measure_in_new_process", None)  # nothing is measured
    code, _, err = run("backbones", "--measure", "tinny", "mobilnet")
    assert code == CODES["input"]
    assert "2 faulty options" in err
    assert "Did you mean 'tiny'" in err
    assert "'mobilnet'" in err


def test_backbones_of_several_names_need_measure(run):
    code, _, err = run("backbones", "tiny", "vgg16")
    assert (code, "got 2 names: expected one, or --measure" in err) == (2, True)


def test_print_costs_shows_figures_of_a_network(capsys):
    output.print_costs([(find_network("vgg16"), COST)])
    out = capsys.readouterr().out
    for shown in ("vgg16", "14,714,688", "71.3%", "openvino", "1,234.6", "1.2", "2 cores"):
        assert shown in out
