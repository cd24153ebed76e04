"""Workers of Ray: the rows of one machine, each image once, also when a machine is killed."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import doc_pages
import keras
import numpy as np
import pyarrow as pa
import pyarrow.dataset as pds
import pytest
from photo_files import head, unit, write_photo

import tf_gradcam
import tf_gradcam.ray
from tf_gradcam._cli import main


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def by_id(out):
    rows = pds.dataset(out, format="parquet").to_table().to_pylist()
    found = {row["id"]: row for row in rows}
    assert len(found) == len(rows), "an image has two rows"
    return found


def assert_same(found, expected):
    """Assert that rows are the same, their maps to 1e-6."""
    assert set(found) == set(expected)
    for name, row in found.items():
        other = dict(expected[name])
        maps = [np.array(each["map"] or 0) * (each["map_scale"] or 0) for each in (row, other)]
        np.testing.assert_allclose(*maps, atol=1e-6)
        close = ("map_scale", "score", "probability")
        for key in close:
            assert row[key] == pytest.approx(other[key], abs=1e-5)
        exact = set(row) - {"map", "top", *close}
        assert {key: row[key] for key in exact} == {key: other[key] for key in exact}
        assert [each["class"] for each in row["top"] or ()] == [each["class"] for each in other["top"] or ()]


# One process


def test_a_class_for_map_batches_gives_the_rows_of_one_machine():
    model = head(3, "softmax")
    model.save("model.keras")
    for number in range(5):
        write_photo(f"photos/{number}.png", (16, 24), seed=number)
    pathlib.Path("photos/broken.png").write_bytes(b"no photograph")
    cam = tf_gradcam.GradCAM(model, preprocess=unit)
    labels = ["ant", "bee", "cat"]
    tf_gradcam.explain_dataset(cam, "photos", "rows", labels=labels, dtype="float32", batch_size=4)
    expected = by_id("rows")
    given = {"preprocess": unit, "labels": labels, "dtype": "float32", "batch_size": 4}
    paths = sorted(expected)
    targets = [expected[path]["target"] for path in paths]
    for source in ("model.keras", lambda: keras.models.load_model("model.keras")):
        worker = tf_gradcam.ray.explainer(source, **given)()
        for batch in (
            {"path": np.array(paths)},  # NumPy's, Ray's default
            pa.table({"path": paths}),
            {"path": np.array(paths), "target": np.array([np.nan if t is None else t for t in targets])},
        ):
            tables = list(worker(batch))
            assert [len(table) for table in tables] == [4, 2]
            rows = pa.concat_tables(tables).to_pylist()
            assert_same({row["id"]: row for row in rows}, expected)
    with pytest.raises(ValueError, match="must have a column `path`. Received: file"):
        list(worker({"file": np.array(paths)}))
    with pytest.raises(FileNotFoundError, match="`model` must be a name or a file. Received: none.keras"):
        tf_gradcam.ray.explainer("none.keras")()


def test_a_class_for_map_batches_takes_an_exported_file(exported_file, served):
    paths = [write_photo(f"photos/{number}.png", (20, 30), seed=number) for number in range(3)]
    file = exported_file(".onnx")
    tf_gradcam.explain_dataset(file, "photos", "rows", dtype="float32")
    expected = by_id("rows")

    def rows(model, **given):
        tables = tf_gradcam.ray.explainer(model, **{"dtype": "float32", **given})()({"path": np.array(paths)})
        return {row["id"]: row for row in pa.concat_tables(tables).to_pylist()}

    loaded = tf_gradcam.load(file, threads=1)
    for model, given in ((file, {}), (str(file), {"threads": 2}), (loaded, {}), (lambda: loaded, {})):
        assert_same(rows(model, **given), expected)
    scaled = rows(file, preprocess=unit)
    assert scaled[paths[0]]["score"] != pytest.approx(expected[paths[0]]["score"], rel=1e-3)
    assert {row["error"] for row in rows(served).values()} == {None}
    for model, given, words in [
        (file, {"layer": "conv2"}, "`layer` must be left out for an exported file"),
        (file, {"method": "gradcam"}, "`method` must be left out for an exported file"),
        (file, {"call": 0}, "`call` must be left out for an exported file"),
        (served, {"preprocess": unit}, "`preprocess` must be left out, as the file has its own"),
        (served, {"threads": 2}, "`threads` must be None for a SavedModel"),
        (loaded, {"threads": 2}, "`threads` must be None unless `model` is the path of an exported file"),
        ("model.keras", {"threads": 2}, "`threads` must be None unless `model` is the path"),
    ]:
        with pytest.raises(ValueError, match=words):
            tf_gradcam.ray.explainer(model, **given)()


def test_without_ray_the_message_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    assert main(["run", "photos", "--engine", "ray"]) == 2
    assert 'pip install "tf_gradcam[ray]"' in capsys.readouterr().err


def test_options_of_a_cluster_need_the_engine(capsys):
    for options in (["--workers", "2"], ["--address", "auto"], ["--gpus", "0.5"]):
        assert main(["run", "photos", *options]) == 2
        assert f"`{options[0]}` is for a run on Ray" in capsys.readouterr().err
    for wrong in ("0", "-1", "1.5", "nan", "inf", "x"):
        with pytest.raises(SystemExit):
            main(["run", "photos", "--engine", "ray", "--gpus", wrong])


# A cluster of two worker nodes

_SLOW = """
import time
def slowly(images):
    time.sleep(0.01)
    return images / 255
