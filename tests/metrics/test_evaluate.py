"""Tables of an explainer: the plain functions with one target, in batches, with references; memory."""

import gc
import json
import tracemalloc

import keras
import numpy as np
import pytest
import shapes
import tensorflow as tf

from tf_gradcam import GradCAM, metrics, targets

FEW = {name: {"steps": 6} for name in ("deletion", "insertion", "insertion_minus_deletion")}
FEW |= {"mu_fidelity": {"samples": 5}, "infidelity": {"samples": 5}, "max_sensitivity": {"samples": 2}}
FEW |= {"road": {"percentages": (30,)}, "pointing_game": {"tolerance": 0}}
ALL = [
    *("deletion", "insertion", "insertion_minus_deletion", "mu_fidelity", "road", "infidelity"),
    *(
        "max_sensitivity",
        "average_drop",
        "increase",
        "average_gain",
        "coherency",
        "complexity",
        "adcc",
        "arcc",
    ),
    *("sparseness", "entropy", "pointing_game", "energy", "rank_accuracy", "roc_auc", "auprc", "iou"),
]


@pytest.fixture(scope="module")
def scenes():
    return shapes.draw(9, 5)


@pytest.fixture(scope="module")
def cam():
    return GradCAM(shapes.trained())


@pytest.fixture(scope="module")
def table(cam, scenes):
    images, _, masks = scenes
    return metrics.evaluate(cam, images, metrics=ALL, masks=masks, options=FEW)


def test_each_row_is_what_the_function_says_of_one_target(cam, scenes, table):
    images, _, masks = scenes
    explanation = cam(images)
    predicted = explanation.target.numpy()
    heatmaps, signed = explanation.heatmap.numpy(), cam(images, predicted, signed=True).heatmap.numpy()

    def probability(altered):
        rows = cam.model(altered, training=False).numpy()
        return rows[np.arange(len(altered)), np.resize(predicted, len(altered))]

    def logit(altered):
        return cam.scores(altered, np.resize(predicted, len(altered))).numpy()

    def explain(altered):
        return cam(altered, np.resize(predicted, len(altered)), signed=True).heatmap

    def expected(name, **options):
        function = getattr(metrics, name)
        if name in ("average_drop", "increase", "average_gain"):
            return function(probability, images, heatmaps)
        if name in ("coherency", "max_sensitivity"):
            return function(explain, images, signed, **options)
        if name in ("rank_accuracy", "roc_auc", "auprc"):
            return function(signed, masks)
        if name in ("pointing_game", "energy", "iou"):
            return function(heatmaps, masks, **options)
        if name in ("complexity", "sparseness", "entropy"):
            return function(heatmaps)
        return function(logit if "fidelity" in name else probability, images, signed, **options)

    combined = ("adcc", "arcc", "adcc_of_means", "insertion_minus_deletion")
    compared = [row for row in table if row.metric not in combined]
    assert len(compared) == 22
    for row in compared:
        options = FEW.get(row.metric, {}) | ({"baseline": row.baseline} if row.baseline else {})
        values = expected(row.metric, **options)
        np.testing.assert_allclose(row.values, values, rtol=2e-3, atol=2e-4, err_msg=row.metric)
        assert row.mean == pytest.approx(row.values.mean())
        assert [row.counted, row.missing] == [9, 0]
        assert row.low <= row.mean <= row.high


def test_combinations_are_made_of_their_parts(table):
    values = {row.metric: row.values for row in table if row.baseline is None}
    parts = [values[name] for name in ("coherency", "complexity", "average_drop")]
    np.testing.assert_allclose(values["adcc"], metrics.adcc(*parts))
    assert table["adcc_of_means"].mean == metrics.adcc_of_means(*parts).value
    both = table["insertion", "blur"].values - table["deletion", "blur"].values
    np.testing.assert_allclose(table["insertion_minus_deletion", "blur"].values, both)
    assert (values["arcc"] <= values["coherency"].max()).all()


