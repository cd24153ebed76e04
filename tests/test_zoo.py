"""Every kind of model in docs/models.md: the map is right, its default layer is found, nothing warns."""

import re

import numpy as np
import pytest
import tensorflow as tf
import zoo

from tf_gradcam import GradCAM, list_layers, make_gradcam_heatmap, targets


@pytest.fixture(scope="module", params=zoo.KINDS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def kind(name):
    return zoo.make(name)


def target(kind):
    return None if kind.output is None else targets.Output(kind.output)


@pytest.fixture(scope="module")
def expected(kind):
    """The maps of each sample's predicted class."""
    return zoo.expected_maps(kind, zoo.logits(kind).argmax(-1))


def test_each_kind_that_stands_for_others_is_one_that_no_other_stands_for():
    assert set(zoo.ALIKE) <= set(zoo.KINDS)
    assert set(zoo.ALIKE.values()) <= set(zoo.KINDS) - set(zoo.ALIKE)


def test_what_is_worked_out_by_hand_is_what_the_model_does(kind):
    zoo.assert_near(zoo.answer(kind), tf.nn.softmax(zoo.logits(kind)), kind.tolerance)


@pytest.mark.parametrize("method", ["gradcam", pytest.param("hirescam", marks=pytest.mark.slow)])
@pytest.mark.product(kept=lambda name, method: method == "gradcam" or name in [*zoo.FEW, "ViT", "Swin"])
def test_the_map_of_the_predicted_class_is_right(kind, expected, method):
    cam = GradCAM(kind.model, kind.layer, call=kind.call, method=method)
    explanation = cam(kind.inputs, target(kind))
    heatmap = zoo.expected_heatmap(expected[method], kind.size)
    zoo.assert_near(explanation.map, expected[method], kind.tolerance)
    zoo.assert_near(explanation.heatmap, heatmap, 2 * kind.tolerance)
    zoo.assert_near(explanation.score, zoo.logits(kind).max(-1), kind.tolerance)
    np.testing.assert_array_equal(explanation.target, zoo.logits(kind).argmax(-1))
    outputs = explanation.outputs if kind.output is None else explanation.outputs[kind.output]
    zoo.assert_near(outputs, zoo.answer(kind), kind.tolerance)
    if method == "hirescam" and kind.tail is None:  # All of the score is shared out but the bias.
        total = np.asarray(explanation.map, "float64").reshape(2, -1).sum(-1)
        zoo.assert_near(total, (zoo.logits(kind) - kind.bias)[range(2), explanation.target], kind.tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("calls", [1, 2])  # the first may run as it is, the second is compiled
@pytest.mark.product(kept=lambda name, calls: name not in zoo.ALIKE and (calls == 1 or name in zoo.FEW))
def test_make_gradcam_heatmap_is_right(kind, expected, calls):
    layer = None if kind.default else kind.layer
    for _ in range(calls):
        heatmap = make_gradcam_heatmap(kind.model, kind.inputs, layer, target(kind), call=kind.call)
        assert heatmap.shape == (2, *kind.size)
        assert heatmap.dtype == np.float32
        zoo.assert_near(heatmap, zoo.expected_heatmap(expected["gradcam"], kind.size), 2 * kind.tolerance)


@pytest.mark.slow
@pytest.mark.product(
    kept=lambda name: name in [*zoo.FEW, "any size", "float64", "ViT", "ConvLSTM, every frame"]
)
def test_a_frozen_explainer_is_right(kind, expected):
    frozen = GradCAM(kind.model, kind.layer, call=kind.call).freeze()
    zoo.assert_near(frozen(kind.inputs, target(kind)).map, expected["gradcam"], kind.tolerance)


def test_the_layer_is_listed_and_found_by_default(kind):
    listed = {info.path: info for info in list_layers(kind.model)}
    info, shape = listed[kind.layer], (*kind.grid, kind.activations.shape[-1])
    assert all(length in (None, known) for length, known in zip(info.shape, shape, strict=True))
    assert (info.calls > 1) == (kind.call is not None)
    if kind.default is not None:
        assert GradCAM(kind.model).layer is listed[kind.default].layer


@pytest.mark.parametrize("name", [name for name in zoo.KINDS if "never built" in name])
def test_a_model_that_was_never_called_is_built_by_its_first_image(name):
    kind = zoo.KINDS[name]()
    assert not kind.model.built
    expected = zoo.expected_maps(kind, zoo.logits(kind).argmax(-1))["gradcam"]
    zoo.assert_near(GradCAM(kind.model, kind.layer)(kind.inputs).map, expected, kind.tolerance)


# Vision transformers whose class token alone is read


@pytest.fixture(scope="module")
def vit():
    return zoo.KINDS["ViT"]()


@pytest.mark.parametrize(
    "layer", ["norm", *(pytest.param(each, marks=pytest.mark.slow) for each in ("block2", "block2/norm2"))]
)
@pytest.mark.product(kept=lambda layer: layer == "norm")
def test_a_layer_whose_patches_are_never_read_is_refused_with_one_that_works(vit, layer):
    with pytest.raises(ValueError, match="`layer` must") as refusal:
        make_gradcam_heatmap(vit.model, vit.inputs, layer)
    paths = {info.path for info in list_layers(vit.model)}
    offered = [name for name in re.findall(r"'([^']+)'", str(refusal.value)) if name in paths - {layer}]
    assert offered
    assert np.any(GradCAM(vit.model, offered[0])(vit.inputs).map)


def test_the_default_layer_of_a_vision_transformer_has_patches_that_are_read(vit):
    cam = GradCAM(vit.model)
    explanation = cam(vit.inputs)
    assert cam.layer.name in ("block1", "norm1")
    assert explanation.map.shape == (2, 3, 5)
    assert np.all(np.any(explanation.map, axis=(1, 2)))
