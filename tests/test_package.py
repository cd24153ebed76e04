"""The house: which way the imports point, what is public, what is installed, and what is in the wheel."""

import ast
import configparser
import importlib.metadata
import itertools
import os
import pathlib
import shutil
import subprocess
import sys
import tomllib
import types
import zipfile

import pytest

import tf_gradcam

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "tf_gradcam"
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))

# What each module may import of ours.
ARROWS = {
    "__init__": set(),
    "formulas": set(),
    "loops": set(),
    "parameters": set(),
    "targets": set(),
    "target_rows": {"parameters", "targets"},
    "inputs": set(),
    "forward": {"inputs"},
    "maps": {"inputs"},
    "layers": {"forward", "inputs", "maps"},
    "choice": {"forward", "inputs", "layers"},
    "submodel": {"choice", "forward", "layers"},
    "scene": {"forward", "maps", "target_rows", "targets"},
    "composition": {"formulas", "loops", "parameters", "scene"},
    "scoring": {"formulas", "forward", "parameters"},
    "perturbation": {"forward", "loops", "maps", "parameters"},
    "saliency": {"formulas", "forward", "loops", "maps", "parameters"},
    "methods": {"composition", "formulas", "perturbation", "saliency", "scoring"},
    "image": set(),
    "checkpoint": set(),
    "pretrained": {"checkpoint"},
    "visualize": {"image"},
    "serving": {"image", "parameters", "visualize"},
    "gradients": {"formulas", "forward", "inputs", "layers", "maps", "scene", "targets"},
    "frozen": set(),
    "cam": {"choice", "forward", "frozen", "gradients", "inputs", "layers", "maps", "methods", "scene"}
    | {"target_rows", "targets"},
    "factorization": {"choice", "forward", "gradients", "inputs", "layers", "maps", "parameters", "targets"},
    "encoded": {"image", "visualize"},
    "plain": {"forward"},
    "convert": {"cam", "choice", "frozen", "layers", "plain"},
    "export": {"__init__", "cam", "convert", "encoded", "frozen", "inputs", "layers", "methods", "parameters"}
    | {"scene", "targets"},
    "classifier": {"pretrained"},
    "cli": {*MODULES} - {"__main__", "cli"},
    "__main__": {"cli"},
}


def arrows(tree):
    """Yield each module of ours that `tree` imports; a name that is no module comes from `__init__`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            home = ".".join(filter(None, ["tf_gradcam" if node.level else "", node.module]))
            names = [f"{home}.{alias.name}" for alias in node.names]
        else:
            continue
        for package, name, *_ in (f"{name}.__init__".split(".") for name in names):
            if package == "tf_gradcam":
                yield name if name in MODULES else "__init__"


def parse(module):
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def python(*arguments, cwd=ROOT, **environment):
    """Run Python in a process of its own and return what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# Imports


@pytest.mark.parametrize(
    ("line", "module"),
    [
        ("import tf_gradcam", "__init__"),
        ("import tf_gradcam.cam as c", "cam"),
        ("from tf_gradcam import cam", "cam"),
        ("from tf_gradcam import GradCAM", "__init__"),
        ("from tf_gradcam.cam import GradCAM", "cam"),
        ("from . import cam", "cam"),
        ("from .cam import GradCAM", "cam"),
        ("def late():\n    from tf_gradcam import cam", "cam"),
    ],
)
def test_every_spelling_of_an_import_is_an_arrow(line, module):
    assert list(arrows(ast.parse(line))) == [module]


def test_every_module_is_in_the_table():
    assert sorted(ARROWS) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_no_arrow_points_the_wrong_way(module):
    assert set(arrows(parse(module))) <= ARROWS[module]


