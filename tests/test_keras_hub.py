"""KerasHub: tasks around small backbones with random weights are explained like any other model.

pip install keras-hub
"""

from typing import NamedTuple

import keras
import numpy as np
import pytest

from tf_gradcam import GradCAM, list_layers, make_gradcam_heatmap, targets

keras_hub = pytest.importorskip("keras_hub", reason="needs keras-hub, which nothing else here needs")
models = keras_hub.models

IMAGE = (64, 64, 3)
NAMED = {"image_shape": IMAGE, "name": "backbone"}
VIT = {"patch_size": 16, "num_layers": 2, "num_heads": 2, "hidden_dim": 16}

# Swin's own call warns, whoever calls it.
pytestmark = pytest.mark.filterwarnings("ignore:Layer 'attn' .of type WindowAttention. was passed an input")


class Case(NamedTuple):
    model: keras.Model
    path: str  # of the default layer, or its end
    shape: tuple[int, ...]  # of its map
    is_linear: bool = False  # whether all that follows is the mean over the map, and a Dense layer


def resnet(**options):
    return models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 16, 32],
        stackwise_num_blocks=[1, 1, 2],
        stackwise_num_strides=[1, 2, 2],
        block_type="basic_block",
        **{**NAMED, **options},
    )


def classifier(backbone, **options):
    return models.ImageClassifier(backbone=backbone, num_classes=5, **options)


def resnet_v1():
    return Case(classifier(resnet(), dropout=0.5), "backbone/stack2_block1_out", (4, 4, 32), True)


def resnet_v2():
    model = classifier(resnet(use_pre_activation=True), activation="softmax")
    return Case(model, "backbone/post_relu", (4, 4, 32), True)


def resnet_of_any_size():
    model = classifier(resnet(image_shape=(None, None, 3)), pooling="max")
    return Case(model, "backbone/stack2_block1_out", (4, 4, 32))


def densenet():
    backbone = models.DenseNetBackbone(stackwise_num_repeats=[2, 2], growth_rate=8, **NAMED)
    return Case(classifier(backbone), "backbone/relu", (8, 8, 56), True)


def xception():
    backbone = models.XceptionBackbone([[8, 8], [16, 16]], [True, False], **NAMED)
    return Case(classifier(backbone), "backbone/block2_sepconv2_act", (15, 15, 16), True)


def efficientnet():
    backbone = models.EfficientNetBackbone(
        stackwise_kernel_sizes=[3, 3],
        stackwise_num_repeats=[1, 2],
        stackwise_input_filters=[8, 8],
        stackwise_output_filters=[8, 16],
        stackwise_expansion_ratios=[1, 4],
        stackwise_squeeze_and_excite_ratios=[0.25, 0.25],
        stackwise_strides=[2, 2],
        stackwise_block_types=["fused", "v1"],
        width_coefficient=1.0,
        depth_coefficient=1.0,
        num_features=32,
        input_shape=IMAGE,
        name="backbone",
    )
    return Case(classifier(backbone), "backbone/top_activation", (8, 8, 32), True)


def mobilenet():
    backbone = models.MobileNetBackbone(
        stackwise_expansion=[[16, 24], [32]],
        stackwise_num_blocks=[2, 1],
        stackwise_num_filters=[[16, 16], [24]],
        stackwise_kernel_size=[[3, 3], [5]],
        stackwise_num_strides=[[2, 1], [2]],
        stackwise_se_ratio=[[None, None], [0.25]],
        stackwise_activation=[["relu", "relu"], ["hard_swish"]],
        stackwise_padding=[[1, 1], [2]],
        output_num_filters=32,
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        last_layer_filter=32,
        **NAMED,
    )
    model = models.MobileNetImageClassifier(backbone=backbone, num_classes=5, num_features=16)
    return Case(model, "backbone/block_3_0", (4, 4, 32))


def vgg_flattened():
    backbone = models.VGGBackbone([1, 1, 1], [8, 16, 16], **NAMED)
    model = models.VGGImageClassifier(
        backbone=backbone, num_classes=5, pooling="flatten", pooling_hidden_dim=16
    )
    return Case(model, "backbone/block3_conv1", (16, 16, 16))


def cspnet():
    backbone = models.CSPNetBackbone(
        stem_filters=8,
        stem_kernel_size=3,
        stem_strides=2,
        stackwise_depth=[1, 2],
        stackwise_strides=[2, 2],
        stackwise_num_filters=[32, 32],
        block_type="dark_block",
        stage_type="csp",
        block_ratio=[0.5],
        **NAMED,
    )
    return Case(classifier(backbone), "backbone/stage_1_csp_transition_activation", (8, 8, 32), True)


def hgnet():
    backbone = models.HGNetV2Backbone(
        depths=[1, 1],
        embedding_size=8,
        hidden_sizes=[16, 32],
        stem_channels=[3, 8, 8],
        hidden_act="relu",
        use_learnable_affine_block=False,
        stackwise_stage_filters=[[8, 8, 16, 1, 1, 3], [16, 8, 32, 1, 1, 3]],
        apply_downsample=[False, True],
        use_lightweight_conv_block=[False, False],
        **NAMED,
    )
    model = models.HGNetV2ImageClassifier(backbone, preprocessor=None, num_classes=5, head_filters=16)
    return Case(model, "head_last", (8, 8, 16), True)


