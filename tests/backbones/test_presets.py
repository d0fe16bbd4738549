"""Presets of KerasHub: folders, names, downloads, texts, and what identifies them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from featx import EmbeddingCache, FeatureExtractor, list_backbones, load, save
from featx.exceptions import (
    BackboneError,
    BadSampleError,
    BadSampleWarning,
    ParameterError,
    ParameterWarning,
    WeightsError,
)
from tests.backbones.hub_zoo import image_shape, small_backbone, small_clip

keras_hub = pytest.importorskip("keras_hub")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "lovely", "weather", "stadium"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A preset of a vision transformer with its scaling of pixels."""
    folder = tmp_path_factory.mktemp("presets") / "small_dino"
    small_backbone("dinov3").save_to_preset(folder)
    converter = keras_hub.layers.DINOV3ImageConverter(
        image_size=(32, 32), scale=[0.01, 0.02, 0.03], offset=[-1.0, 0.0, 1.0]
    )
    converter.save_to_preset(folder)
    return folder


@pytest.fixture
def images():
    shape = (6, *image_shape("dinov3"))
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    """A preset of a text model with its tokenizer."""
    folder = tmp_path_factory.mktemp("presets") / "small_bert"
    keras.utils.set_random_seed(0)
    keras_hub.models.BertBackbone(
        vocabulary_size=len(WORDS),
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=12,
    ).save_to_preset(folder)
    keras_hub.models.BertTokenizer(vocabulary=WORDS).save_to_preset(folder)
    return folder


def ids_of(length):
    texts = [[2, 5, 6, 7, 3], [2, 8, 3], [2, 5, 8, 6, 7, 3]]
    return np.array([ids + [0] * (length - len(ids)) for ids in texts], np.int32)


def test_preset_scales_as_its_converter(folder, images):
    rows = FeatureExtractor(f"keras_hub:{folder}", cache=None).fit_transform(images)
    model = keras_hub.models.Backbone.from_preset(os.fspath(folder))
    converter = keras_hub.layers.ImageConverter.from_preset(os.fspath(folder))
    expected = np.asarray(model({"pixel_values": converter(images.astype(np.float32))}))[:, 0]
    assert np.linalg.norm(rows - expected) <= 1e-5 * np.linalg.norm(expected)


def test_preset_without_converter_warns_of_scaling(folder, images, tmp_path):
    keras_hub.models.Backbone.from_preset(os.fspath(folder)).save_to_preset(tmp_path / "bare")
    bare = FeatureExtractor(f"keras_hub:{tmp_path / 'bare'}", cache=None)
    with pytest.warns(ParameterWarning, match="does not define how pixels are scaled"):
        bare.fit(images)
    bare.set_params(preprocessing=None).fit(images)


def test_preset_embedded_before_needs_no_keras(folder, images):
    extractor = FeatureExtractor(f"keras_hub:{folder}")
    rows = extractor.fit_transform(images)
    code = (
        "import sys, numpy as np; from featx import FeatureExtractor;"
        "images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8);"
        f"rows = FeatureExtractor('keras_hub:{folder}').fit_transform(images);"
        "print(sorted({'keras', 'keras_hub', 'tensorflow'} & sys.modules.keys()), rows.tobytes())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"[] {rows.tobytes()}\n"


def test_preset_relative_folder_survives_change_of_folder(folder, images, monkeypatch, tmp_path):
    monkeypatch.chdir(folder.parent)
    extractor = FeatureExtractor(f"keras_hub:{folder.name}")
    rows = extractor.fit_transform(images)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(extractor.transform(images), rows)
    absolute = FeatureExtractor(f"keras_hub:{folder}").fit(images)
    assert absolute.space_digest_ == extractor.space_digest_


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "cannot be read by KerasHub"),
        ({"class_name": "Gone", "registered_name": "keras_hub>Gone"}, "cannot be read by KerasHub"),
        ({"scale": "thin"}, "scales pixels by 'thin'"),
        ({"scale": [1, 2]}, "or one for each of 3 channels"),
    ],
)
def test_preset_of_damaged_converter_is_refused(change, message, folder, images, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "preset")
    converter = json.loads((copy / "image_converter.json").read_text())
    text = "{"
    if change:
        (converter if "class_name" in change else converter["config"]).update(change)
        text = json.dumps(converter)
    (copy / "image_converter.json").write_text(text)
    with pytest.raises(WeightsError, match=message):
        FeatureExtractor(f"keras_hub:{copy}", cache=None).fit(images)