"""


_SMALL = {"object_store_memory": 80 * 2**20, "include_dashboard": False}


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """Return a folder of modules that every worker can import."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "slow_unit.py").write_text(_SLOW)
    return folder


@pytest.fixture(scope="module")
def cluster(modules):
    pytest.importorskip("ray.data", reason="needs Ray: make test-ray", exc_type=ImportError)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(modules), *sys.path]))
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("TF_NUM_INTRAOP_THREADS", "1")
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **_SMALL})
        try:
            for _ in range(2):
                made.add_node(num_cpus=1, **_SMALL)
            yield made
        finally:
            made.shutdown()


def command(*options):
    return [sys.executable, "-m", "tf_gradcam", "run", "photos", "--quiet", *options]


def run(*options):
    return subprocess.run(command(*options), capture_output=True, text=True, timeout=300)


_BUILT_IN_WORKERS = ["--model", "model.keras", "--preprocess", "slow_unit:slowly", "--dtype", "float32"]


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
def test_each_image_has_one_row_when_a_machine_is_killed(cluster):
    head(3, "softmax", side=32).save("model.keras")
    for number in range(2000):
        write_photo(f"photos/{number:04}.png", (32, 48), seed=number)
    for number in (100, 1000, 1999):
        pathlib.Path(f"photos/{number:04}.png").write_bytes(b"no photograph")
    on_ray = [*_BUILT_IN_WORKERS, "--engine", "ray", "--address", cluster.address, "--workers", "2"]
    on_ray += ["--batch-size", "8"]
    process = subprocess.Popen(command(*on_ray, "--out", "rows"), stderr=subprocess.PIPE, text=True)
    journal = pathlib.Path("rows/.tf_gradcam-journal.arrows")
    while not (journal.exists() and journal.stat().st_size > 2_500_000):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    node = next(iter(cluster.worker_nodes))
    assert journal.stat().st_size < 6_000_000, "it is killed in the middle: 2,000 rows are 7.7 MB"
    (raylet,) = node.all_processes["raylet"]
    os.kill(raylet.process.pid, signal.SIGKILL)
    _, problems = process.communicate(timeout=300)
    cluster.add_node(num_cpus=1, **_SMALL)  # in its place, for the next tests
    assert process.returncode == 1, problems
    assert "3 images have an error" in problems
    local = run(*_BUILT_IN_WORKERS, "--batch-size", "8", "--out", "local")
    assert local.returncode == 1, local.stderr
    found = by_id("rows")
    assert len(found) == 2000
    assert sum(row["error"] is not None for row in found.values()) == 3
    assert_same(found, by_id("local"))
    # Each engine goes on where the other ended.
    write_photo("photos/more.png", (32, 48))
    assert "1 image explained, 2000 skipped" in run(*on_ray, "--out", "local").stdout
    assert "1 image explained, 2000 skipped" in run(*_BUILT_IN_WORKERS, "--out", "rows").stdout


