"""Network: ``keras.applications`` and ``"tiny"`` by name, their scaling; ``list_backbones``.

The table needs no Keras. Each network has its own scaling of pixels from 0 to 255; the names of the
scalings are those of Keras: ``"tf"`` is x / 127.5 - 1; ``"torch"`` is x / 255, then standardized
with the mean and standard deviation of ImageNet's channels; ``"caffe"`` turns RGB into BGR and
subtracts ImageNet's mean; ``"unit"`` is x / 255. For images of other than three channels, see
``input_channels.py``; ``"caffe"`` keeps their order.

The accuracies on ImageNet are those that Keras publishes: in the table of "Available models" on the
page "Keras Applications" of its documentation (2026-11), and for MobileNetV3 in the docstrings of
its constructors.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from featx._validation import ParameterFaults, did_you_mean
from featx.backbones.input_channels import N_COLORS, constants_for_channels
from featx.exceptions import ParameterError

if TYPE_CHECKING:
    import keras


PREPROCESSINGS = ("tf", "torch", "caffe", "unit", None)
PRETRAINED = "pretrained"
_EFFICIENTNET_V2 = "x / 128 - 1"  # the scaling inside EfficientNetV2S, M and L

_TORCH_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_TORCH_STD = np.array([0.229, 0.224, 0.225], np.float32)
_BGR = np.array([2, 1, 0])
_CAFFE_MEAN_BGR = np.array([103.939, 116.779, 123.68], np.float32)
TINY_FILE = Path(__file__).parents[1] / "data" / "tiny.keras"

_INNER_PREPROCESSING = {
    "MobileNetV3": "tf",
    "EfficientNetV2B": "torch",
    "EfficientNetV2": _EFFICIENTNET_V2,
    "ConvNeXt": "torch",
}

_LICENSES = {
    **dict.fromkeys(("tiny", "resnet50", "xception"), "mit"),
    **dict.fromkeys(("vgg16", "vgg19"), "cc-by-4.0"),
    **dict.fromkeys(("inception_v3", "inception_resnet_v2"), "apache-2.0"),
    **dict.fromkeys(("mobilenet", "mobilenet_v2", "nasnet_mobile", "nasnet_large"), "apache-2.0"),
    **dict.fromkeys(("densenet121", "densenet169", "densenet201"), "bsd-3-clause"),
}


class Network(NamedTuple):
    """A network with a name.

    Attributes
    ----------
    name : str
        Name that ``FeatureExtractor(backbone=...)`` takes.
    constructor : str
        Function in ``keras.applications``; empty for the embedded network.
    preprocessing : str or None
        Scaling of the pixels; None where the network does it itself.
    input_size : int
        Default height and width, in pixels.
    n_features : int
        Width of its pooled embedding, with default parameters.
    n_parameters : int
        Number of parameters without the classifier.
    imagenet_top1 : float or None
        Published accuracy of the network, with its classifier, on the 1,000 classes of ImageNet;
        None if none is published.
    """

    name: str
    constructor: str
    preprocessing: str | None
    input_size: int
    n_features: int
    n_parameters: int
    imagenet_top1: float | None

    @property
    def license(self) -> str | None:
        """Identifier of the license of the published weights; None if it is not known.

        Source: the sections "License" of Keras' documentation (docs/templates/applications.md of
        Keras 2.1), and ``data/TINY.md``. That documentation names none for the others.
        """
        return _LICENSES.get(self.name)

    @property
    def inner_preprocessing(self) -> str | None:
        """Scaling that is part of the network by default, None if it scales nothing itself.

        Source: the constructors of ``keras.applications`` with ``include_preprocessing``.
        """
        for prefix, preprocessing in _INNER_PREPROCESSING.items():
            if self.constructor.startswith(prefix):
                return preprocessing
        return None

    @property
    def scales_for_published_weights(self) -> bool:
        """True if the network scales pixels once more where its weights are the published ones."""
        return self.constructor.startswith("EfficientNetB")

    @property
    def is_fixed_size(self) -> bool:
        """True if the network takes inputs of `input_size` only."""
        return not self.constructor


NETWORKS: tuple[Network, ...] = (
    Network("tiny", "", "tf", 64, 400, 293_872, None),
    Network("vgg16", "VGG16", "caffe", 224, 512, 14_714_688, 0.713),
    Network("vgg19", "VGG19", "caffe", 224, 512, 20_024_384, 0.713),
    Network("resnet50", "ResNet50", "caffe", 224, 2048, 23_587_712, 0.749),
    Network("resnet101", "ResNet101", "caffe", 224, 2048, 42_658_176, 0.764),
    Network("resnet152", "ResNet152", "caffe", 224, 2048, 58_370_944, 0.766),
    Network("resnet50_v2", "ResNet50V2", "tf", 224, 2048, 23_564_800, 0.760),
    Network("resnet101_v2", "ResNet101V2", "tf", 224, 2048, 42_626_560, 0.772),
    Network("resnet152_v2", "ResNet152V2", "tf", 224, 2048, 58_331_648, 0.780),
    Network("inception_v3", "InceptionV3", "tf", 299, 2048, 21_802_784, 0.779),
    Network("inception_resnet_v2", "InceptionResNetV2", "tf", 299, 1536, 54_336_736, 0.803),
    Network("xception", "Xception", "tf", 299, 2048, 20_861_480, 0.790),
    Network("mobilenet", "MobileNet", "tf", 224, 1024, 3_228_864, 0.704),
    Network("mobilenet_v2", "MobileNetV2", "tf", 224, 1280, 2_257_984, 0.713),
    Network("mobilenet_v3_small", "MobileNetV3Small", None, 224, 576, 939_120, 0.681),
    Network("mobilenet_v3_large", "MobileNetV3Large", None, 224, 960, 2_996_352, 0.756),
    Network("densenet121", "DenseNet121", "torch", 224, 1024, 7_037_504, 0.750),
    Network("densenet169", "DenseNet169", "torch", 224, 1664, 12_642_880, 0.762),
    Network("densenet201", "DenseNet201", "torch", 224, 1920, 18_321_984, 0.773),
    Network("nasnet_mobile", "NASNetMobile", "tf", 224, 1056, 4_269_716, 0.744),
    Network("nasnet_large", "NASNetLarge", "tf", 331, 4032, 84_916_818, 0.825),
    Network("efficientnet_b0", "EfficientNetB0", None, 224, 1280, 4_049_571, 0.771),
    Network("efficientnet_b1", "EfficientNetB1", None, 240, 1280, 6_575_239, 0.791),
    Network("efficientnet_b2", "EfficientNetB2", None, 260, 1408, 7_768_569, 0.801),
    Network("efficientnet_b3", "EfficientNetB3", None, 300, 1536, 10_783_535, 0.816),
    Network("efficientnet_b4", "EfficientNetB4", None, 380, 1792, 17_673_823, 0.829),
    Network("efficientnet_b5", "EfficientNetB5", None, 456, 2048, 28_513_527, 0.836),
    Network("efficientnet_b6", "EfficientNetB6", None, 528, 2304, 40_960_143, 0.840),
    Network("efficientnet_b7", "EfficientNetB7", None, 600, 2560, 64_097_687, 0.843),
    Network("efficientnet_v2_b0", "EfficientNetV2B0", None, 224, 1280, 5_919_312, 0.787),
    Network("efficientnet_v2_b1", "EfficientNetV2B1", None, 240, 1280, 6_931_124, 0.798),
    Network("efficientnet_v2_b2", "EfficientNetV2B2", None, 260, 1408, 8_769_374, 0.805),
    Network("efficientnet_v2_b3", "EfficientNetV2B3", None, 300, 1536, 12_930_622, 0.820),
    Network("efficientnet_v2_s", "EfficientNetV2S", None, 384, 1280, 20_331_360, 0.839),
    Network("efficientnet_v2_m", "EfficientNetV2M", None, 480, 1280, 53_150_388, 0.853),
    Network("efficientnet_v2_l", "EfficientNetV2L", None, 480, 1280, 117_746_848, 0.857),
    Network("convnext_tiny", "ConvNeXtTiny", None, 224, 768, 27_820_128, 0.813),
    Network("convnext_small", "ConvNeXtSmall", None, 224, 768, 49_454_688, 0.823),
    Network("convnext_base", "ConvNeXtBase", None, 224, 1024, 87_566_464, 0.853),
    Network("convnext_large", "ConvNeXtLarge", None, 224, 1536, 196_230_336, 0.863),
    Network("convnext_xlarge", "ConvNeXtXLarge", None, 224, 2048, 348_147_968, 0.867),
)

_BY_SPELLING = {network.name.replace("_", ""): network for network in NETWORKS}


def find_network(name: str) -> Network:
    """Return the network of a name, in any spelling, or raise ParameterError with similar names."""
    network = _BY_SPELLING.get(name.lower().replace("_", "").replace("-", ""))
    if network is None:
        names = [known.name for known in NETWORKS]
        raise ParameterError.of(
            "backbone",
            name,
            "neither the name of a network nor the path of an existing .keras file."
            f"{did_you_mean(name.lower(), names)} list_backbones() and `featx backbones` list all.",
        )
    return network


def list_backbones(library: str = "keras") -> list[Any]:
    """List the networks that have a name, or the presets of KerasHub.

    Nothing is built or downloaded. A name is what ``FeatureExtractor(backbone=...)`` takes; before
    that of a preset, write ``"keras_hub:"``.

    Parameters
    ----------
    library : {"keras", "keras_hub"}, default="keras"
        ``"keras_hub"`` lists the presets that the installed KerasHub (``featx[hub]``) can download;
        importing it takes some seconds.

    Returns
    -------
    list of Network or list of PresetInfo
        Networks, each with ``name``, ``input_size`` (pixels), ``n_features``, ``n_parameters`` and
        ``imagenet_top1``; or presets, each with ``name``, ``kind``, ``architecture`` and
        ``n_parameters``.

    Raises
    ------
    ParameterError
        `library` has another value.
    BackboneError
        KerasHub is not installed.

    See Also
    --------
    FeatureExtractor : Extractor that takes a name as its backbone.

    Examples
    --------
    >>> from featx import list_backbones
    >>> list_backbones()[0].name
    'tiny'
    >>> [network.n_features for network in list_backbones() if network.name == "resnet50"]
    [2048]
    """
    faults = ParameterFaults("list_backbones")
    faults.check_option("library", library, ("keras", "keras_hub"))
    faults.raise_any()
    if library == "keras":
        return list(NETWORKS)
    from featx.backbones.presets import list_presets  # which imports this module

    return list_presets()


def normalized_weights(weights: Any) -> Any:
    """Return ``"pretrained"`` for ``"imagenet"``, its other name, and any other value unchanged."""
    return PRETRAINED if isinstance(weights, str) and weights == "imagenet" else weights


def preprocess(
    inputs: keras.KerasTensor, preprocessing: Any, channel_axis: int = -1
) -> keras.KerasTensor:
    """Scale inputs, as operations of a Keras graph in float32.

    `preprocessing` is one of ``PREPROCESSINGS``, ``_EFFICIENTNET_V2``, or a layer.
    """
    from keras import ops

    x = ops.cast(inputs, "float32")
    if preprocessing is None:
        return x
    if not isinstance(preprocessing, str):
        return preprocessing(x)
    if preprocessing == "tf":
        return x / 127.5 - 1.0
    if preprocessing == "unit":
        return x / 255.0
    if preprocessing == _EFFICIENTNET_V2:
        return x / 128.0 - 1.0
    n_axes_after = 0 if channel_axis == -1 else len(inputs.shape) - 1 - channel_axis

    def of_channels(constants: np.ndarray) -> np.ndarray:
        adapted = constants_for_channels(constants, inputs.shape[channel_axis])
        return adapted.reshape(-1, *(1,) * n_axes_after)

    if preprocessing == "torch":
        return (x / 255.0 - of_channels(_TORCH_MEAN)) / of_channels(_TORCH_STD)
    if inputs.shape[channel_axis] != N_COLORS:  # in the order of the kernel
        return x - of_channels(_CAFFE_MEAN_BGR[_BGR])
    # `take` rather than `flip`, since OpenVINO fuses it with the convolution that follows.
    return ops.take(x, _BGR, axis=channel_axis) - of_channels(_CAFFE_MEAN_BGR)
