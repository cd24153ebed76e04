"""What `GradCAMCallback` explains, when, and what it hands on. TensorBoard has a file of its own."""

import copy
import json
import types

import keras
import numpy as np
import pytest
from conftest import CLASSES, SIDE, build, chain, count_runs

import tf_gradcam
from tf_gradcam import GradCAM, targets
from tf_gradcam.callbacks import GradCAMCallback, _callback, _pictures, _schedule

TARGET = [4, 0, 2]


class Seen(list):
    """A hook that keeps what it gets."""

    def __call__(self, step, explanation, pictures, scalars):
        self.append((step, explanation, pictures, scalars))

    @property
    def steps(self):
        return [step for step, *_ in self]


@pytest.fixture
def seen():
    return Seen()


@pytest.fixture
def compiled(functional):
    functional.compile("sgd", "sparse_categorical_crossentropy")
    return functional


def fit(model, images, *callbacks, epochs=3, **options):
    classes = np.arange(len(images)) % CLASSES
    options = {"batch_size": 1, "verbose": 0} | options
    return model.fit(images, classes, epochs=epochs, callbacks=list(callbacks), **options)


def test_each_epoch_is_explained_by_one_trace(compiled, images, seen):
    callback = GradCAMCallback(
        images, target=TARGET, labels=list("abcde"), metrics=["sparseness"], max_share=None, on_explained=seen
    )
    runs = count_runs(compiled)
    fit(compiled, images, callback, epochs=1)
    traced = len(runs)
    fit(compiled, images, callback, epochs=3, initial_epoch=1)
    assert len(runs) == traced
    assert seen.steps == [0, 1, 2]
    _, explanation, pictures, scalars = seen[-1]
    expected = GradCAM(compiled)(images, TARGET)
    np.testing.assert_allclose(explanation.heatmap, expected.heatmap, atol=1e-6)
    assert (np.asarray(seen[0][1].score) != np.asarray(explanation.score)).all()

    assert list(pictures) == ["gradcam/image 0", "gradcam/image 1", "gradcam/image 2"]
    probabilities = compiled.predict(images, verbose=0)
    peaks = np.maximum(np.asarray(expected.map), 0).max(axis=(1, 2))
    for number, (picture, class_index) in enumerate(zip(pictures.values(), TARGET, strict=True)):
        assert picture.dtype == np.uint8
        assert scalars[f"gradcam_score/image {number}"] == pytest.approx(
            float(expected.score[number]), abs=1e-5
        )
        probability = scalars[f"gradcam_probability/image {number}"]
        assert probability == pytest.approx(probabilities[number, class_index], abs=1e-6)
        assert scalars[f"gradcam_peak/image {number}"] == pytest.approx(peaks[number], abs=1e-6)
        # The photograph: stretched from its lowest to its highest value, and each pixel 12 times as large.
        image = images[number]
        pixels = np.rint((image - image.min()) * 255 / (image.max() - image.min())).astype(np.uint8)
        photograph = pixels.repeat(12, axis=0).repeat(12, axis=1)
        side = SIDE * 12
        np.testing.assert_array_equal(picture[-side:, :side], photograph)
        overlay = tf_gradcam.overlay(photograph, explanation.heatmap[number])
        np.testing.assert_array_equal(picture[-side:, side + 4 : 2 * side + 4], overlay)
        assert (picture[:-side] < 100).any()  # the caption
    sparseness = tf_gradcam.metrics.sparseness(np.asarray(explanation.heatmap, np.float64))
    assert scalars["gradcam_sparseness/image 1"] == pytest.approx(sparseness[1], abs=1e-5)
    assert scalars["gradcam_sparseness/mean"] == pytest.approx(sparseness.mean(), abs=1e-5)


def test_the_model_has_no_trace_of_the_callback(compiled, images, seen, tmp_path):
    attributes = sorted(vars(compiled))
    layer_attributes = [sorted(vars(layer)) for layer in compiled.layers]
    config = compiled.to_json()
    checkpoints = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    callback = GradCAMCallback(images, max_share=None, on_explained=seen)
    fit(compiled, images, callback, checkpoints, backup, epochs=2)
    new = {"history", "stop_training", "train_function", "_eval_epoch_iterator", "_compile_metrics"}
    assert set(vars(compiled)) - set(attributes) <= new
    assert [sorted(vars(layer)) for layer in compiled.layers] == layer_attributes
    assert compiled.to_json() == config
    saved = keras.models.load_model(tmp_path / "2.keras")
    np.testing.assert_array_equal(GradCAM(saved)(images).map, seen[-1][1].map)