_RAISES_IN_WORKERS = """
import sys
if "default_worker" in sys.argv[0]:
    raise ValueError("this machine lacks the weights")
def unit(images):
    return images / 255
"""


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
def test_a_worker_that_cannot_explain_ends_the_run_with_a_sentence(modules, cluster):
    head(3, "softmax").save("model.keras")
    write_photo("photos/0.png")
    (modules / "raises_in_workers.py").write_text(_RAISES_IN_WORKERS)
    options = ["--model", "model.keras", "--preprocess", "raises_in_workers:unit", "--engine", "ray"]
    done = run(*options, "--address", cluster.address)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("tf-gradcam: error:")]
    assert line == "tf-gradcam: error: a worker can't explain: this machine lacks the weights"
    assert "Traceback" not in done.stderr + done.stdout


_WITHOUT_TENSORFLOW = """
import sys
def unit(images):
    if sys.modules.keys() & {"tensorflow", "keras"}:
        raise ValueError("TensorFlow is imported")
    return images / 255
"""


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
def test_a_worker_explains_with_an_exported_file_and_without_tensorflow(modules, cluster, exported_file):
    for number in range(40):
        write_photo(f"photos/{number}.png", (32, 48), seed=number)
    (modules / "without_tensorflow.py").write_text(_WITHOUT_TENSORFLOW)
    for number, suffix in enumerate((".onnx", ".tflite", ".xml")):
        options = ["--model", os.path.relpath(exported_file(suffix)), "--dtype", "float32"]
        options += ["--preprocess", "without_tensorflow:unit"]
        local = run(*options, "--out", f"local{number}")
        assert local.returncode == 0, local.stderr
        options += ["--engine", "ray", "--address", cluster.address, "--batch-size", "8"]
        options += ["--workers", "1", "--threads", "2"] if suffix == ".onnx" else ["--workers", "2"]
        done = run(*options, "--out", f"rows{number}")
        assert done.returncode == 0, done.stderr
        assert "40 images explained, 0 skipped" in done.stdout
        found = by_id(f"rows{number}")
        assert {row["error"] for row in found.values()} == {None}
        assert_same(found, by_id(f"local{number}"))


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
def test_the_example_of_the_page_explains_and_ray_writes_its_rows(cluster, tmp_path):
    head(3, "softmax").save("model.keras")
    paths = [write_photo(tmp_path / f"photos/{number}.png", seed=number) for number in range(9)]
    missing = str(tmp_path / "photos/9.png")
    pathlib.Path("photographs.csv").write_text("\n".join(["path", *paths, missing]))
    (example,) = doc_pages.blocks("ray.md", "python")
    example = example.replace("/shared", str(tmp_path)).replace("size=4", "size=1")
    done = subprocess.run(
        [sys.executable, "-c", example],
        capture_output=True,
        text=True,
        env={**os.environ, "RAY_ADDRESS": cluster.address},
        timeout=300,  # It waits for ever where the worker takes the only CPU.
    )
    assert done.returncode == 0, done.stderr
    cam = tf_gradcam.GradCAM(keras.models.load_model("model.keras"), preprocess=unit)
    pathlib.Path("local.txt").write_text("\n".join(paths))  # so the ids are the paths, as in Ray Data
    tf_gradcam.explain_dataset(cam, "local.txt", "local")
    found = by_id("maps")
    assert "No such file" in found.pop(missing)["error"]
    assert_same(found, by_id("local"))
