"""What a layer returns, on its grid and back."""

import numpy as np
import pytest
import tensorflow as tf

from tf_gradcam._model.grid import Grid, find_grid, from_grid, spatial_axes, to_grid


@pytest.mark.parametrize(
    ("shape", "images", "channels_first", "expected"),
    [
        ((None, 7, 5, 64), [(None, 224, 160, 3)], False, Grid((7, 5), 64)),
        ((None, 64, 7, 5), [(None, 3, 224, 160)], True, Grid((7, 5), 64, None, True)),
        ((None, 18, 4), [(None, 40, 3)], False, Grid((18,), 4)),
        ((None, 4, 18), [(None, 3, 40)], True, Grid((18,), 4, None, True)),
        ((None, 3, 5, 4, 8), [(None, 12, 20, 16, 1)], False, Grid((3, 5, 4), 8)),
        ((None, None, None, 8), [(None, None, None, 3)], False, Grid((None, None), 8)),
        ((None, 1, None, 8), [(None, 9, None, 3)], False, Grid((1, None), 8)),
        ((None, 1, 1, 8), [(None, 9, 9, 3)], False, None),
        ((None, 1, 8), [(None, 40, 3)], False, None),
        ((None, 8), [(None, 9, 9, 3)], False, None),
        # An image beside a table, and beside a text.
        ((None, 7, 7, 64), [(None, 4), (None, 224, 224, 3)], False, Grid((7, 7), 64)),
    ],
)
def test_the_grid_is_all_but_the_batch_and_the_channels(shape, images, channels_first, expected):
    assert find_grid(shape, images, channels_first) == expected


IMAGE = (None, 24, 40, 3)


@pytest.mark.parametrize(
    ("tokens", "flattened", "expected"),
    [
        (15, [(3, 5)], Grid((3, 5), 8, 0)),
        (16, [(3, 5)], Grid((3, 5), 8, 1)),  # a class token
        (20, [(3, 5)], Grid((3, 5), 8, 5)),  # and four registers
        (15, [(6, 10), (3, 5)], Grid((3, 5), 8, 0)),  # (6, 10) is of a later or another branch
        (60, [(5, 11), (6, 10)], Grid((6, 10), 8, 0)),  # with the fewest tokens left over
        (16, [(4, 4), (2, 8)], Grid((4, 4), 8, 0)),  # the likelier
        (15, [], None),  # nothing tells
        (14, [(3, 5)], None),
        (15 + 9, [(3, 5)], None),
        (None, [(3, 5)], None),
        (1, [(1, 1)], None),
    ],
)
def test_tokens_are_the_grid_that_was_flattened_and_a_few_more(tokens, flattened, expected):
    assert find_grid((None, tokens, 8), [IMAGE], False, flattened) == expected


def test_what_comes_of_a_signal_is_a_signal_also_beside_an_image():
    assert find_grid((None, 15, 8), [(None, 40, 3)], False, [(3, 5)]) == Grid((15,), 8)
    assert find_grid((None, 15, 8), [IMAGE, (None, 40, 3)], False, [(3, 5)]) == Grid((3, 5), 8, 0)


def test_values_are_laid_on_their_grid():
    tokens = tf.range(2 * 8 * 3)
    tokens = tf.reshape(tokens, (2, 8, 3))  # two images, two extra tokens and 2 x 3 patches, three channels
    grid = Grid((2, 3), 3, 2, start=2)
    np.testing.assert_array_equal(to_grid(tokens, grid)[1, 1, 2], tokens[1, 7])
    np.testing.assert_array_equal(to_grid(tokens, grid)[0, 0, 0], tokens[0, 2])
    volume = tf.reshape(tf.range(2 * 3 * 4 * 5 * 6), (2, 3, 4, 5, 6))
    turned = to_grid(volume, Grid((4, 5, 6), 3, None, True))
    np.testing.assert_array_equal(turned[1, 3, 4, 5], volume[1, :, 3, 4, 5])
    assert to_grid(volume, Grid((3, 4, 5), 6)) is volume


@pytest.mark.parametrize(
    ("shape", "grid"),
    [
        ((2, 3, 5, 4), Grid((3, 5), 4)),
        ((2, 4, 3, 5), Grid((3, 5), 4, None, True)),
        ((2, 7, 4), Grid((7,), 4)),
        ((2, 4, 7), Grid((7,), 4, None, True)),
        ((2, 4, 3, 5, 6), Grid((3, 5, 6), 4, None, True)),
        ((2, 15, 4), Grid((3, 5), 4, 0)),
        ((2, 18, 4), Grid((3, 5), 4, 3, start=3)),  # a class token and registers first
        ((2, 18, 4), Grid((3, 5), 4, 3, start=1)),  # on both sides
        ((2, 17, 4), Grid((3, 5), 4, 2, start=0)),  # last
    ],
)
def test_values_of_a_grid_go_back_to_where_they_came_from(shape, grid):
    random = np.random.default_rng(0)
    activations, others = (tf.constant(random.normal(size=shape)) for _ in range(2))
    on_grid = to_grid(activations, grid)
    np.testing.assert_array_equal(from_grid(on_grid, grid, activations), activations)
    # Other values for the places; the tokens that are none keep those that they had.
    back = from_grid(to_grid(others, grid), grid, activations)
    np.testing.assert_array_equal(to_grid(back, grid), to_grid(others, grid))
    if grid.extra:
        extra = np.delete(np.arange(shape[1]), np.arange(grid.start, grid.start + 15))
        assert len(extra) == grid.extra
        np.testing.assert_array_equal(back.numpy()[:, extra], activations.numpy()[:, extra])
    else:
        np.testing.assert_array_equal(back, others)


@pytest.mark.parametrize(
    ("image", "rank", "channels_first", "expected"),
    [
        ((2, 24, 40, 3), 2, False, [24, 40]),
        ((2, 3, 24, 40), 2, True, [24, 40]),
        ((2, 3, 24, 40), 2, False, [24, 40]),  # the shape tells
        ((2, 24, 40, 3), 2, True, [24, 40]),  # turned by preprocessing
        ((2, 13, 24, 40), 2, True, [24, 40]),  # the layer tells
        ((2, 24, 40), 2, False, [24, 40]),  # no channels
        ((2, 40, 3), 1, False, [40]),
        ((2, 9, 24, 40, 1), 3, False, [9, 24, 40]),
        ((2, 1, 9, 24, 40), 3, True, [9, 24, 40]),
        ((2, 9, 24, 40, 1), 2, False, [24, 40]),  # one map for all the frames of a video
        ((2, 4), 2, False, None),  # a table
        ((2, 64, 1), 2, False, None),  # a signal of one channel
    ],
)
def test_the_places_of_an_image_are_all_but_the_batch_and_the_channels(image, rank, channels_first, expected):
    axes = spatial_axes(tf.zeros(image), rank, channels_first)
    assert (axes if expected is None else [image[axis] for axis in axes]) == expected
