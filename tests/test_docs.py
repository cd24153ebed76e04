"""The README and the pages of the site: their code runs, and what they list and quote is true."""

import ast
import dataclasses
import operator
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import types

import cv2
import doc_pages
import keras
import matplotlib
import nibabel
import numpy as np
import pytest
import tensorflow as tf
import zoo
from conftest import SIDE, build, chain, preprocess
from dicom_files import save_series, shipped
from matplotlib import pyplot
from photo_files import read_rows

import tf_gradcam
from tf_gradcam import methods, pretrained
from tf_gradcam._cli import main
from tf_gradcam._cli.arguments import make_parser

PACKAGE = pathlib.Path(tf_gradcam.__file__).parent
PAGES = doc_pages.every_page()
BESIDE_DOCS = ["../CHANGELOG.md", "../CONTRIBUTING.md", "../SECURITY.md"]  # docs/hooks.py makes pages of them
RECIPES = [page for page in PAGES if page.startswith("recipes/") and page != "recipes/README.md"]
PASTED = ["README.md", "index.md"]  # in a process of their own
ELSEWHERE = {  # these need a server, or stand-ins for one
    "ray.md": "test_ray.py",
    "serving.md": "export/test_protocol.py",
    "training.md": "callbacks/test_training_page.py",
}
REAL = ["heatmaps.md", "pictures.md"]  # they say what the real network answers
SLOW = [*RECIPES, "methods.md"]
# They train a network for 10 seconds to a minute. tests/targets and tests/formats have what they show.
TRAINING = ["defects", "detection", "land_cover", "segmentation", "video", "volume"]
FULL = [f"recipes/{name}.md" for name in TRAINING]
SMALLEST, LARGEST = 200, 1400  # pixels along a side of a recipe's picture

av = pytest.importorskip("av", reason="PyAV is not installed")
rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")


def network(shape, classes=2, **options):
    """Return a network whose convolution is called `conv5`."""
    keras.utils.set_random_seed(0)
    flat = len(shape) == 3
    conv = keras.layers.Conv2D if flat else keras.layers.Conv3D
    pool = keras.layers.GlobalAveragePooling2D if flat else keras.layers.GlobalAveragePooling3D
    head = keras.layers.Dense(classes, activation="softmax")
    inside = [conv(4, 3, strides=4, padding="same", name="conv5", **options), pool(), head]
    return keras.Sequential([keras.Input(shape), *inside])


def write_clip(path, count=5):
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(count):
            frame = np.full((48, 64, 3), 40 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode(None))


def write_scene(path):
    profile = {"driver": "GTiff", "count": 4, "height": 40, "width": 48, "dtype": "uint16"}
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)}
    with rasterio.open(path, "w", photometric="minisblack", **profile, **place) as file:
        file.write(np.random.default_rng(0).integers(0, 3000, (4, 40, 48)).astype("uint16"))


def write_photograph(path, side=SIDE):
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype="uint8")
    cv2.imwrite(path, pixels)


# What a page's reader has before its first line, where that is more than the packages


def given_a_photograph_and_a_model():
    write_photograph("cat.jpg")
    image = np.random.default_rng(0).random((SIDE, SIDE, 3))
    return {"model": build("functional"), "image": image}


def given_a_ct():
    shutil.copy(shipped("CT_small.dcm"), "ct.dcm")
    return {"model": network((128, 128, 1)), "preprocess": lambda images: images / 1000}


def given_a_clip():
    write_clip("clip.mp4")
    return {}


def given_scans_of_12_bits():
    write_photograph("patient.png")
    cv2.imwrite("scan.tif", np.random.default_rng(0).integers(-1000, 1000, (8, 9)).astype("float32"))
    return {"load_image": tf_gradcam.load_image}