def test_training_that_stops_is_explained_at_its_end(compiled, images, seen):
    callback = GradCAMCallback(images, every="5 epochs", max_share=None, on_explained=seen)
    stopping = keras.callbacks.EarlyStopping("loss", min_delta=100, patience=6)
    history = fit(compiled, images, stopping, callback, epochs=20, validation_data=(images, np.zeros(3)))
    assert seen.steps == [4, len(history.epoch) - 1] == [4, 6]


@pytest.mark.parametrize("unit", ["epoch", "batch"])
def test_explanations_take_no_more_than_their_share(compiled, images, seen, monkeypatch, unit):
    """Each epoch, of one batch, takes 10 s and each explanation 3 s by a clock of our own.

    That nothing limits them with `max_share=None` is seen in the other tests, whose epochs take no time.
    """
    clock = [0.0]

    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            clock[0] += 10

    def hook(*found):
        clock[0] += 3
        seen(*found)

    monkeypatch.setattr(_schedule, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(_callback, "perf_counter", lambda: clock[0])
    callback = GradCAMCallback(images, every="epoch" if unit == "epoch" else 1, on_explained=hook)
    with pytest.warns(
        UserWarning, match="took 3 s for 10 s of training, 30% of it, where `max_share`"
    ) as caught:
        fit(compiled, images, Clock(), callback, epochs=9, batch_size=3)
    assert len(caught) == 1
    # The cost is known after the first; 30 s of training are enough for 3 s; the last epoch is explained.
    assert seen.steps == ([0, 3, 6, 8] if unit == "epoch" else [1, 4, 7])


def test_a_hook_that_fails_ends_the_training(compiled, images):
    def hook(*_):
        raise RuntimeError("no network")

    with pytest.raises(RuntimeError, match="no network"):
        fit(compiled, images, GradCAMCallback(images, on_explained=hook))


def test_another_model_gets_another_explainer(compiled, images, seen):
    callback = GradCAMCallback(images, vmax="largest", max_share=None, on_explained=seen)
    fit(compiled, images, callback, epochs=1)
    other = build("sequential")
    other.compile("sgd", "sparse_categorical_crossentropy")
    fit(other, images, callback, epochs=1)
    np.testing.assert_allclose(seen[1][1].map, GradCAM(other)(images).map, atol=1e-6)


def test_mistakes_are_found_before_the_training(compiled, images, seen):
    def starts(**options):
        fit(compiled, images, GradCAMCallback(images, on_explained=seen, **options))

    weights = compiled.get_weights()
    for wrong in (images[0], list(images)):
        with pytest.raises(ValueError, match="`images` must be a batch for each input .* np.stack"):
            fit(compiled, images, GradCAMCallback(wrong, on_explained=seen))
    with pytest.raises(ValueError, match="conv3"):
        starts(layer="conv3")
    with pytest.raises(ValueError, match="`target` must"):
        starts(target=[5, 0, 0])
    with pytest.raises(
        ValueError, match="`labels` must name every class .* Received: 2 names, none for class 4"
    ):
        starts(labels=["a", "b"], target=4)
    with pytest.raises(
        ValueError, match="`labels` must name every class .* Received: 4 names, none for class 4"
    ):
        starts(labels=list("abcd"))  # The predicted class may be the last in any later epoch.
    with pytest.raises(ValueError, match="`masks` must be given"):
        starts(metrics=["energy"])
    with pytest.raises(ValueError, match="`vmax` must be None for several layers"):
        starts(layer=["conv1", "conv2"], vmax=1)
    for one, other in zip(compiled.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert seen == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"on_explained": None}, ValueError, "`log_dir` or `on_explained` must be given"),
        ({"on_explained": "print"}, TypeError, "`on_explained` must be a function"),
        ({"on_explained": lambda epoch, logs: None}, TypeError, "`on_explained` must be a function"),
        ({"labels": "classes.txt"}, TypeError, "`labels` must be a list of the classes' names"),
        ({"labels": 5}, TypeError, "`labels` must be a list"),
        ({"every": 0}, ValueError, "`every` must be"),
        ({"every": "batch"}, ValueError, "`every` must be"),
        ({"every": "0 epochs"}, ValueError, "`every` must be"),
        ({"every": True}, ValueError, "`every` must be"),
        ({"every": 1.5}, ValueError, "`every` must be"),
        ({"count": 0}, ValueError, "`count` must be"),
        ({"max_share": 0}, ValueError, "`max_share` must be a number above 0, or None"),
        ({"max_share": "10%"}, ValueError, "`max_share` must be"),
        ({"vmax": "batch"}, ValueError, "`vmax` must be a number above 0, or None or 'largest'"),
        ({"vmax": float("nan")}, ValueError, "`vmax` must be"),
        ({"names": ["a", "a", "b"]}, ValueError, "`names` must be"),
        ({"names": "abc"}, ValueError, "`names` must be"),
        ({"photographs": []}, ValueError, "`photographs` must hold one for each of the 3"),
        ({"masks": np.ones((3, 4))}, ValueError, "`masks` must go with `metrics`"),
        ({"metrics": ["deletoin"]}, ValueError, "'deletoin'.* Did you mean 'deletion'"),
        ({"target": "labels"}, ValueError, "no labels"),
        ({"target": "true"}, ValueError, "'labels' or None. Received: target='true'"),
    ],
)
def test_wrong_arguments_are_refused_at_once(images, seen, options, error, message):
    with pytest.raises(error, match=message):
        GradCAMCallback(images, **{"on_explained": seen} | options)