def test_every_row_has_the_metric_of_noise_and_of_the_centre(table):
    assert all(row.noise is not None and row.centre is not None for row in table)
    assert table["coherency"].noise == table["coherency"].centre == 1  # They answer the same for any image.
    assert table["max_sensitivity"].noise == 0
    assert table["energy"].mean > 2 * table["energy"].noise
    assert table["energy"].noise == pytest.approx(
        shapes.draw(9, 5)[2].mean(), abs=0.06
    )  # the share of the area
    assert table["roc_auc"].noise == pytest.approx(0.5, abs=0.15)
    assert table["insertion_minus_deletion", "zero"].mean > table["insertion_minus_deletion", "zero"].noise


def test_a_data_set_in_batches_is_one_batch(cam, scenes, table):
    images, _, masks = scenes
    evaluator = metrics.Evaluator(cam, metrics=ALL, options=FEW, batch_size=3)
    dataset = tf.data.Dataset.from_tensor_slices((images, masks)).batch(5)
    for some, their_masks in dataset:
        evaluator.update(some, masks=their_masks)
    streamed = evaluator.result()
    assert [row[:2] for row in streamed] == [row[:2] for row in table]
    for row, other in zip(streamed, table, strict=True):
        np.testing.assert_allclose(row.values, other.values, rtol=1e-3, atol=1e-4, err_msg=row.metric)
        assert row.noise == pytest.approx(other.noise, rel=1e-3, abs=1e-4), row.metric
    evaluator.reset()
    with pytest.raises(ValueError, match="`result` needs images"):
        evaluator.result()
    evaluator.update(images[:2], masks=masks[:2])
    assert evaluator.result()["energy"].counted == 2


@pytest.mark.parametrize("target", [1, [0, 1, 2, 0, 1, 2, 0, 1, 2], targets.Probability(1)])
def test_the_target_goes_through_all_metrics(cam, scenes, target):
    images = scenes[0]
    row = metrics.evaluate(
        cam,
        images,
        target,
        metrics="deletion",
        baselines="mean",
        options={"deletion": {"steps": 1}},
        references=False,
    )["deletion", "mean"]
    classes = np.broadcast_to(1 if isinstance(target, tuple) else target, len(images))
    gray = np.broadcast_to(images.mean((1, 2, 3), keepdims=True), images.shape)
    ends = [cam.model(each).numpy()[np.arange(9), classes] for each in (images, gray)]
    np.testing.assert_allclose(row.values, np.mean(ends, axis=0), atol=1e-5)
    assert row.noise is None


def test_an_image_without_a_value_is_counted_and_changes_no_mean(cam, scenes):
    images = scenes[0].copy()
    options = {
        "metrics": ["insertion", "complexity"],
        "references": False,
        "options": {"insertion": {"steps": 4}},
    }
    options |= {"baselines": ["zero"]}
    expected = metrics.evaluate(cam, images[1:], **options)
    images[0, 3, 3] = np.nan
    table = metrics.evaluate(cam, images, **options)
    for row, other in zip(table, expected, strict=True):
        assert [row.counted, row.missing] == [8, 1]
        assert row.mean == pytest.approx(other.mean, abs=1e-5)
    assert "Missing" in repr(table)
    assert json.loads(json.dumps(table.to_dict(), allow_nan=False))["rows"][0]["values"][0] is None


def test_a_table_can_be_read(table):
    lines = repr(table).splitlines()
    assert lines[0].split() == [
        *("metric", "baseline", "mean", "low", "high", "images", "missing", "better"),
        *("noise", "map", "centre", "map"),
    ]
    assert "probability of the class" in lines[-1]
    assert len(table) == len(lines) - 4
    assert table._repr_html_().count("<tr>") == len(table) + 1
    with pytest.raises(KeyError, match="no 'enrgy'"):
        table["enrgy"]


