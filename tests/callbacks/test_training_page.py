"""The code in docs/training.md runs, with stand-ins for Weights & Biases and MLflow."""

import types

import doc_pages
import numpy as np
import pytest


class Noting:
    """Notes the calls of any of its functions."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.calls.append((name, args, kwargs))


@pytest.mark.filterwarnings("ignore:Explaining took")  # The epochs of the examples take no time.
def test_the_code_of_the_page_runs(monkeypatch, tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    monkeypatch.chdir(tmp_path)
    blocks = doc_pages.blocks("training.md", "python")
    assert len(blocks) == 6
    run, mlflow = Noting(), Noting()
    names = {"wandb": types.SimpleNamespace(Image=np.asarray), "run": run, "mlflow": mlflow}
    exec(compile("\n".join(blocks), "training.md", "exec"), names)
    for folder in ("gradcam", "from_dataset", "metrics"):
        assert list((tmp_path / "logs" / folder).iterdir())
    ((_, (logged,), _),) = run.calls
    assert logged["epoch"] == 0
    assert logged["gradcam/image 1"].dtype == np.uint8
    assert [name for name, *_ in mlflow.calls] == ["log_metrics", "log_image", "log_image"]
    assert mlflow.calls[1][2] == {"key": "gradcam/image 0", "step": 0}