def test_weights_that_are_nan_do_not_end_the_training(compiled, images, seen):
    weights = [np.full_like(each, np.nan) for each in compiled.get_weights()]
    callback = GradCAMCallback(images, target=0, vmax="largest", max_share=None, on_explained=seen)
    breaking = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: compiled.set_weights(weights))
    fit(compiled, images, breaking, callback, epochs=1)
    ((_, _, pictures, scalars),) = seen
    assert np.isnan(scalars["gradcam_score/image 0"])
    assert len(pictures) == 3


# Copies and records


def test_it_can_be_copied_before_and_after_training(compiled, images, seen):
    callback = GradCAMCallback(images, max_share=None, on_explained=seen)
    for _ in range(2):  # As tuners do it.
        copied = copy.deepcopy(callback)
        fit(compiled, images, callback, epochs=1)
    fit(compiled, images, copied, epochs=1)
    assert callback.model is compiled
    assert len(seen) == 2


def test_the_config_is_json_and_makes_the_same_callback(images, seen, tmp_path):
    options = {"layer": "conv2", "method": "hirescam", "target": np.array(TARGET), "every": 10, "vmax": 2.5}
    callback = GradCAMCallback(images, on_explained=seen, names=["a", "b", "c"], **options)
    config = json.loads(json.dumps(callback.get_config()))
    assert config["left_out"] == ["images", "on_explained"]
    assert config["target"] == TARGET
    again = GradCAMCallback.from_config(config, images=images, on_explained=seen)
    assert again.get_config() == config
    with pytest.raises(ValueError, match=r"Received: no \['images'\]"):
        GradCAMCallback.from_config(config, on_explained=seen)


@pytest.mark.parametrize(
    "options",
    [
        {"target": targets.Class(3)},
        {"target": lambda outputs: outputs[:, 0]},
        {"labels": {1: "a"}},
        {"method": lambda activations, gradients: activations[..., 0]},
        {"vmax": np.float32(2)},
        {"masks": np.ones((3, SIDE, SIDE)), "metrics": ["energy"]},
    ],
)
def test_the_config_names_what_json_has_no_form_for(images, seen, options):
    callback = GradCAMCallback(images, on_explained=seen, **options)
    config = json.loads(json.dumps(callback.get_config()))
    (name, *_) = options
    assert (name in config) != (name in config["left_out"])
    assert (name in config) == (name == "vmax")
    left_out = {"images": images, "on_explained": seen} | options
    given = {name: left_out[name] for name in config["left_out"]}
    assert GradCAMCallback.from_config(config, **given).get_config() == config


# Other models and targets


def test_a_logit_between_0_and_1_is_no_probability():
    def explanation(output, score):
        arrays = {"heatmap": np.ones((2, 4, 4)), "map": np.ones((2, 4, 4)), "target": np.array([1, 1])}
        return types.SimpleNamespace(outputs=np.array(output)[:, None], score=np.array(score), **arrays)

    logits = explanation([0.1, 0.9], [0.1, 0.9])
    assert _pictures.numbers_of(logits).probability is None
    np.testing.assert_array_equal(_pictures.numbers_of(logits, is_probability=True).probability, [0.1, 0.9])
    sigmoid = explanation([0.5, 0.75], [0, np.log(3)])
    np.testing.assert_array_equal(_pictures.numbers_of(sigmoid).probability, [0.5, 0.75])


