"""Small backbones of KerasHub with random weights, one of each family."""

import keras

IMAGE_SHAPES = {"dinov2": (28, 28, 3), "mobilenetv5": (64, 64, 3)}  # others: (32, 32, 3)
_TRANSFORMER = {"num_layers": 3, "hidden_dim": 16, "num_heads": 2, "intermediate_dim": 32}
_MOBILENET_V5 = {
    "stackwise_block_types": [["er"], ["uir", "uir"]],
    "stackwise_num_blocks": [1, 2],
    "stackwise_num_filters": [[8], [16, 16]],
    "stackwise_strides": [[2], [2, 1]],
    "stackwise_act_layers": [["relu"], ["relu", "relu"]],
    "stackwise_exp_ratios": [[4.0], [6.0, 6.0]],
    "stackwise_se_ratios": [[0.0], [0.0, 0.0]],
    "stackwise_dw_kernel_sizes": [[0], [5, 5]],
    "stackwise_dw_start_kernel_sizes": [[0], [0, 0]],
    "stackwise_dw_end_kernel_sizes": [[0], [0, 0]],
    "stackwise_exp_kernel_sizes": [[3], [0, 0]],
    "stackwise_pw_kernel_sizes": [[1], [0, 0]],
    "stackwise_num_heads": [[0], [0, 0]],
    "stackwise_key_dims": [[0], [0, 0]],
    "stackwise_value_dims": [[0], [0, 0]],
    "stackwise_kv_strides": [[0], [0, 0]],
    "stackwise_use_cpe": [[False], [False, False]],
    "use_msfa": False,
}
FAMILIES = {
    "clip": ("CLIPVisionEncoder", _TRANSFORMER | {"patch_size": 8}),
    "deit": ("DeiTBackbone", _TRANSFORMER | {"patch_size": 8}),
    "dinov2": ("DINOV2Backbone", _TRANSFORMER | {"patch_size": 14, "num_register_tokens": 4}),
    "dinov3": ("DINOV3Backbone", _TRANSFORMER | {"patch_size": 16, "num_register_tokens": 4}),
    "mobilenetv5": ("MobileNetV5Backbone", _MOBILENET_V5),
    "siglip": ("SigLIPVisionEncoder", _TRANSFORMER | {"patch_size": 8}),
    "swin": (
        "SwinTransformerBackbone",
        {
            "patch_size": 2,
            "embed_dim": 8,
            "window_size": 4,
            "depths": (1, 2),
            "num_heads": (2, 2),
        },
    ),
    "vit": (
        "ViTBackbone",
        {"patch_size": 8, "num_layers": 3, "hidden_dim": 16, "num_heads": 2, "mlp_dim": 32},
    ),
}


def image_shape(family):
    """Return the shape of one image that the backbone of a family takes."""
    return IMAGE_SHAPES.get(family, (32, 32, 3))


def small_backbone(family, **changes):
    """Make a backbone whose outputs differ between images; `changes` go to its constructor."""
    from keras_hub import models

    keras.utils.set_random_seed(0)
    name, params = FAMILIES[family]
    params = {**params, "image_shape": image_shape(family), **changes}
    model = getattr(models, name)(**params)
    for weight in model.weights:  # biases and scales are not all zeros and ones
        if "position" not in weight.path:  # DINOv2 keeps those of another size beside them
            weight.assign(weight + 0.1 * keras.random.normal(weight.shape, seed=1))
    return model


def small_clip():
    """Make a backbone of images and texts."""
    from keras_hub import models

    text = models.CLIPTextEncoder(
        vocabulary_size=9,
        embedding_dim=8,
        hidden_dim=8,
        num_layers=1,
        num_heads=1,
        intermediate_dim=8,
        max_sequence_length=4,
    )
    return models.CLIPBackbone(small_backbone("clip"), text, projection_dim=8)
