"""Which way imports go, what is public, what pages and packaging files say, what is in the wheel."""

import ast
import configparser
import functools
import importlib
import importlib.metadata
import itertools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import types
import zipfile

import jedi
import pytest

import tf_gradcam

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "tf_gradcam"
# The floors, from the ground up. An import goes to a lower floor, or stays in its package.
FLOORS = [
    {"_arrays", "_checks", "_ending", "_optional", "_tensors"},
    {"_files"},
    {"formats"},
    {"_images", "pretrained"},
    {"_explanation", "_freezing", "_graph", "_targets", "serving"},
    {"_heatmap", "_model", "targets"},
    {"_layers", "_runtimes"},
    {"_methods", "_submodel"},
    {"_signed_maps", "methods", "metrics"},
    {"_explain", "_registration"},
    {"_concepts", "_export", "_run", "callbacks"},
    {"_dataset", "_evaluation", "_report"},
    {"_ray"},
    {"ray"},
    {"__init__"},
    {"_cli"},
    {"__main__"},
]
PUBLIC_FACES = {"methods": "_methods", "targets": "_targets"}
FLOOR_OF = {package: floor for floor, packages in enumerate(FLOORS) for package in packages}
PACKAGES = sorted(FLOOR_OF)
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
WITHOUT_TENSORFLOW = {
    "_arrays",
    "_checks",
    "_ending",
    "_explanation",
    "_files",
    "_images",
    "_optional",
    "_report",
    "formats",
    "serving",
}


