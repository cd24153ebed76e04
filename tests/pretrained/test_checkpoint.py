"""Reading a checkpoint: only tensors, only whole, only within the file."""

import os
import pickle
import struct

import numpy as np
import pytest

from tf_gradcam.pretrained._checkpoint import MAGIC, read_checkpoint


class Attack:
    """Pickles to a call of `os.system`."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def checkpoint(shape=(2, 3), strides=(3, 1), offset=0, size=6):
    """A checkpoint that holds the numbers 0 to 5 as the tensor `weight`."""

    def pickled(numbers):
        return "(" + "".join(f"I{number}\n" for number in numbers) + "t"

    storage = f"(S'storage'\nctorch\nFloatStorage\nS'7'\nS'cpu'\nI{size}\nNtQ"
    tensor = f"({storage}I{offset}\n{pickled(shape)}{pickled(strides)}I00\nNtR"
    state = f"(dS'weight'\nctorch._utils\n_rebuild_tensor_v2\n{tensor}s."
    head = [pickle.dumps(part) for part in (MAGIC, 1001, {"little_endian": True})]
    return b"".join([*head, state.encode(), pickle.dumps(["7"]), struct.pack("<q6f", 6, *range(6))])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, protocol):
    marker = tmp_path / "marker"
    with pytest.raises(ValueError, match=r"may name only .* Received: \w+\.system\."):
        read_checkpoint(pickle.dumps(Attack(marker), protocol))
    assert not marker.exists()


def test_a_reference_to_anything_but_a_storage_is_refused():
    with pytest.raises(ValueError, match=r"only to storages. Received: 'module'"):
        read_checkpoint(b"S'module'\nQ.")


def test_a_tensor_is_read_in_the_order_of_its_strides():
    rows = read_checkpoint(checkpoint())["weight"]
    columns = read_checkpoint(checkpoint((3, 2), (1, 3)))["weight"]
    last = read_checkpoint(checkpoint((2,), (1,), offset=4))["weight"]
    assert rows.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert columns.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert last.tolist() == [4, 5]
    assert rows.dtype == np.float32
    assert not rows.flags.writeable


@pytest.mark.parametrize(
    "outside",
    [
        {"shape": (7,), "strides": (1,)},
        {"shape": (2, 3), "strides": (4, 1)},
        {"shape": (6,), "strides": (1,), "offset": 1},
        {"shape": (1,), "strides": (1,), "offset": -1},
        {"shape": (6,), "strides": (-1,)},
    ],
)
def test_a_tensor_that_leaves_its_storage_is_refused(outside):
    with pytest.raises(ValueError, match="_Tensor.* reaches beyond its storage"):
        read_checkpoint(checkpoint(**outside))


@pytest.mark.parametrize("keep", [0, 20, 150, -33, -28, -24, -1])
def test_a_checkpoint_that_ends_too_early_is_refused(keep):
    with pytest.raises(ValueError, match=r"Received: \d+ bytes, truncated or damaged"):
        read_checkpoint(checkpoint()[:keep])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (checkpoint() + b"\0", "bytes follow its last storage"),
        (checkpoint(size=5), "storage 7 has size 6, not 5"),
        (checkpoint().replace(pickle.dumps(["7"]), pickle.dumps(["8"])), "list of storages"),
        (checkpoint().replace(pickle.dumps(1001), pickle.dumps(1002)), "first three pickles"),
    ],
)
def test_a_checkpoint_that_contradicts_itself_is_refused(data, reason):
    with pytest.raises(ValueError, match=reason):
        read_checkpoint(data)