def small(shape, *steps):
    inputs = keras.Input(shape)
    return keras.Model(inputs, chain(inputs, [*steps, keras.layers.Dense(2, name="units")]))


def explained(model, images, seen, classes, **options):
    model.compile("sgd", "mse")
    callback = GradCAMCallback(images, max_share=None, on_explained=seen, **options)
    model.fit(images, classes, epochs=1, verbose=0, callbacks=[callback])
    ((_, explanation, pictures, scalars),) = seen
    return explanation, pictures, scalars


def test_of_a_volume_the_slice_with_most_heat_is_drawn(seen):
    keras.utils.set_random_seed(1)
    model = small((6, 8, 10, 1), keras.layers.Conv3D(3, 3), keras.layers.GlobalAveragePooling3D())
    volumes = np.random.default_rng(0).random((2, 6, 8, 10, 1)).astype("float32")
    explanation, pictures, _ = explained(model, volumes, seen, np.zeros((2, 2)), target=0)
    for number, picture in enumerate(pictures.values()):
        hottest = np.asarray(explanation.heatmap)[number].max(axis=(1, 2)).argmax()
        pixels = np.rint(volumes[number, hottest] * 255).astype(np.uint8).repeat(3, axis=-1)
        photograph = pixels.repeat(20, axis=0).repeat(20, axis=1)
        np.testing.assert_array_equal(picture[-160:, :200], photograph)


def test_a_signal_has_numbers_and_no_picture(seen):
    model = small((12, 2), keras.layers.Conv1D(3, 3), keras.layers.GlobalAveragePooling1D())
    signals = np.random.default_rng(0).random((3, 12, 2)).astype("float32")
    explanation, pictures, scalars = explained(model, signals, seen, np.zeros((3, 2)), target=1)
    assert explanation.heatmap.shape == (3, 12)
    assert pictures == {}
    assert set(scalars) == {f"gradcam_{kind}/image {n}" for kind in ("score", "peak") for n in range(3)}


@pytest.mark.parametrize("with_photographs", [True, False])
def test_of_several_inputs_the_one_with_the_heatmap_is_drawn(seen, with_photographs):
    table, images = keras.Input((4,), name="table"), keras.Input((10, 8, 3), name="images")
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 3)(images))
    model = keras.Model(
        {"table": table, "images": images},
        keras.layers.Dense(2)(keras.layers.Concatenate()([features, table])),
    )
    random = np.random.default_rng(0)
    data = {"table": random.random((2, 4)), "images": random.integers(0, 256, (2, 10, 8, 3), dtype="uint8")}
    photographs = (
        [np.full((500, 900, 3), shade, np.uint8) for shade in (80, 90)] if with_photographs else None
    )
    _, pictures, _ = explained(model, data, seen, np.zeros((2, 2)), photographs=photographs)
    for number, picture in enumerate(pictures.values()):
        if with_photographs:  # Shrunk to 448 pixels.
            assert (picture[-249:, :448] == 80 + 10 * number).all()
        else:
            photograph = data["images"][number].repeat(20, axis=0).repeat(20, axis=1)
            np.testing.assert_array_equal(picture[-200:, :160], photograph)


def test_several_classes_have_a_tag_each(compiled, images, seen):
    target = targets.Classes([3, 1])
    callback = GradCAMCallback(
        images[:1], target=target, labels=list("abcde"), names=["x"], on_explained=seen
    )
    fit(compiled, images, callback, epochs=1)
    seen_pictures, scalars = seen[0][2:]
    assert list(seen_pictures) == ["gradcam/x/d", "gradcam/x/b"]
    assert {"gradcam_score/x/d", "gradcam_probability/x/b", "gradcam_peak/x/b"} <= set(scalars)
    best = GradCAMCallback(images[:1], target=targets.TopClasses(2), max_share=None, on_explained=seen)
    fit(compiled, images, best, epochs=1)
    assert list(seen[1][2]) == ["gradcam/image 0/map 0", "gradcam/image 0/map 1"]