def imports(tree):
    """Yield `(package of ours, the rest of the dotted path)` for each import.

    What comes through the front door is of the package that it is at home in.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "Imports are absolute."
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for top, package, *rest in (f"{name}.".split(".") for name in names):
            if top == "tf_gradcam" and package in FLOOR_OF:
                yield package, ".".join(rest).strip(".")
            elif top == "tf_gradcam":  # through the front door
                yield tf_gradcam._HOMES.get(package, "__init__"), package


def public_names(tree):
    """Return what the `__all__` of a module names."""
    (names,) = (
        node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
    )
    return ast.literal_eval(names)


@functools.cache
def parse(module):
    return ast.parse((PACKAGE / module).read_text(encoding="utf-8"))


def package_of(module):
    return module.parts[0].removesuffix(".py")


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
    ("line", "found"),
    [
        ("import tf_gradcam", ("__init__", "")),
        ("import tf_gradcam._explain.cam as c", ("_explain", "cam")),
        ("from tf_gradcam import _explain", ("_explain", "")),
        ("from tf_gradcam import GradCAM", ("_explain", "GradCAM")),
        ("from tf_gradcam import __version__", ("__init__", "__version__")),
        ("from tf_gradcam._explain import GradCAM", ("_explain", "GradCAM")),
        ("from tf_gradcam._explain.cam import GradCAM", ("_explain", "cam.GradCAM")),
        ("def late():\n    from tf_gradcam import _explain", ("_explain", "")),
    ],
)
def test_every_spelling_of_an_import_is_seen(line, found):
    assert list(imports(ast.parse(line))) == [found]


def test_every_package_has_a_floor():
    assert {package_of(module) for module in MODULES} == set(PACKAGES)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_go_down(module):
    own = package_of(module)
    for package, name in imports(parse(module)):
        assert package == own or name == "__version__" or FLOOR_OF[package] < FLOOR_OF[own]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_package_is_entered_by_what_its_face_names(module):
    for package, name in imports(parse(module)):
        face = PACKAGE / package / "__init__.py"
        own = {package_of(module), PUBLIC_FACES.get(package_of(module))}
        if package not in own and face.exists():
            whole = name == "" and not package.startswith("_")
            assert whole or name in public_names(ast.parse(face.read_text(encoding="utf-8"))), package


@pytest.mark.parametrize("module", [m for m in MODULES if package_of(m) in WITHOUT_TENSORFLOW], ids=str)
def test_pictures_and_the_client_of_a_server_need_no_tensorflow(module):
    for node in ast.walk(parse(module)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        assert {name.partition(".")[0] for name in names}.isdisjoint({"tensorflow", "keras"})


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_what_begins_with_an_underscore_stays_in_its_module(module):
    names = [name.rpartition(".")[2] for _, name in imports(parse(module))]
    assert [name for name in names if name.startswith("_") and name != "__version__"] == []


def command_line_modules():
    """Return the modules of `_cli` that `tf-gradcam --help` loads."""
    loaded = python(
        "-c",
        "import sys, tf_gradcam._cli; print(*(name for name in sys.modules if '._cli.' in name))",
    )
    return [f"_cli/{name.rpartition('.')[2]}.py" for name in loaded.split()]


def test_the_command_line_imports_the_others_only_when_it_needs_them():
    modules = command_line_modules()
    assert "_cli/main.py" in modules
    assert "_cli/classifier.py" not in modules  # It imports Keras.
    for module in modules:
        at_the_top = [node for node in parse(module).body if isinstance(node, ast.Import | ast.ImportFrom)]
        # `_checks` and `_ending` import nothing but the standard library.
        allowed = {"__init__", "_cli", "_checks", "_ending"}
        assert {package for package, _ in imports(ast.Module(at_the_top))} <= allowed


# Sizes


def test_no_module_outgrows_its_room():
    lengths = {module: len((PACKAGE / module).read_text(encoding="utf-8").splitlines()) for module in MODULES}
    assert {module: length for module, length in lengths.items() if length >= 450} == {}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_no_function_has_more_than_40_lines_of_code(module):
    lines = (PACKAGE / module).read_text(encoding="utf-8").splitlines()
    for function in ast.walk(parse(module)):
        if isinstance(function, ast.FunctionDef):
            body = function.body[1:] if ast.get_docstring(function) else function.body
            first = body[0].lineno - 1 if body else function.end_lineno
            code = [line.strip() for line in lines[first : function.end_lineno]]
            code = [line for line in code if line and not line.startswith("#")]
            assert len(code) <= 40, function.name


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
    with pytest.raises(AttributeError, match="'GradCam'. Did you mean 'GradCAM'"):
        _ = tf_gradcam.GradCam


@pytest.mark.parametrize(
    ("module", "public"),
    [
        ("tf_gradcam", set(tf_gradcam.__all__) - {"__version__"}),
        *((f"tf_gradcam.{name}", None) for name in tf_gradcam._MODULES),
    ],
)
def test_an_editor_completes_the_public_names_and_no_others(module, public):
    if public is None:
        public = set(importlib.import_module(module).__all__)
    code = f"import {module}\n{module}."
    script = jedi.Script(code, project=jedi.Project(ROOT))
    found = {each.name for each in script.complete(2, len(module) + 1)}
    assert {name for name in found if not name.startswith("_")} == public


@pytest.mark.parametrize("module", sorted(tf_gradcam._MODULES))
def test_what_a_public_package_names_is_there_and_sorted(module):
    found = importlib.import_module(f"tf_gradcam.{module}")
    assert len(set(found.__all__)) == len(found.__all__)
    assert [name for name in found.__all__ if not hasattr(found, name)] == []


def test_there_is_one_version():
    (version,) = (
        ast.literal_eval(node.value)
        for node in parse("__init__.py").body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__version__"
    )
    assert version == tf_gradcam.__version__ == importlib.metadata.version("tf_gradcam")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    unreleased, *released = re.findall(r"^## \[(.+?)\](.*)$", changelog, re.MULTILINE)
    assert unreleased == ("Unreleased", "")
    assert not released or released[0][0] == version  # Before the first release there is none.
    assert all(re.fullmatch(r" - \d{4}-\d{2}-\d{2}", date) for _, date in released)


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


# Packaging files and pages


def test_no_key_is_in_both_pyproject_toml_and_setup_cfg():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert {section: list(setup[section]) for section in setup.sections()} == {
        "metadata": ["version"],
        "options": ["packages"],
        "options.packages.find": ["include"],
        "options.package_data": ["tf_gradcam", "tf_gradcam._report", "tf_gradcam.pretrained"],
    }
    assert pyproject["project"]["dynamic"] == ["version"]
    assert "version" not in pyproject["project"]
    assert "setuptools" not in pyproject["tool"]


def test_the_lower_bounds_are_the_versions_that_are_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    included = re.findall(r"[a-z]+", extras["test"][0].removeprefix("tf_gradcam"))
    assert set(extras) - set(included) == {
        "concepts",
        "docs",
        "hub",
        "lint",
        "litert-precision",
        "ray",
        "test",
    }
    bounds = set(itertools.chain(project["dependencies"], *(extras[name] for name in included)))
    lines = (ROOT / "tests" / "minimum.txt").read_text(encoding="utf-8").splitlines()
    tested = [line for line in lines if not line.startswith("#")]
    assert sorted(tested) == sorted(bound.replace(">=", "==") for bound in bounds)


def test_pre_commit_runs_the_ruff_of_the_extra_lint():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (ruff,) = (line for line in project["optional-dependencies"]["lint"] if line.startswith("ruff"))
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"additional_dependencies: (.*)", hooks)) == {f'["{ruff}"]'}


def test_contributing_shows_every_package():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert [package for package in PACKAGES if f"`{package}`" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_file_that_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:[\w.]+/)+[\w-]+\.(?:cc|ipynb|md|py|toml|txt|yml))`", text)
    linked = re.findall(r"\]\(([\w./-]+)\)", text)
    tests = [f"{name}.py" for name in re.findall(r"`(test_\w+)`", text)]
    missing = [
        *(name for name in named if not (ROOT / name).exists() and not (PACKAGE / name).exists()),
        *(name for name in linked if not (page.parent / name).exists()),
        *(name for name in tests if not list((ROOT / "tests").rglob(name))),
    ]
    assert missing == []


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
    package = {f"tf_gradcam/{module.as_posix()}" for module in MODULES}
    package |= {"tf_gradcam/py.typed", "tf_gradcam/pretrained/imagenet_labels.txt"}
    package |= {f"tf_gradcam/_report/{name}" for name in ("controls.html", "page.css", "page.js")}
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
    python("-m", "pytest", "-p", "no:cacheprovider", "tests/methods/test_formulas.py", **out_of_sight)