def given_nested_layers():
    images, inner_images = keras.Input((32, 32, 3)), keras.Input((32, 32, 4))
    last = keras.layers.Conv2D(5, 3, strides=8, padding="same", name="conv5_block3_out")
    inner = keras.Model(inner_images, last(inner_images), name="resnet")
    first = keras.layers.Conv2D(4, 3, padding="same", name="block5_conv3")
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
    model = keras.Model(images, chain(images, [first, inner, *head]))
    return {"model": model, "images": np.random.default_rng(0).random((3, 32, 32, 3))}


def given_all_models_of_the_methods():
    keras.utils.set_random_seed(0)
    images, waveform = keras.Input((16, 16, 3)), keras.Input((20, 1))
    steps = [keras.layers.Conv2D(4, 3, activation="relu", name=f"block{n}") for n in (3, 5, 7)]
    steps += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
    by_wave = chain(waveform, [keras.layers.Flatten(), keras.layers.Dense(2)])
    before, after = keras.Input((8, 8, 3), name="before"), keras.Input((8, 8, 3), name="after")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Subtract()([before, after]))
    patches = keras.layers.Reshape((16, 4))(keras.layers.Conv2D(4, 4, strides=4)(images))
    tokens = patches + keras.layers.MultiHeadAttention(2, 2)(patches, patches)
    scores = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(tokens))
    random = np.random.default_rng(0)
    batch = random.random((2, 16, 16, 3))
    write_photograph("cat.jpg", 16)
    return {
        "model": keras.Model(images, chain(images, steps)),
        "images": batch,
        "image": batch[0],
        "vit": keras.Model(images, scores),
        "wave_model": keras.Model(waveform, by_wave),
        "waveforms": random.random((2, 20, 1)),
        "two_images": keras.Model([before, after], keras.layers.Dense(2)(pooled)),
        "before": random.random((2, 8, 8, 3)),
        "after": random.random((2, 8, 8, 3)),
        "GradCAM": tf_gradcam.GradCAM,
        "dataclasses": dataclasses,
    }


def given_ten_classes():
    cam = tf_gradcam.GradCAM(network((17, 17, 3), classes=10))
    images = np.random.default_rng(0).random((3, 17, 17, 3))
    return {"cam": cam, "images": images, "image": images[0]}


def given_a_model_to_trust():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (4, SIDE, SIDE, 3), dtype="uint8")
    masks = np.zeros((4, SIDE, SIDE), bool)
    masks[:, 4:9, 5:12] = True
    model = build("functional")

    def built():
        other = build("functional")
        other.compile(loss="sparse_categorical_crossentropy")
        return other

    names = {
        "model": model,
        "preprocess": preprocess,
        "photographs": images,
        "images": images,
        "masks": masks,
    }
    names |= {"dataset": [(images[:2], masks[:2]), (images[2:], masks[2:])], "build": built}
    names |= {"other_training": [weight + 1 for weight in model.get_weights()]}
    return names | {"labels": random.integers(0, 5, 4), "test_images": images}


GIVEN = {
    "boxes.md": given_a_photograph_and_a_model,
    "fields.md": given_a_ct,
    "fields/video.md": given_a_clip,
    "files.md": given_scans_of_12_bits,
    "layers.md": given_nested_layers,
    "load.md": given_a_photograph_and_a_model,
    "methods.md": given_all_models_of_the_methods,
    "targets.md": given_ten_classes,
    "trust.md": given_a_model_to_trust,
}


# What is there after a page's last line, beside what it asserts and says that it prints


def boxes_were_found(names):
    assert names["mask"].shape == (SIDE, SIDE)
    assert names["overlaps"].shape == (1, 1)
    assert set(names["rows"][0]) == {"image_id", "category_id", "bbox", "area", "score"}


def rows_were_written_in_other_forms(names):
    assert names["signed"].shape == (6, 30, 30)
    assert pathlib.Path("rows.csv").is_file()
    assert len(list(pathlib.Path("rows-pictures").rglob("*.jpg"))) == 6


