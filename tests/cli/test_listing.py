"""The commands that list: layers of a model, and methods."""

import keras
import pytest

from tf_gradcam import methods
from tf_gradcam._cli import main


@pytest.fixture(autouse=True)
def own_files(monkeypatch, tmp_path):
    """An empty folder, in which our own model files may be loaded by any Keras."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tf_gradcam._run.model_files.SAFE_KERAS", (3, 0))


def test_layers_lists_them_in_order_and_marks_the_default(functional, capsys):
    functional.save("tiny.keras")
    assert main(["layers", "--model", "tiny.keras"]) == 0
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert rows[-4:-1] == ["conv1 Conv2D 8 x 8 x 8", "conv2 Conv2D 8 x 8 x 6", "relu2 ReLU 8 x 8 x 6 default"]


def test_layers_says_how_often_a_layer_runs(capsys):
    images, shared = keras.Input((9, 9, 3)), keras.layers.Conv2D(3, 3, padding="same", name="shared")
    pooled = keras.layers.GlobalAveragePooling2D()(shared(shared(images)))
    keras.Model(images, keras.layers.Dense(3)(pooled)).save("model.keras")
    assert main(["layers", "--model", "model.keras"]) == 0
    assert "shared Conv2D 9 x 9 x 3 runs 2 times, default" in " ".join(capsys.readouterr().out.split())


def test_methods_lists_each_in_one_line_with_cost_and_paper(capsys):
    assert main(["methods"]) == 0
    out, err = capsys.readouterr()
    lines = [" ".join(line.split()) for line in out.splitlines()]
    for name, about in methods.METHODS.items():
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert line.startswith(f"{name} {about.cost} {'yes' if about.signed else 'no'} ")
        assert line.endswith(f" {about.paper}")
    assert {"gradcam 1 yes layer Selvaraju 2017", "gradient 2.5 no image Simonyan 2014"} <= set(lines)
    assert "eigencam 1 no layer, no class Muhammad & Yeasin 2020" in lines
    assert "signed, yes: negative values mark evidence against the class" in lines
    assert "no class: its map is the same for every class" in lines
    assert err == ""
