"""Monte Carlo dropout, as in `docs/targets.md`: a batch of copies of one image shows how a map varies."""

import keras
import numpy as np
from conftest import SIDE, parts

from tf_gradcam import GradCAM

RATE, COPIES = 0.25, 3000


class AlwaysDropout(keras.layers.Dropout):
    def call(self, inputs, training=None):
        return super().call(inputs, training=True)


def test_a_batch_of_copies_shows_the_spread_of_the_maps(images):
    *features, pool, scores = parts()
    keras.utils.set_random_seed(1)
    x = maps = keras.Input((SIDE, SIDE, 3))
    for layer in features:
        maps = layer(maps)
    kept = AlwaysDropout(RATE, seed=3)(pool(maps))
    model = keras.Model(x, scores(kept))
    cam = GradCAM(model, "relu2")
    copies = np.repeat(images[:1], COPIES, axis=0)
    explanation = cam(copies, 1, size=None)
    signed = explanation.map.numpy().astype("float64")

    # Each channel's term is left out with the rate, or divided by 1 - rate.
    activations = np.asarray(keras.Model(x, maps)(images[:1]), "float64")[0]
    terms = activations * scores.kernel.numpy()[:, 1].astype("float64") / activations[..., 0].size
    mean, deviation = terms.sum(-1), np.sqrt(RATE / (1 - RATE) * (terms**2).sum(-1))
    highest = np.abs(mean).max()
    # The mean of 3000 has a deviation of 1/55 of one map's; allow five of these.
    assert (np.abs(signed.mean(0) - mean) <= 5 * deviation / np.sqrt(COPIES) + 1e-6 * highest).all()
    np.testing.assert_allclose(signed.std(0), deviation, rtol=0.1, atol=1e-6 * highest)
    assert deviation.max() > 0.1 * highest  # A single map says little.

    again = cam(copies[:5], 1, size=None)  # Another call draws the same numbers: it shows no spread.
    np.testing.assert_array_equal(again.map, cam(copies[:5], 1, size=None).map)
    assert len(np.unique(again.map.numpy().reshape(5, -1), axis=0)) > 1