def test_the_command_line_imports_the_others_only_when_it_needs_them():
    at_the_top = [node for node in parse("cli").body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert set(arrows(ast.Module(at_the_top))) <= {"__init__"}


# The front door


def test_every_public_name_is_there_and_documented():
    assert len(set(tf_gradcam.__all__)) == len(tf_gradcam.__all__)
    for name in tf_gradcam.__all__:
        assert getattr(tf_gradcam, name).__doc__


def test_nothing_else_is_public():
    public = {
        name
        for name, value in vars(tf_gradcam).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public <= set(tf_gradcam.__all__) == set(dir(tf_gradcam))
    with pytest.raises(AttributeError, match="'GradCam'"):
        _ = tf_gradcam.GradCam


def test_there_is_one_version():
    (version,) = (
        ast.literal_eval(node.value)
        for node in parse("__init__").body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__version__"
    )
    assert version == tf_gradcam.__version__ == importlib.metadata.version("tf_gradcam")
    assert f"\n## [{version}] - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_importing_it_loads_nothing_but_the_standard_library():
    loaded = python(
        "-c",
        "import sys; before = set(sys.modules); import tf_gradcam; print(*set(sys.modules) - before)",
    )
    packages = {name.partition(".")[0] for name in loaded.split()}
    assert packages - sys.stdlib_module_names == {"tf_gradcam"}


@pytest.mark.slow
def test_heatmaps_need_neither_opencv_nor_matplotlib():
    # Keras imports both when they are there.
    shape = python(
        "-c",
        "import sys\n"
        "sys.modules.update(cv2=None, matplotlib=None)\n"
        "import keras, numpy, tf_gradcam\n"
        "layers = [keras.layers.Conv2D(2, 3), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]\n"
        "model = keras.Sequential([keras.Input((8, 9, 3)), *layers])\n"
        "print(tf_gradcam.make_gradcam_heatmap(model, numpy.ones((8, 9, 3))).shape)\n",
    )
    assert shape == "(8, 9)\n"


# The papers


def test_no_key_is_in_both_pyproject_toml_and_setup_cfg():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert {section: list(setup[section]) for section in setup.sections()} == {
        "metadata": ["version"],
        "options": ["packages"],
        "options.package_data": ["tf_gradcam"],
    }
    assert pyproject["project"]["dynamic"] == ["version"]
    assert "version" not in pyproject["project"]
    assert "setuptools" not in pyproject["tool"]


def test_the_lower_bounds_are_the_versions_that_are_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [project["optional-dependencies"][name] for name in ("demo", "litert", "onnx", "openvino")]
    bounds = itertools.chain(project["dependencies"], *extras)
    lines = (ROOT / "tests" / "minimum.txt").read_text(encoding="utf-8").splitlines()
    tested = [line for line in lines if not line.startswith("#")]
    assert sorted(tested) == sorted(bound.replace(">=", "==") for bound in bounds)


def test_contributing_shows_every_module_on_one_page():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert len(page.splitlines()) < 60
    assert [module for module in MODULES if f"`{module}`" not in page] == []


def test_every_module_has_its_tests():
    elsewhere = {"__init__": "package", "__main__": "cli"}
    homes = [ROOT / "tests" / f"test_{elsewhere.get(module, module)}.py" for module in MODULES]
    assert [home.name for home in homes if not home.exists()] == []


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel from a copy: what an earlier build left beside the sources would get into it."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(PACKAGE, folder / "tf_gradcam", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    python("-m", "build", "--wheel", "--outdir", "dist", cwd=folder)
    shutil.rmtree(folder / "tf_gradcam")
    (path,) = (folder / "dist").iterdir()
    return path


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    package = {f"tf_gradcam/{module}.py" for module in MODULES} | {"tf_gradcam/imagenet_labels.txt"}
    about = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt"}
    about = {f"tf_gradcam-{tf_gradcam.__version__}.dist-info/{name}" for name in about}
    assert set(zipfile.ZipFile(wheel).namelist()) == package | about


@pytest.mark.slow
def test_the_wheel_works_with_the_sources_out_of_sight(wheel, tmp_path):
    site = tmp_path / "site"
    python("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel))
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    out_of_sight = {"cwd": tmp_path, "PYTHONPATH": str(site)}
    where = python("-c", "import tf_gradcam; print(tf_gradcam.__file__)", **out_of_sight)
    assert where.strip() == str(site / "tf_gradcam" / "__init__.py")
    python("-m", "tf_gradcam", "--help", **out_of_sight)
    python("-m", "pytest", "-p", "no:cacheprovider", "tests/test_formulas.py", **out_of_sight)
