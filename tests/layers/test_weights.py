"""Which weights belong to which layer: each to one, in order of execution."""

import keras
import numpy as np
import pytest
from conftest import KINDS, SIDE, build, parts

from tf_gradcam._layers import weights_by_layer


class Backwards(keras.Model):
    """It lists its layers in the opposite order to that in which they run, and has a weight of its own."""

    def __init__(self):
        super().__init__()
        self.scores, self.pool, self.relu2, self.conv2, self.conv1 = reversed(parts())
        self.scale = self.add_weight(shape=(), name="scale", initializer="ones")

    def call(self, images):
        return self.scores(self.pool(self.relu2(self.conv2(self.conv1(images))))) * self.scale


@pytest.mark.parametrize("kind", [*KINDS, "backwards"])
def test_every_weight_belongs_to_one_layer_in_order_of_execution(kind):
    images = np.zeros((1, SIDE, SIDE, 3), "float32")
    model = Backwards() if kind == "backwards" else build(kind)
    model(images)
    found = weights_by_layer(model, images)
    names = ["conv1", "conv2", "scores"] + [model.name] * (kind == "backwards")
    assert [one.path.rpartition("/")[2] for one in found] == names
    positions = [position for one in found for position in one.positions]
    assert sorted(positions) == list(range(len(model.weights)))
    for one in found:
        own = {id(variable) for variable in one.layer.weights}
        assert all(id(model.weights[position]) in own for position in one.positions)