def test_preset_unknown_constructor_parameter_is_refused(folder, images):
    extractor = FeatureExtractor(f"keras_hub:{folder}", backbone_params={"num_layer": 1})
    with pytest.raises(
        ParameterError, match=r"no parameter 'num_layer'\. Did you mean 'num_layers'"
    ):
        extractor.fit(images)


def test_preset_file_changed_gives_other_rows(folder, images, tmp_path):
    copy = tmp_path / "preset"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    first = FeatureExtractor(f"keras_hub:{copy}").fit_transform(images)
    converter = json.loads((copy / "image_converter.json").read_text())
    converter["config"]["scale"] = [0.01, 0.01, 0.01]
    (copy / "image_converter.json").write_text(json.dumps(converter))
    extractor = FeatureExtractor(f"keras_hub:{copy}")
    assert np.abs(extractor.fit_transform(images) - first).max() > 0.01
    assert extractor.report_.n_hits == 0


def test_preset_random_weights_are_the_same_each_time(folder, images, tmp_path):
    backbone = f"keras_hub:{folder}"
    random = FeatureExtractor(backbone, weights=None, cache=None).fit_transform(images)
    again = FeatureExtractor(backbone, weights=None, cache=tmp_path).fit_transform(images)
    np.testing.assert_array_equal(random, again)
    published = FeatureExtractor(backbone, cache=None).fit_transform(images)
    assert np.abs(random - published).max() > 0.01


def test_preset_takes_another_size(folder, images):
    larger = FeatureExtractor(f"keras_hub:{folder}", input_size=48, pooling="patches").fit(images)
    given = FeatureExtractor(
        f"keras_hub:{folder}", backbone_params={"image_shape": (48, 48, 3)}, pooling="patches"
    ).fit(images)
    assert larger.space_.input_shape == given.space_.input_shape == (48, 48, 3)
    assert larger.space_digest_ == given.space_digest_


def test_preset_of_fixed_size_says_so(tmp_path, images):
    small_backbone("vit").save_to_preset(tmp_path / "vit")
    extractor = FeatureExtractor(f"keras_hub:{tmp_path / 'vit'}", preprocessing="unit")
    with pytest.raises(BackboneError, match="leave input_size out"):
        extractor.set_params(input_size=64).fit(images)


def test_preset_saved_file_needs_no_folder(folder, images, tmp_path):
    extractor = FeatureExtractor(f"keras_hub:{folder}", layer="encoder:1").fit(images)
    rows = extractor.transform(images)
    save(extractor, tmp_path / "preset.featx")
    loaded = load(tmp_path / "preset.featx", cache=None)
    assert loaded.preprocessing is not None
    assert np.linalg.norm(loaded.transform(images) - rows) <= 1e-5 * np.linalg.norm(rows)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"backbone": "keras_hub:"}, "the name or the folder of a preset after the colon"),
        ({"backbone": "keras_hub:./not/there"}, "an existing folder"),
        ({"backbone_params": {"image_shape": (8, 8, 3)}, "input_size": 8}, "no 'image_shape'"),
        ({"n_prefix_tokens": -1}, "a number of tokens"),
        ({"pooling": "class"}, "Did you mean 'cls'"),
    ],
)
def test_preset_faulty_parameters_are_found_before(params, message, folder, images):
    given = {"backbone": f"keras_hub:{folder}", **params}
    with pytest.raises(ParameterError, match=message):
        FeatureExtractor(**given).fit(images)


def test_preset_unknown_name_suggests_near_ones(images):
    with pytest.raises(ParameterError, match="Did you mean 'dinov2_base'"):
        FeatureExtractor("keras_hub:dinov2_bas").fit(images)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "is not the configuration of a preset"),
        ('{"registered_name": "x", "module": "os", "class_name": "x"}', "the module 'os'"),
        (
            '{"registered_name": "x", "config": [{"module": "my.code", "class_name": "x"}]}',
            "'my.code'",
        ),
    ],
)
def test_preset_of_strangers_runs_no_foreign_code(config, message, tmp_path, images):
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "model.weights.h5").write_bytes(b"")
    with pytest.raises(WeightsError, match=message):
        FeatureExtractor(f"keras_hub:{tmp_path}").fit(images)


def test_preset_incomplete_folder_says_what_is_missing(folder, tmp_path, images):
    with pytest.raises(WeightsError, match=r"no config\.json"):
        FeatureExtractor(f"keras_hub:{tmp_path}").fit(images)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(WeightsError, match="has no weights"):
        FeatureExtractor(f"keras_hub:{tmp_path}").fit(images)
    FeatureExtractor(f"keras_hub:{tmp_path}", weights=None, preprocessing=None).fit(images)


