"""Backbones of KerasHub: their embeddings, identity, layers, fine-tuning, engines and files."""

import keras
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from featx import FeatureExtractor, FineTune, TransferClassifier, load, save
from featx.backbones.augment import Augmentation
from featx.backbones.hub_models import padding_id, single_input_model
from featx.digests.tensor_history import calls_of
from featx.exceptions import BackboneError, EngineError, SavedFileError
from featx.finetune.plan import TrainingPlan
from featx.finetune.unfreeze import choose_unfrozen
from tests.backbones.hub_zoo import FAMILIES, image_shape, small_backbone, small_clip

keras_hub = pytest.importorskip("keras_hub")

# Swin attaches a mask that its attention does not read.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*does not support masking:UserWarning")

CONVERTED = sorted(FAMILIES.keys() - {"swin"})


def all_families(*in_gate):
    return [
        pytest.param(family, marks=[] if family in in_gate else pytest.mark.long)
        for family in FAMILIES
    ]


@pytest.fixture
def images(family):
    return np.random.default_rng(0).integers(0, 256, (12, *image_shape(family)), dtype=np.uint8)


@pytest.fixture
def model(family):
    return small_backbone(family)


def expected_rows(model, images):
    """Return the output of a backbone: the class token, the mean, or the vectors."""
    (name,) = [tensor.name for tensor in model.inputs]
    pixels = images.astype(np.float32) / 255
    outputs = np.asarray(model({name: pixels} if isinstance(model.input, dict) else pixels))
    has_class_token = not isinstance(
        model, keras_hub.models.SwinTransformerBackbone | keras_hub.models.MobileNetV5Backbone
    )
    if outputs.ndim == 2:
        return outputs
    if outputs.ndim == 3 and has_class_token:
        return outputs[:, 0]
    return outputs.mean(axis=tuple(range(1, outputs.ndim - 1)))


@pytest.mark.parametrize("family", FAMILIES)
def test_hub_model_embeds_as_itself(family, model, images):
    rows = FeatureExtractor(model, preprocessing="unit", cache=None).fit_transform(images)
    expected = expected_rows(model, images)
    assert np.linalg.norm(rows - expected) <= 1e-5 * np.linalg.norm(expected)
    assert np.linalg.norm(rows[0] - rows[1]) > 1e-3 * np.linalg.norm(rows[0])