def vit_that_reads_its_class_token():
    backbone = models.ViTBackbone(mlp_dim=32, **VIT, **NAMED)
    model = models.ViTImageClassifier(backbone=backbone, num_classes=5)
    return Case(model, "vit_encoder/transformer_block_2/ln_1", (4, 4, 16))


def vit_that_reads_its_patches():
    backbone = models.ViTBackbone(mlp_dim=32, use_class_token=False, **VIT, **NAMED)
    model = models.ViTImageClassifier(backbone=backbone, num_classes=5, pooling="gap")
    return Case(model, "backbone/vit_encoder", (4, 4, 16), True)


def deit():
    backbone = models.DeiTBackbone(intermediate_dim=32, **VIT, **NAMED)
    model = models.DeiTImageClassifier(backbone=backbone, num_classes=5)
    return Case(model, "deit_encoder/transformer_block_2/ln_1", (4, 4, 16))  # two tokens are no patches


def dinov2_with_registers():
    options = {**VIT, **NAMED, "intermediate_dim": 32, "position_embedding_shape": IMAGE}
    backbone = models.DINOV2Backbone(num_register_tokens=4, **options)
    scores = keras.layers.Dense(5)(backbone.output[:, 0])
    return Case(keras.Model(backbone.input, scores), "layers_1/norm1", (4, 4, 16))


def swin():
    backbone = models.SwinTransformerBackbone(
        embed_dim=8, depths=(1, 2), num_heads=(1, 2), window_size=4, **NAMED
    )
    model = models.SwinTransformerImageClassifier(backbone=backbone, num_classes=5)
    return Case(model, "backbone/norm", (8, 8, 16), True)


def mix_transformer():
    return models.MiTBackbone(
        num_layers=2,
        hidden_dims=[8, 16],
        layerwise_depths=[1, 1],
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[2, 1],
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        max_drop_path_rate=0.1,
        image_shape=IMAGE,
    )


def segformer():
    backbone = models.SegFormerBackbone(image_encoder=mix_transformer(), projection_filters=8)
    model = models.SegFormerImageSegmenter(backbone=backbone, num_classes=4)
    return Case(model, "/linear_16", (8, 8, 8))  # of the coarsest grid


def deeplab():
    backbone = models.DeepLabV3Backbone(
        image_encoder=resnet(),
        projection_filters=8,
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P4",
        upsampling_size=4,
        dilation_rates=[1, 2],
        **NAMED,
    )
    model = models.DeepLabV3ImageSegmenter(backbone=backbone, num_classes=4)
    return Case(model, "/spatial_pyramid_pooling", (4, 4, 256))


CASES = [
    resnet_v1,
    resnet_v2,
    resnet_of_any_size,
    densenet,
    xception,
    efficientnet,
    mobilenet,
    vgg_flattened,
    cspnet,
    hgnet,
    vit_that_reads_its_class_token,
    vit_that_reads_its_patches,
    deit,
    dinov2_with_registers,
    swin,
    segformer,
    deeplab,
]


@pytest.fixture(scope="module", params=CASES, ids=lambda build: build.__name__)
def case(request):
    keras.utils.set_random_seed(1)
    return request.param()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(size=(2, *IMAGE)).astype("float32")


@pytest.fixture(scope="module")
def cam(case):
    return GradCAM(case.model)


@pytest.fixture(scope="module")
def explanation(cam, images):
    return cam(images)


def test_the_default_layer_is_the_end_of_the_backbone(case, cam, explanation):
    # HGNetV2 is built with layers inside that are not, so that the explainer awaits its first image.
    (info,) = (each for each in list_layers(case.model) if each.layer is cam.layer)
    assert f"/{info.path}".endswith(case.path)
    assert all(length in (None, known) for length, known in zip(info.shape, case.shape, strict=True))


def test_the_map_is_finite_and_adds_up_to_the_logit_where_the_head_is_linear(case, explanation):
    assert explanation.map.shape == (2, *case.shape[:-1])
    assert np.isfinite(explanation.map).all()
    assert np.any(explanation.map, axis=(1, 2)).all()
    assert explanation.heatmap.shape == (2, *IMAGE[:2])
    assert np.isfinite(explanation.heatmap).all()
    if case.is_linear:
        total = np.sum(explanation.map, axis=(1, 2), dtype="float64")
        bias = np.asarray(case.model.layers[-1].bias)[np.asarray(explanation.target)]
        np.testing.assert_allclose(total, explanation.score - bias, rtol=1e-3, atol=1e-5)


def test_a_box_of_retinanet_is_explained_at_the_end_of_the_encoder(images):
    keras.utils.set_random_seed(1)
    backbone = models.RetinaNetBackbone(
        image_encoder=resnet(), min_level=3, max_level=4, use_p5=False, **NAMED
    )
    model = models.RetinaNetObjectDetector(backbone=backbone, num_classes=3)
    heatmap = make_gradcam_heatmap(model, images, "stack2_block1_out", targets.Detection([5, 400]))
    assert heatmap.shape == (2, *IMAGE[:2])
    assert np.isfinite(heatmap).all()
    assert heatmap.max() == 1