@pytest.mark.parametrize("name", ["dinov2_small", "hf://nobody/nothing"])
@pytest.mark.long
def test_preset_without_network_names_ways_out(name, tmp_path):
    # In a process of its own, since the libraries read their settings when they are imported.
    closed = "http://127.0.0.1:9"
    settings = {
        "HF_ENDPOINT": closed,
        "HF_HOME": os.fspath(tmp_path),
        "KAGGLEHUB_CACHE": os.fspath(tmp_path),
        "KAGGLE_API_ENDPOINT": closed,
    }
    code = (
        "import numpy as np; from featx import FeatureExtractor; from featx.exceptions import *\n"
        f"try: FeatureExtractor('keras_hub:{name}', cache=None).fit(np.zeros((1, 8, 8, 3)))\n"
        "except WeightsError as exc: print(exc)"
    )
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), closed)
    environment = os.environ | settings | (proxies if "://" not in name else {})
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert "cannot be downloaded" in done.stdout
    assert all(way in done.stdout for way in ("KAGGLEHUB_CACHE", "keras_hub:FOLDER", "'tiny'"))


def test_preset_folder_is_remembered_until_it_is_gone(folder, images, tmp_path, monkeypatch):
    from featx.backbones import presets

    monkeypatch.setattr(presets, "_FOLDERS", {})
    facts = EmbeddingCache(tmp_path).facts
    facts.remember({"folder of preset": "mine"}, os.fspath(folder))
    preset = presets.Preset("mine")
    assert preset.find_folder(facts, with_weights=True) == folder
    monkeypatch.setattr(presets, "_FOLDERS", {})
    facts.remember({"folder of preset": "mine"}, os.fspath(tmp_path / "gone"))
    with pytest.raises(ParameterError, match="nor the name of a preset"):
        preset.find_folder(facts, with_weights=True)


@pytest.mark.parametrize("pooling", ["auto", "cls", "max"])
def test_text_embedding_ignores_padding(pooling, text_folder):
    extractor = FeatureExtractor(f"keras_hub:{text_folder}", pooling=pooling, cache=None)
    rows = [extractor.fit_transform(ids_of(length)) for length in (6, 10)]
    np.testing.assert_allclose(rows[0], rows[1], rtol=0, atol=1e-5)
    model = keras_hub.models.Backbone.from_preset(os.fspath(text_folder))
    ids = np.array([[2, 8, 3]], np.int32)
    tokens = np.asarray(
        model({"token_ids": ids, "padding_mask": ids > 0, "segment_ids": ids * 0})[
            "sequence_output"
        ]
    )[0]
    expected = {"auto": tokens.mean(axis=0), "cls": tokens[0], "max": tokens.max(axis=0)}[pooling]
    np.testing.assert_allclose(rows[0][1], expected, rtol=0, atol=1e-5)