@pytest.mark.parametrize("engine", ["keras", pytest.param("openvino", marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "image_shape", [(32, 64, 3), pytest.param((64, 32, 3), marks=pytest.mark.long)]
)
@pytest.mark.parametrize("pooling", ["cls", "patches", None])
def test_hub_model_of_oblong_images_has_all_tokens(pooling, image_shape, engine):
    if engine == "openvino":
        pytest.importorskip("openvino")
    model = small_backbone("dinov3", image_shape=image_shape)  # KerasHub declares those of a square
    images = np.random.default_rng(0).integers(0, 256, (3, *image_shape), dtype=np.uint8)
    tokens = np.asarray(model({"pixel_values": images.astype(np.float32) / 255}))
    assert tokens.shape == (3, 1 + 4 + 2 * 4, 16)
    expected = {"cls": tokens[:, 0], "patches": tokens[:, 5:].mean(axis=1), None: tokens}[pooling]
    params = {"pooling": pooling, "preprocessing": "unit", "engine": engine, "cache": None}
    rows = FeatureExtractor(model, **params).fit_transform(images)
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("pooling", ["cls", "patches", pytest.param("max", marks=pytest.mark.long)])
@pytest.mark.filterwarnings("ignore:pooling='max' pools all:featx.exceptions.ParameterWarning")
def test_hub_model_of_channels_first_pools_tokens(pooling):
    model = small_backbone("vit", image_shape=(3, 32, 32), data_format="channels_first")
    images = np.random.default_rng(0).uniform(0, 255, (3, 3, 32, 32)).astype(np.float32)
    tokens = np.asarray(model(images / 255))
    expected = {
        "cls": tokens[:, 0],
        "patches": tokens[:, 1:].mean(axis=1),
        "max": tokens.max(axis=1),
    }[pooling]
    extractor = FeatureExtractor(model, pooling=pooling, preprocessing="unit", cache=None)
    rows = extractor.fit_transform(images)
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("family", ["dinov2", "dinov3"])
def test_hub_model_trains_only_what_files_keep(family, model, tmp_path):
    single = single_input_model(model, pad_id=None, label=family).model
    choose_unfrozen(single, "all", batch_norm="frozen", label=family).apply(single)
    assert len(single.trainable_variables) > 20
    for variable in single.trainable_variables:
        variable.assign(variable + 0.1 * keras.random.normal(variable.shape, seed=2))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for variable, same in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(same, variable)


@pytest.mark.parametrize(
    "family", all_families("dinov3", "siglip")
)  # siglip: layers without a config
def test_hub_model_round_trips_share_space(family, model, images, tmp_path):
    model.save(tmp_path / "model.keras")
    model.save_to_preset(tmp_path / "preset")
    backbones = [
        model,
        keras.saving.load_model(tmp_path / "model.keras", compile=False),
        tmp_path / "model.keras",
        f"keras_hub:{tmp_path / 'preset'}",
    ]
    extractors = [FeatureExtractor(each, preprocessing="unit") for each in backbones]
    rows = [extractor.fit_transform(images) for extractor in extractors]
    assert len({extractor.space_digest_ for extractor in extractors}) == 1
    assert [extractor.report_.n_forward for extractor in extractors] == [len(images), 0, 0, 0]
    assert all(np.array_equal(rows[0], other) for other in rows[1:])
    weight = model.weights[-1]
    weight.assign(weight + 1)
    other = FeatureExtractor(model, preprocessing="unit").fit(images)
    assert other.space_digest_ != extractors[0].space_digest_


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that makes a version of KerasHub the installed one, by its metadata."""

    def as_version(version):
        folder = tmp_path / version / f"keras_hub-{version}.dist-info"
        folder.mkdir(parents=True)
        metadata = f"Metadata-Version: 2.1\nName: keras-hub\nVersion: {version}\n"
        (folder / "METADATA").write_text(metadata)
        monkeypatch.syspath_prepend(folder.parent)

    return as_version


@pytest.mark.parametrize("family", ["dinov3"])
def test_hub_model_of_other_release_is_another_space(family, model, images, install, tmp_path):
    install("0.98.1")
    model.save(tmp_path / "model.keras")
    model.save_to_preset(tmp_path / "preset")
    saved = FeatureExtractor(model, preprocessing="unit").fit(images)
    save(saved, tmp_path / "model.featx")
    stored = load(tmp_path / "model.featx").backbone
    backbones = [model, tmp_path / "model.keras", stored, f"keras_hub:{tmp_path / 'preset'}"]

    def spaces():
        extractors = [FeatureExtractor(each, preprocessing="unit") for each in backbones]
        return {extractor.fit(images).space_digest_ for extractor in extractors}

    (before,) = spaces()
    install("0.98.2")
    assert spaces() == {before}
    install("0.99.0")
    (after,) = spaces()
    assert after != before
    message = r"fitted with KerasHub 0\.98, and 0\.99 is installed.*'keras-hub==0\.98\.\*'"
    with pytest.raises(BackboneError, match=message):
        saved.transform(images)
    with pytest.raises(BackboneError, match=message):
        save(saved, tmp_path / "again.featx")
    with pytest.raises(SavedFileError, match=message):
        load(tmp_path / "model.featx")


def test_hub_layers_around_a_model_belong_to_its_identity(install):
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    converter = keras_hub.layers.DINOV3ImageConverter(image_size=(64, 64), scale=1 / 255)
    spaces, keys = [], []
    for version in ("0.98.0", "0.99.0"):
        install(version)
        extractor = FeatureExtractor("tiny", preprocessing=converter).fit(images)
        spaces.append(extractor.space_.description.get("keras_hub"))
        keys.append(Augmentation(converter, (64, 64, 3)).digest)
    assert spaces == ["0.98", "0.99"]
    assert keys[0] != keys[1]


@pytest.mark.parametrize("family", ["vit"])
def test_hub_model_is_left_as_it_was(family, model, images):
    config, inputs = model.get_config(), [tensor.name for tensor in model.inputs]
    layers, before = [id(layer) for layer in model.layers], expected_rows(model, images)
    FeatureExtractor(model, preprocessing="unit").fit_transform(images)
    assert [id(layer) for layer in model.layers] == layers
    assert (model.get_config(), [tensor.name for tensor in model.inputs]) == (config, inputs)
    np.testing.assert_array_equal(expected_rows(model, images), before)


LAYERS = [("dinov2", "stage2"), ("dinov3", "encoder:1"), ("vit", "encoder:1")]


@pytest.mark.parametrize(("family", "layer"), LAYERS)
def test_hub_model_block_is_a_layer(family, layer, model, images):
    rows = FeatureExtractor(
        model, layer=layer, pooling=None, preprocessing="unit", cache=None
    ).fit_transform(images)
    if family == "vit":
        x = model.get_layer("vit_patching_and_embedding")(images / 255)
        encoder = model.get_layer("vit_encoder")
        expected = encoder.encoder_layers[1](encoder.encoder_layers[0](x))
    else:
        graph = keras.Model(model.inputs[0], model.pyramid_outputs["stage2"])
        expected = graph(images.astype(np.float32) / 255)
    assert np.linalg.norm(rows - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("family", ["dinov3"])
def test_hub_model_layers_searched_in_one_pass(family, model, images):
    layers = ["encoder:0", "encoder:1", None]
    classifier = TransferClassifier(
        FeatureExtractor(model, preprocessing="unit", also_cache=layers),
        head=LogisticRegression(),
    )
    y = np.arange(len(images)) % 2
    passes = []
    classifier.fit(images, y)
    passes.append(classifier.report_.n_forward)
    search = GridSearchCV(classifier, {"extractor__layer": layers}, cv=2).fit(images, y)
    passes.append(search.best_estimator_.report_.n_forward)
    assert passes == [len(images), 0]


@pytest.mark.parametrize("family", ["dinov3"])
def test_hub_model_unknown_layer_names_blocks(family, model, images):
    with pytest.raises(ValueError, match=r"'encodr:1'.*Did you mean 'encoder:1'"):
        FeatureExtractor(model, layer="encodr:1").fit(images)


@pytest.mark.parametrize("family", all_families("dinov3"))
def test_hub_model_fine_tuning_starts_from_frontier(family, model, images, tmp_path):
    classifier = TransferClassifier(
        FeatureExtractor(model, preprocessing="unit"),
        fine_tune=FineTune(unfreeze=1, epochs=1, learning_rate=1e-3),
        random_state=0,
    )
    y = np.arange(len(images)) % 2
    classifier.fit(images, y)
    report = classifier.report_
    assert report.frontier == "cache"
    assert report.handover_gap <= 1e-5
    assert report.n_params_trained < report.n_params_frozen + report.n_params_trained
    save(classifier, tmp_path / "tuned.featx")
    loaded = load(tmp_path / "tuned.featx")
    new = 255 - images
    np.testing.assert_allclose(
        loaded.predict_proba(new), classifier.predict_proba(new), rtol=0, atol=1e-5
    )


UNFROZEN = {
    "dinov3": {
        "encoder:1": ["layers_1", "layers_2"],
        "stage3": ["layers_2"],
        "encoder": ["layers_0", "layers_1", "layers_2"],
    },
    "swin": {"stage_1:1": ["blocks_1"], "encoder": ["blocks_0", "blocks_1"]},
}


@pytest.mark.parametrize("family", ["dinov3", pytest.param("swin", marks=pytest.mark.long)])
def test_hub_model_unfreeze_names_a_block(family, model, images):
    extractor = FeatureExtractor(model, preprocessing="unit", cache=None).fit(images)
    for unfreeze, expected in UNFROZEN[family].items():
        plan = TrainingPlan(FineTune(unfreeze), extractor)
        *blocks, norm = plan.unfrozen.layers
        assert (blocks, norm.endswith("norm")) == (expected, True)


@pytest.mark.parametrize("family", ["dinov3"])
def test_hub_model_unfreeze_unknown_block_raises(family, model, images):
    extractor = FeatureExtractor(model, layer="encoder:1", preprocessing="unit", cache=None)
    extractor.fit(images)
    for unfreeze in ("encoder:2", "encodr:0"):  # the first is above the layer that is read
        with pytest.raises(ValueError, match=r"Did you mean 'encoder:.*'encoder:0' to 'encoder:1'"):
            TrainingPlan(FineTune(unfreeze), extractor)


@pytest.mark.parametrize("family", all_families("dinov3"))
def test_hub_model_saved_and_loaded(family, model, images, tmp_path):
    extractor = FeatureExtractor(model, preprocessing="unit", cache=None).fit(images)
    save(extractor, tmp_path / "model.featx")
    loaded = load(tmp_path / "model.featx", cache=None)
    rows = extractor.transform(images)
    assert np.linalg.norm(loaded.transform(images) - rows) <= 1e-5 * np.linalg.norm(rows)


@pytest.mark.parametrize(
    ("family", "engine"),
    [
        pytest.param("dinov3", "onnx", marks=pytest.mark.long),
        *(pytest.param(family, "openvino", marks=pytest.mark.long) for family in CONVERTED),
    ],
)
def test_hub_model_engines_agree(family, engine, model, images):
    options = {"preprocessing": "unit", "cache": None}
    expected = FeatureExtractor(model, engine="keras", **options).fit_transform(images)
    rows = FeatureExtractor(model, engine=engine, **options).fit_transform(images)
    assert np.linalg.norm(rows - expected) <= 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("family", "engine", "reason"),
    [
        pytest.param(
            "swin",
            "openvino",
            "OpenVINO has no form of the operation XlaDynamicUpdateSlice",
            marks=pytest.mark.long,
        ),
        pytest.param("vit", "onnx", "is incomplete: .* has no value", marks=pytest.mark.long),
    ],
)
def test_hub_model_without_engine_form_runs_by_keras(family, engine, reason, model, images):
    options = {"preprocessing": "unit", "cache": None}
    with pytest.raises(EngineError, match=reason):
        FeatureExtractor(model, engine=engine, **options).fit_transform(images)
    extractor = FeatureExtractor(model, **options)
    assert np.isfinite(extractor.fit_transform(images)).all()
    assert extractor.report_.engine == "keras"


@pytest.mark.parametrize("family", ["deit", "vit"])
def test_hub_model_encoder_is_unrolled_if_possible(family, model, images):
    network = single_input_model(model, pad_id=None, label=family).model
    names = [call.operation.name for call in calls_of(network)]
    blocks = [f"transformer_block_{number}" for number in (1, 2, 3)]
    assert names[1:] == (["deit_encoder"] if family == "deit" else ["dropout", *blocks, "ln"])


def test_padding_id_is_that_of_a_comparison_with_a_number():
    inputs = keras.Input((4,), dtype="int32")
    compared = {"number": (inputs, 7), "reversed": (7, inputs), "tensors": (inputs, inputs + 1)}
    models = {
        name: keras.Model(inputs, keras.ops.not_equal(*pair)) for name, pair in compared.items()
    }
    found = {name: padding_id(model) for name, model in models.items()}
    assert found == {"number": 7, "reversed": None, "tensors": None}


def test_hub_model_of_two_towers_names_parts():
    both = small_clip()
    with pytest.raises(ValueError, match=r"has 2 inputs.*vision_encoder"):
        FeatureExtractor(both, cache=None).fit(np.zeros((2, 32, 32, 3), np.uint8))