def test_markup_in_a_name_is_escaped():
    row = metrics.Row("<b>", "&", 0.5, 0.4, 0.6, 3, 0, "higher", None, None, np.zeros(3))
    html = metrics.Table([row], ["<script>"])._repr_html_()
    assert "&lt;b&gt;" in html
    assert "&amp;" in html
    assert "<script>" not in html


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": ["delition"]}, "Did you mean 'deletion'"),
        ({"metrics": []}, "`metrics` must name a metric"),
        ({"baselines": ["black"]}, "`baselines` must be one of"),
        ({"baselines": []}, "`baselines` must name one or more"),
        ({"options": {"road": {}}}, "`options` must be for metrics of the table"),
        ({"options": {"deletion": {"step": 5}}}, r"`options` of 'deletion' must be among \['steps'\]"),
        ({"metrics": ["energy"]}, r"`masks` must be given for \['energy'\]"),
        ({"masks": np.ones((9, 32, 32), bool)}, "`masks` must be None for these metrics"),
        (
            {"metrics": "iou", "masks": np.ones((2, 32, 32), bool)},
            "`masks` must hold one mask or box for each",
        ),
        ({"target": targets.Contrast(1)}, "`target` must leave nothing to the model.*Give `other`"),
        ({"target": targets.TopClasses(2)}, "`target` must leave nothing to the model"),
        ({"level": 95}, "`level`"),
    ],
)
def test_wrong_arguments_are_refused(cam, scenes, arguments, message):
    with pytest.raises(ValueError, match=message):
        metrics.evaluate(cam, scenes[0], **arguments)


def linear_model():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((16, 16, 3)), keras.layers.Conv2D(2, 3), keras.layers.GlobalAveragePooling2D()]
    return keras.Sequential([*layers, keras.layers.Dense(3)])


def test_a_model_without_probabilities_is_measured_by_its_score():
    cam = GradCAM(linear_model())
    images = np.random.default_rng(0).random((3, 16, 16, 3)).astype("float32")
    few = {"deletion": {"steps": 1}}
    table = metrics.evaluate(
        cam, images, metrics=["deletion"], baselines=["zero"], options=few, references=False
    )
    index = cam(images).target.numpy()
    ends = [cam.model(each).numpy()[np.arange(3), index] for each in (images, 0 * images)]
    np.testing.assert_allclose(table["deletion", "zero"].values, np.mean(ends, axis=0), atol=1e-6)
    assert "score that is explained" in repr(table)
    with pytest.raises(ValueError, match=r"must not hold \['average_drop'\] where there is no probability"):
        metrics.evaluate(cam, images, metrics="average_drop")


def test_several_layers_and_methods_without_class_are_measured(scenes):
    images, masks = scenes[0][:3], scenes[2][:3]
    model = shapes.trained()
    options = {"metrics": ["coherency", "energy"], "masks": masks, "references": False}
    for method in ("locate", "eigencam"):
        cam = GradCAM(model, method=method)
        table = metrics.evaluate(cam, images, **options)
        np.testing.assert_allclose(table["energy"].values, metrics.energy(cam(images).heatmap, masks))


def test_segmentations_need_a_mask_of_what_is_explained():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, padding="same", activation="relu")]
    )
    model.add(keras.layers.Conv2D(3, 1, activation="softmax"))
    cam, images = GradCAM(model), np.random.default_rng(0).random((3, 8, 8, 3)).astype("float32")
    few = {
        "metrics": "deletion",
        "options": {"deletion": {"steps": 2}},
        "references": False,
        "baselines": "zero",
    }
    with pytest.raises(ValueError, match="`target` must leave nothing to the model.*Give a `mask`"):
        metrics.evaluate(cam, images, **few)
    mask = np.zeros((8, 8), bool)
    mask[2:5, 3:6] = True
    table = metrics.evaluate(cam, images, targets.Region(1, mask), batch_size=2, **few)
    own = metrics.evaluate(cam, images, targets.Region([1] * 3, np.stack([mask] * 3)), batch_size=2, **few)
    assert np.isfinite(table["deletion"].values).all()
    np.testing.assert_allclose(table["deletion"].values, own["deletion"].values, atol=1e-6)


def test_memory_does_not_grow_with_the_images():
    cam = GradCAM(linear_model())
    images = np.random.default_rng(0).random((125, 16, 16, 3)).astype("float32")
    evaluator = metrics.Evaluator(
        cam, metrics=["deletion", "complexity"], options={"deletion": {"steps": 2}}, references=False
    )
    evaluator.update(images)  # It traces.
    sizes = []
    tracemalloc.start()
    for count in range(8):  # 1000 images of 3 kB, which leave 16 bytes each
        evaluator.update(images)
        if count in (1, 7):
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert sizes[1] - sizes[0] < 200_000
    assert len(evaluator.result()["complexity"].values) == 1125