def test_text_pooling_is_that_of_its_folder(text_folder, tmp_path):
    (tmp_path / "1_Pooling").mkdir()
    for file in text_folder.rglob("*"):
        if file.is_file():
            target = tmp_path / file.relative_to(text_folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    modes = {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    own = FeatureExtractor(f"keras_hub:{tmp_path}").fit_transform(ids_of(6))
    named = FeatureExtractor(f"keras_hub:{text_folder}", pooling="cls").fit_transform(ids_of(6))
    np.testing.assert_array_equal(own, named)


def test_text_pooling_without_meaning_is_refused(text_folder):
    with pytest.raises(ParameterError, match="for texts"):
        FeatureExtractor(f"keras_hub:{text_folder}", pooling="patches").fit(ids_of(6))


def test_text_extractor_saved_and_loaded(text_folder, tmp_path):
    layer = "transformer_layer_0"  # of two
    extractor = FeatureExtractor(f"keras_hub:{text_folder}", layer=layer, cache=None).fit(ids_of(6))
    save(extractor, tmp_path / "text.featx")
    loaded = load(tmp_path / "text.featx", cache=None)
    names = extractor.get_feature_names_out().tolist()
    assert loaded.get_feature_names_out().tolist() == names
    assert f"_{layer}_avg_0" in names[0]
    np.testing.assert_allclose(
        loaded.transform(ids_of(6)), extractor.transform(ids_of(6)), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    ("wrong", "engine"),
    [
        (9, "openvino"),
        (-1, "keras"),
        (2.5, "keras"),
        *(
            pytest.param(*each, marks=pytest.mark.long)
            for each in ((9, "keras"), (-1, "openvino"), (2.5, "openvino"))
        ),
    ],
)
def test_text_of_unknown_token_ids_is_refused(wrong, engine, text_folder):
    if engine == "openvino":
        pytest.importorskip("openvino")
    extractor = FeatureExtractor(f"keras_hub:{text_folder}", engine=engine, cache=None)
    ids = ids_of(6).astype(type(wrong))
    expected = extractor.fit_transform(ids)
    ids[1, 1] = wrong
    with pytest.raises(BadSampleError, match=r"\[1\] .*expected integers from 0 to 8"):
        extractor.transform(ids)
    extractor.set_params(on_error="nan")
    for given in (ids, list(ids)):
        with pytest.warns(BadSampleWarning, match="1 of 3"):
            rows = extractor.transform(given)
        np.testing.assert_allclose(rows[[0, 2]], expected[[0, 2]], rtol=0, atol=1e-5)
        assert np.isnan(rows[1]).all()


@pytest.mark.parametrize("is_saved", [False, True])
def test_text_of_padding_alone_is_refused(is_saved, text_folder, tmp_path):
    extractor = FeatureExtractor(f"keras_hub:{text_folder}", cache=tmp_path / "cache")
    ids = ids_of(6)
    expected = extractor.fit_transform(ids)
    if is_saved:
        save(extractor, tmp_path / "text.featx")
        extractor = load(tmp_path / "text.featx", cache=tmp_path / "cache")
    ids[1] = 0
    for given in (ids, list(ids)):
        extractor.set_params(on_error="raise")
        with pytest.raises(BadSampleError, match=r"\[1\] .*has no token: all ids are 0"):
            extractor.transform(given)
        extractor.set_params(on_error="nan")
        with pytest.warns(BadSampleWarning, match="1 of 3"):
            rows = extractor.transform(given)
        np.testing.assert_allclose(rows[[0, 2]], expected[[0, 2]], rtol=0, atol=1e-5)
        assert np.isnan(rows[1]).all()


@pytest.mark.parametrize(
    ("params", "samples", "message"),
    [
        ({}, ids_of(13), "of 12 tokens at most; the samples have shape \\(13,\\)"),
        ({}, ["the lovely weather", "the stadium"], "are not arrays of one shape"),
        ({"preprocessing": "tf"}, ids_of(6), "takes token ids, not pixels"),
    ],
)
def test_text_samples_that_do_not_fit_are_explained(params, samples, message, text_folder):
    with pytest.raises((BackboneError, ParameterError), match=message):
        FeatureExtractor(f"keras_hub:{text_folder}", cache=None, **params).fit(samples)


def test_text_model_object_needs_its_preset(text_folder):
    model = keras_hub.models.Backbone.from_preset(os.fspath(text_folder))
    with pytest.raises(BackboneError, match="padding is not known: pass its preset"):
        FeatureExtractor(model, cache=None).fit(ids_of(6))


def test_preset_of_images_and_texts_embeds_images(tmp_path):
    both = small_clip()
    both.save_to_preset(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    rows = FeatureExtractor(f"keras_hub:{tmp_path}", preprocessing="unit").fit_transform(images)
    own = FeatureExtractor(both.vision_encoder, preprocessing="unit")
    np.testing.assert_array_equal(own.fit_transform(images), rows)
    assert own.report_.n_forward == 0


def test_list_backbones_lists_presets_once():
    presets = list_backbones("keras_hub")
    names = [preset.name for preset in presets]
    assert len(set(names)) == len(names) > 100
    (dino,) = [preset for preset in presets if preset.name == "keras_hub:dinov2_base"]
    assert dino[1:] == ("image", "DINOV2Backbone", 87_632_640)
    with pytest.raises(ParameterError, match="library='torch'"):
        list_backbones("torch")


def test_preset_label_is_its_last_part():
    from featx.backbones.presets import Preset

    names = ["dinov2_base", "hf://owner/name", os.fspath(Path("a") / "b") + "/"]
    assert [Preset(name).label for name in names] == ["dinov2_base", "name", "b"]


def test_text_preset_with_broken_tokenizer_names_it(text_folder, tmp_path):
    for name in ("config.json", "model.weights.h5"):
        (tmp_path / name).write_bytes((text_folder / name).read_bytes())
    (tmp_path / "tokenizer.json").write_text('{"class_name": "Gone"}')
    with pytest.raises(BackboneError, match="tokenizer that KerasHub can read"):
        FeatureExtractor(f"keras_hub:{tmp_path}", cache=None).fit(ids_of(6))