def a_parametric_map_was_written(names):
    assert names["scan"].windows == ((450, 790), (200, 443))
    assert {path.name for path in pathlib.Path().iterdir()} == {"heatmap.dcm", "picture.dcm"}


def both_layers_were_explained(names):
    assert [each.shape for each in names["explanation"].map] == [(3, 32, 32), (3, 4, 4)]


def every_method_explains(names):
    assert names["heatmaps"].shape == (2, 16, 16)
    assert names["explanation"].map.shape == (2, 10, 10)
    assert names["found"].heatmaps.shape == (2, 4, 16, 16)
    (made,) = [code for code in doc_pages.blocks("methods.md", "python") if "methods.augment" in code]
    for line in made.splitlines()[2:]:
        assert eval(line.partition("  #")[0], names)(names["images"]).heatmap.shape == (2, 16, 16)


def a_heatmap_has_the_size_of_its_image(names):
    assert names["heatmap"].shape == (64, 64)
    assert names["picture"].shape == (300, 451, 3)
    assert names["explanation"].map.shape == (2, 15, 15)
    assert names["heatmaps"].shape == (2, 64, 64)


def a_file_explains(names):
    np.testing.assert_allclose(
        names["explanation"].heatmap, tf_gradcam.GradCAM(names["model"])(names["image"]).heatmap, atol=1e-5
    )
    assert names["picture"].shape == (SIDE, SIDE, 3)


def copies_agree_without_dropout(names):
    assert names["mean"].shape == names["deviation"].shape == (5, 5)
    np.testing.assert_allclose(names["deviation"], 0, atol=1e-6)


AFTER = {
    "boxes.md": boxes_were_found,
    "datasets.md": rows_were_written_in_other_forms,
    "fields/dicom.md": a_parametric_map_was_written,
    "layers.md": both_layers_were_explained,
    "load.md": a_file_explains,
    "methods.md": every_method_explains,
    "start.md": a_heatmap_has_the_size_of_its_image,
    "targets.md": copies_agree_without_dropout,
}


# Code


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr("tf_gradcam._run.model_files.SAFE_KERAS", (3, 0))
    matplotlib.use("Agg")
    yield
    pyplot.close("all")


def marks(page):
    return [pytest.mark.full] if page in FULL else [pytest.mark.slow] if page in SLOW else []


def pages_with_code():
    pages = [page for page in PAGES if doc_pages.blocks(page, "python") and page not in PASTED]
    return [pytest.param(page, marks=marks(page)) for page in pages if page not in ELSEWHERE]


def assert_printed(code, out):
    """Assert that a line was printed as the comment beside its `print` says."""
    for said in re.findall(r"print\(.*\)  # ((?:\w+\(|\[).*)", code):
        start, _, _ = said.replace("PosixPath", type(pathlib.Path()).__name__).partition("...")
        assert any(line.startswith(start) for line in out.splitlines()), (said, out)


@pytest.mark.parametrize("page", pages_with_code())
@pytest.mark.filterwarnings("ignore:Blank heatmap")  # Some models are untrained.
def test_the_python_of_a_page_runs_from_top_to_bottom(page, monkeypatch, capsys, request):
    if page == "fields/slides.md":
        pytest.importorskip("openslide", reason="OpenSlide is not installed")
    if not page.startswith("recipes/"):  # these are as the reader runs them
        known = request.getfixturevalue("lite0") if page in REAL else network((224, 224, 3), classes=1000)
        monkeypatch.setattr(pretrained, "efficientnet_lite0", lambda: known)
    names = {"__name__": page, "keras": keras, "np": np, "tf": tf, "tf_gradcam": tf_gradcam}
    names |= GIVEN.get(page, dict)()
    code = "\n".join(doc_pages.blocks(page, "python"))
    exec(compile(code, page, "exec"), names)
    assert_printed(code, capsys.readouterr().out)
    AFTER.get(page, lambda names: None)(names)
    for picture in doc_pages.pictures(page):
        shown = (doc_pages.DOCS / page).parent / picture
        if page in RECIPES or pathlib.Path(picture).exists():
            written = tf_gradcam.load_image(picture)
            assert written.shape == tf_gradcam.load_image(shown).shape
            assert written.std() > 10  # not one colour


