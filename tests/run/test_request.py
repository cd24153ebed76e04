"""A request: the class that its target means."""

import pytest

from tf_gradcam._run.request import class_index


@pytest.mark.parametrize(("target", "index"), [("2", 2), (2, 2), ("cat", 1), ("CAT", 1), ("7", 7)])
def test_a_class_is_an_index_or_a_label_in_any_case(target, index):
    assert class_index(target, ("ant", "Cat")) == index


@pytest.mark.parametrize(
    ("target", "labels", "message"),
    [
        ("bat", ("ant", "cat"), "Received: bat. Did you mean 'cat'"),
        ("cat", ("cat", "Cat"), r"It may be any of the classes \[0, 1\]"),
        ("cat", None, "the model's labels are unknown.*Give the names of its classes: `labels`"),
    ],
)
def test_a_label_that_is_not_one_class_is_refused(target, labels, message):
    with pytest.raises(ValueError, match=f"`target` must be .*{message}"):
        class_index(target, labels)