@pytest.mark.parametrize(
    ("values", "pixels"),
    [
        (np.array([0.0, 0.5, 1.0]), [0, 128, 255]),
        (np.array([0.0, 1.5, 255.0]), [0, 2, 255]),
        (np.array([0, 1, 1], np.uint8), [0, 1, 1]),
        (np.array([False, True, True]), [0, 255, 255]),
        (np.array([-2.0, 0.0, 2.0]), [0, 128, 255]),
        (np.array([0, 3000, 6000], np.uint16), [0, 128, 255]),
        (np.array([-3.0, -3.0, -3.0]), [0, 0, 0]),
        (np.array([0.0, 0.505, 1.01]), [0, 128, 255]),  # not three black pixels
    ],
)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_what_the_model_sees_is_drawn(values, pixels, channels):
    images = np.tile(values[None, None, :, None], (2, 2, 1, channels))
    drawn = _pictures.photographs_of([np.zeros((2, 7)), images], (2, 3))
    assert len(drawn) == 2
    np.testing.assert_array_equal(drawn[1], np.tile(np.array(pixels)[None, :, None], (2, 1, 3)))
    first = _pictures.photographs_of(np.moveaxis(images, -1, 1), (2, 3))
    if channels != 2:  # Otherwise (2, 2, 3) may be either.
        np.testing.assert_array_equal(first, drawn)
    assert _pictures.photographs_of(images, (9, 9)) is None
    if channels == 1:
        np.testing.assert_array_equal(_pictures.photographs_of(images[..., 0], (2, 3)), drawn)


def test_a_caption_is_cut_where_the_picture_ends():
    wide, narrow = (
        _pictures.draw(np.zeros((192, side, 3), np.uint8), np.ones((2, 2)), ["w" * 99, ""])
        for side in (192, 10)
    )
    assert wide.shape == (192 + 60, 388, 3)
    assert narrow.shape == (192 + 50, 320, 3)
    assert (narrow[:, -2:] == 255).all()


def test_letters_are_as_large_as_the_picture_asks_for():
    heights = []
    for side in (192, 400):
        picture = _pictures.draw(np.zeros((side, side, 3), np.uint8), np.ones((2, 2)), ["I"])
        rows = np.flatnonzero((picture[:-side] < 128).any(axis=(1, 2)))
        heights.append((rows.max() - rows.min()) / picture.shape[1])
    assert heights[0] == pytest.approx(heights[1], rel=0.1)


# The scale


@pytest.fixture
def drawn(monkeypatch):
    """The heatmaps and lines that are drawn."""
    calls = []

    def draw(photograph, heatmap, lines):
        calls.append((heatmap, lines))
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(_callback, "draw", draw)
    return calls


@pytest.mark.parametrize("vmax", [None, 10.0, "largest"])
def test_the_strongest_colour_is_what_vmax_says(compiled, images, seen, drawn, vmax):
    """The last layer's weights times 4, then 1 / 2: peaks are 4 and 2 times the first ones."""
    layer = compiled.get_layer("scores")
    kernel = layer.get_weights()[0]
    factors = iter([1, 4, 2])
    scaling = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: layer.set_weights([kernel * next(factors), layer.get_weights()[1]])
    )
    callback = GradCAMCallback(
        images[:1], target=4, vmax=vmax, max_share=None, on_explained=seen, labels=list("abcde")
    )
    frozen = keras.optimizers.SGD(0.0)
    compiled.compile(frozen, "sparse_categorical_crossentropy")
    fit(compiled, images, scaling, callback, epochs=3)
    peaks = [scalars["gradcam_peak/image 0"] for *_, scalars in seen]
    np.testing.assert_allclose(np.divide(peaks, peaks[0]), [1, 4, 2], rtol=1e-5)
    after = drawn[-3:]  # The first was to try it.
    expected = {
        None: [1, 1, 1],
        10.0: np.divide(peaks, 10),
        "largest": [1, 1, 1 / 2],
    }[vmax]
    for (heatmap, lines), (_, explanation, *_), share, peak in zip(after, seen, expected, peaks, strict=True):
        np.testing.assert_allclose(heatmap, np.asarray(explanation.heatmap)[0] * share, rtol=1e-5, atol=1e-7)
        assert lines[0].startswith("epoch ")
        assert ": e, probability " in lines[0]
        assert f", peak {peak:.3g}" in lines[1]
        assert lines[1].endswith(f" of {10.0:.3g}" if vmax == 10 else "") or vmax == "largest"