@pytest.mark.slow
def test_the_first_lines_run_as_pasted_in_a_fresh_process():
    (code,) = doc_pages.blocks("README.md", "python")
    assert doc_pages.blocks("index.md", "python") == [code]
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert tf_gradcam.load_image("cat.png").std() > 10


@pytest.mark.parametrize(("page", "module"), ELSEWHERE.items())
def test_the_code_of_other_pages_has_a_test_elsewhere(page, module):
    text = (doc_pages.ROOT / "tests" / module).read_text(encoding="utf-8")
    assert f'doc_pages.blocks("{page}"' in text


# Commands


def commands(page):
    """Return the commands of a page's shell blocks, each as its words."""
    code = "".join(doc_pages.blocks(page, "sh", "bash")).replace("\\\n", " ")
    lines = [line for line in code.splitlines() if line.startswith(("tf-gradcam ", "make "))]
    return [shlex.split(line, comments=True) for line in lines]


def test_every_command_of_a_page_is_understood():
    found = [words for page in PAGES for program, *words in commands(page) if program == "tf-gradcam"]
    assert len(found) > 20
    for words in found:
        make_parser().parse_args(words)  # exits where it does not understand


def test_every_target_of_make_that_a_page_names_exists():
    makefile = (doc_pages.ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for page in PAGES:
        named = {words[1] for words in commands(page) if words[0] == "make"}
        assert named | set(re.findall(r"`make ([a-z-]+)", doc_pages.read(page))) <= targets, page


def test_every_extra_that_a_page_installs_exists():
    project = tomllib.loads((doc_pages.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for page in PAGES:
        named = ",".join(re.findall(r"tf_gradcam\[([a-z,]+)\]", doc_pages.read(page)))
        assert set(filter(None, named.split(","))) <= set(project["optional-dependencies"]), page


def test_the_commands_of_the_page_of_all_fields_run():
    shutil.copy(shipped("CT_small.dcm"), "scan.dcm")
    write_clip("clip.mp4")
    write_scene("tile.tif")
    write_scene("scene.tif")
    volume = np.random.default_rng(0).integers(0, 100, (6, 20, 24)).astype("int16")
    nibabel.save(nibabel.Nifti1Image(volume.T, np.eye(4)), "volume.nii.gz")
    save_series(pathlib.Path("series"), volume)
    pathlib.Path("l.txt").write_text("nodule\nnothing\n")
    models = {"m": network((32, 32, 3)), "nodules3d": network((4, 16, 16, 1))}
    for name, model in {**models, "landcover": network((32, 32, 4), classes=5)}.items():
        model.save(f"{name}.keras")
    rows = []
    for program, *arguments in commands("fields.md"):
        assert program == "tf-gradcam"
        assert main(arguments) == 0, arguments
        out = arguments[arguments.index("--out") + 1] if "--out" in arguments else "gradcam"
        rows += read_rows(out)
        shutil.rmtree(out)
    assert [row["file"] for row in rows[4:]] == ["scene.tif", "series/"]
    assert [row["map"].partition(".")[2] for row in rows] == ["dcm", "tif", "npy", "nii.gz", "tif", "dcm"]


# What pages list


def test_the_readme_is_short():
    assert len(doc_pages.read("README.md").encode()) < 7000


@pytest.mark.parametrize("page", [*PAGES, *BESIDE_DOCS])
def test_a_page_begins_with_a_sentence_of_what_it_is_for(page):
    title, first, *rest = re.split(r"\n{2,}", doc_pages.read(page).strip(), maxsplit=2)
    assert re.fullmatch(r"# .+", title)
    assert re.match(r"[A-Z].*\.", first, re.DOTALL)
    assert rest


def test_every_kind_of_model_in_the_table_is_a_test_and_every_test_is_in_the_table():
    table = doc_pages.read("models.md").partition("| your model |")[2].partition("\n\n")[0]
    kinds = re.findall(r"`([^`]+)`", table)
    assert len(set(kinds)) == len(kinds)
    assert set(kinds) == set(zoo.KINDS)


def test_the_table_of_methods_is_that_of_the_module():
    table = doc_pages.read("methods.md").partition("| method | map L |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.split(" | ")] for line in table.splitlines()[2:]]
    written = {
        name.strip("|` "): (cost, signed == "yes", paper) for name, _, paper, _, cost, signed, *_ in rows
    }
    assert written == {name: about[1:] for name, about in methods.METHODS.items()}


def test_every_target_is_in_the_table_of_targets():
    table = doc_pages.read("targets.md").partition("| target | explains |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([A-Z]\w+)\(", table)) == set(tf_gradcam.targets.__all__)


def public_names(module):
    """Yield the full names of what a public module names, and of its public modules."""
    for name in module.__all__:
        value = getattr(module, name)
        if isinstance(value, types.ModuleType):
            yield from public_names(value)
        elif name != "__version__":
            yield f"{module.__name__}.{name}"


def test_every_public_name_is_in_the_reference_once():
    text = "\n".join(doc_pages.read(page) for page in PAGES if page.startswith("reference/"))
    listed = re.findall(r"^::: (.+)$", text, re.MULTILINE)
    assert len(set(listed)) == len(listed)
    public = set(public_names(tf_gradcam)) - {"tf_gradcam.Scene"}  # at home in `methods`
    assert set(listed) == public


def messages():
    """Return what the package's code says in strings, with `…` for what it puts in."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.add("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def test_every_message_that_troubleshooting_quotes_is_in_the_code():
    quoted = re.findall(r"^> (.+)$", doc_pages.read("troubleshooting.md"), re.MULTILINE)
    assert len(quoted) > 95
    assert len(set(quoted)) == len(quoted)
    said = messages()
    missing = []
    for quote in quoted:
        pattern = re.compile(".*?".join(re.escape(part.strip()) for part in quote.split("…")), re.DOTALL)
        if not any(pattern.match(each) for each in said):
            missing.append(quote)
    assert missing == []


def test_what_the_readme_calls_is_found_in_the_package_by_that_name():
    text = (doc_pages.DOCS.parent / "README.md").read_text("utf-8")
    rows = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    calls = re.findall(r"(?<![\w.])([A-Za-z_][\w.]*)\(", " ".join(re.findall(r"`([^`]+)`", rows)))
    names = {name for name in calls if name.partition(".")[0] != "cam"}
    assert {"GradCAM", "callbacks.GradCAMCallback", "explain_dataset"} <= names
    for name in names:
        operator.attrgetter(name)(tf_gradcam)


# Recipes


def test_there_is_a_recipe_for_each_field():
    made_up = ["defects", "detection", "land_cover", "segmentation", "video", "volume"]
    real = ["brain", "camera", "ct", "inspection", "road", "scene"]
    assert [pathlib.Path(page).stem for page in RECIPES] == sorted([*made_up, *real])


@pytest.mark.parametrize("page", RECIPES)
def test_a_recipe_is_in_the_index_and_has_a_picture_and_checks_what_it_says(page):
    index = doc_pages.read("recipes/README.md")
    shown = doc_pages.pictures(page)
    assert f"]({pathlib.Path(page).name}): " in index
    assert f'src="{shown[0]}"' in index
    for picture in shown:
        path = (doc_pages.DOCS / page).parent / picture
        assert path.stat().st_size <= 200_000
        sides = tf_gradcam.load_image(path).shape[:2]
        assert min(sides) >= SMALLEST
        assert max(sides) <= LARGEST
    assert re.search(r"^assert ", "\n".join(doc_pages.blocks(page, "python")), re.MULTILINE)
