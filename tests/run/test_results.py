"""The results: JSON that is whole or not there."""

import json

import pytest

from tf_gradcam._run import write_results
from tf_gradcam._run.results import format_class


def test_the_json_is_written_at_once_and_nothing_is_left_beside_it(tmp_path):
    write_results([{"file": "é.png", "score": 1.5}], tmp_path)
    (path,) = tmp_path.iterdir()
    assert path.name == "explanations.json"
    assert json.loads(path.read_text(encoding="utf-8")) == [{"file": "é.png", "score": 1.5}]
    with pytest.raises(ValueError, match="JSON"):
        write_results([{"score": float("nan")}], tmp_path)
    assert json.loads(path.read_text(encoding="utf-8")) == [{"file": "é.png", "score": 1.5}]
    assert list(tmp_path.iterdir()) == [path]


def test_the_rows_of_an_unfinished_run_neither_pass_for_all_nor_replace_them(tmp_path):
    assert write_results([{"file": "a.png"}], tmp_path) == "explanations.json"
    assert write_results([{"file": "b.png"}], tmp_path, finished=False) == "explanations-unfinished.json"
    rows = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.iterdir()}
    assert rows == {
        "explanations.json": [{"file": "a.png"}],
        "explanations-unfinished.json": [{"file": "b.png"}],
    }
    write_results([{"file": "c.png"}], tmp_path)
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text(encoding="utf-8")) == [{"file": "c.png"}]


def test_a_class_is_told_with_its_probability_if_it_has_one():
    assert format_class({"label": "cat", "probability": 0.1234}) == "cat 12.3%"
    assert format_class({"label": "cat\n", "probability": None}) == "cat"
