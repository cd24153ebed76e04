#!/usr/bin/env bash
# Who looks at one batch of a tf.data.Dataset changes the order in which training then reads it, although `shuffle` has a
# seed: all iterators of a data set share its seeds, and each takes the next ones. With a `cache` after the shuffle it is
# the order of every epoch. The page of `shuffle` shows that a second iteration differs, but not that the first may be
# anyone's.
# Seen with TensorFlow 2.21.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check tensorflow==2.21.0
cd "$folder"
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - <<'PYTHON'
import tensorflow as tf


def shuffled():
    return tf.data.Dataset.range(8).shuffle(8, seed=3)


def epochs(dataset):
    return [[int(number) for number in dataset] for _ in range(2)]


untouched, looked_at = shuffled(), shuffled()
next(iter(looked_at))  # such as for a picture of the first image
first, second = epochs(untouched)
found = epochs(looked_at)
print("untouched:", first, second, " after a look:", *found)
assert found[0] == second, "A look no longer takes the seeds of the first epoch"

untouched, looked_at = shuffled().cache(), shuffled().cache()
next(iter(looked_at))
print("with a cache:", epochs(untouched), " after a look:", epochs(looked_at))
assert epochs(looked_at)[1] != epochs(untouched)[1], "A look no longer changes what is cached"
PYTHON
