"""The entry point: answers at once what needs no model, and its exit codes."""

import os
import pathlib
import subprocess
import sys
import time

import pytest
from photo_files import files, read_rows, write_photo

import tf_gradcam
from tf_gradcam._cli import classifier, main
from tf_gradcam._run import batches


def environment():
    """This process's, from which an uninstalled package is found in any folder."""
    root = str(pathlib.Path(tf_gradcam.__file__).parents[1])
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])]),
    }


@pytest.mark.parametrize("arguments", [["--help"], ["explain", "--help"], ["--version"], ["explain"]])
def test_what_needs_no_model_does_not_wait_for_tensorflow(arguments):
    heavy = ["tensorflow", "keras", "cv2", "matplotlib", "numpy", "rich", "PIL"]
    script = (
        "import sys; from tf_gradcam._cli import main\n"
        f"try: main({arguments!r})\n"
        f"finally: print('loaded:', [name for name in {heavy!r} if name in sys.modules])"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment())
    print(f"{arguments}: {time.perf_counter() - start:.2f} s")
    assert done.stdout.endswith("loaded: []\n")


def test_the_module_is_the_command():
    command = [sys.executable, "-m", "tf_gradcam", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert (done.returncode, done.stdout) == (0, f"tf-gradcam {tf_gradcam.__version__}\n")


def test_an_interrupted_run_leaves_no_json_not_even_an_old_one(functional, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(classifier, "SAFE_KERAS", (3, 0))  # We make this file ourselves.
    functional.save("tiny.keras")
    photos = [write_photo("a.png"), write_photo("b.png")]
    command = ["explain", *photos, "--model", "tiny.keras", "--preprocess", "unit"]
    assert main(command) == 0
    assert [row["file"] for row in read_rows()] == photos
    read = batches.read_photograph

    def interrupted(photograph):
        if photograph.file == "b.png":
            raise KeyboardInterrupt
        return read(photograph)

    monkeypatch.setattr(batches, "read_photograph", interrupted)
    capsys.readouterr()
    assert main(command) == 130
    assert not any("json" in name for name in files("gradcam"))
    assert "a-overlay.png" in files("gradcam")
    assert capsys.readouterr().err == "tf-gradcam: error: interrupted\n"
