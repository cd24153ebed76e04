"""`write_report`: what the page says, that it is escaped and bounded, and what is refused."""

import base64
import hashlib
import html.parser
import json
import pathlib
import re

import cv2
import numpy as np
import pytest
from photo_files import head
from report_rows import MANIFEST, read, write_picture, write_run

import tf_gradcam
from tf_gradcam._cli import main
from tf_gradcam.metrics._tables import record
from tf_gradcam.metrics._trust import Check

LABELS = ["ant", "bee", "cat"]
HOSTILE = '<img src=x onerror="window.hacked=1">\'&</script>\x1b'


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


class Page(html.parser.HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.text, self._open = [], "", []
        self.source = pathlib.Path(path).read_text(encoding="utf-8")
        self.feed(self.source)
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), tag
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "input", "br", "rect"):
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag != "rect":
            assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open[-1:] not in (["style"], ["script"]):
            self.text += data

    def all(self, tag, **wanted):
        found = [attributes for name, attributes in self.elements if name == tag]
        return [each for each in found if all(each.get(key) == value for key, value in wanted.items())]


def cards(page):
    return [each for each in page.all("article") if each["class"] != "card"]


def decoded(canvas, suffix=""):
    """Return the map in the attributes of a canvas."""
    grid = tuple(map(int, canvas["data-grid"].split(",")))
    cells = np.frombuffer(base64.b64decode(canvas[f"data-map{suffix}"]), np.uint8).reshape(grid)
    return cells / 255 * float(canvas[f"data-peak{suffix}"])


def some_run(folder="rows", **asked):
    """Write a run of three images and an error; return their maps."""
    maps = np.random.default_rng(0).normal(size=(3, 3, 4)) * np.array([1, 5, 0.1])[:, None, None]
    outputs = [[0.9, 0.1, 0], [0.2, 0.3, 0.5], [0.1, 0.7, 0.2]]
    items = [
        read("sure.png", write_picture("sure.png", color=(40, 90, 200))),
        read("other.png", write_picture("other.png", seed=1)),
        read("gone.png", "gone.png"),
        read("broken.png", error="it is no photograph"),
    ]
    write_run(folder, items, maps, [0, 1, 1], outputs, **asked)
    return maps


def test_a_page_shows_the_doubtful_first_and_says_what_is_missing():
    maps = some_run(labels=LABELS)
    path = tf_gradcam.write_report("rows")
    assert path == pathlib.Path("rows-report.html")
    page = Page(path)
    found = cards(page)
    assert [each["data-state"] for each in found] == ["other", "first", "first", "error"]
    assert [each["data-class"] for each in found] == ["1", "1", "0", ""]
    assert [each["data-probability"] for each in found] == ["0.3", "0.7", "0.9", ""]
    for text in (
        "Heatmaps of tiny",
        "4 images, method gradcam, layer conv",
        "The model's first class is cat.",
        "No photograph. There is no such file any more.",
        "Not explained: it is no photograph",
        "(3 x 4)",
        "What this can't tell",
        "0 to 10 %",
    ):
        assert text in page.text, text
    assert "Trust" not in page.text
    assert "Class against class" not in page.text
    canvases = page.all("canvas")
    evidence = np.maximum(maps, 0)
    for canvas, expected in zip(canvases[:3], evidence[[1, 2, 0]], strict=True):
        np.testing.assert_allclose(decoded(canvas), expected, atol=expected.max() / 400)
    means = [evidence[1:].mean(axis=0), evidence[0]]  # of the classes bee and ant
    for canvas, expected in zip(canvases[3:], means, strict=True):
        np.testing.assert_allclose(decoded(canvas), expected, atol=expected.max() / 400)
    (root,) = page.all("html")
    assert float(root["data-full"]) == pytest.approx(evidence.max())
    photographs = [each for each in page.all("img") if each["alt"].startswith("photograph")]
    assert [each["alt"] for each in photographs] == ["photograph other.png", "photograph sure.png"]
    data = base64.b64decode(photographs[1]["src"].partition(",")[2])
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (30, 40, 3)
    np.testing.assert_allclose(shown.astype(int), cv2.imread("sure.png"), atol=4)


def test_whatever_rows_say_is_text():
    items = [read(HOSTILE, HOSTILE), read("two", error=HOSTILE)]
    manifest = {**MANIFEST, "model": HOSTILE, "method": HOSTILE, "layer": HOSTILE, HOSTILE: HOSTILE}
    write_run("rows", items, np.ones((1, 2, 2)), [1], [[0.9, 0.1]], labels=[HOSTILE] * 2, manifest=manifest)
    evaluation = {
        "method": HOSTILE,
        "layer": HOSTILE,
        "trust": {"checks": [{"check": HOSTILE, "means": HOSTILE}]},
    }
    pathlib.Path("rows/evaluation.json").write_text(json.dumps(evaluation))
    for title in (None, HOSTILE):
        page = Page(tf_gradcam.write_report("rows", title=title))
        assert page.all("img") == []
        assert len(page.all("script")) == 1
        for tag, attributes in page.elements:
            assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        shown = HOSTILE.replace("\x1b", "\\x1b")
        assert page.text.count(shown) >= 12
        assert "\x1b" not in page.source
        assert any(shown in each["aria-label"] for each in page.all("canvas"))


def test_the_policy_lets_only_the_own_script_and_style_work():
    some_run()
    page = Page(tf_gradcam.write_report("rows"))
    (meta,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    policy = dict(part.strip().split(" ", 1) for part in meta["content"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["img-src"] == "data:"
    for tag in ("script", "style"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", page.source, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    for _, attributes in page.elements:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("data:image/jpeg;base64,", "#"))
    assert "http" not in page.source.replace("http-equiv", "")


def test_the_same_rows_give_the_same_bytes_and_a_failure_leaves_the_page(monkeypatch):
    some_run()
    first = tf_gradcam.write_report("rows", "a/one.html").read_bytes()
    assert tf_gradcam.write_report("rows", "two.html").read_bytes() == first
    monkeypatch.chdir("a")
    moved = tf_gradcam.write_report("../rows", "one.html", photos="..").read_bytes()
    assert moved == first
    with pytest.raises(ValueError, match="`most`"):
        tf_gradcam.write_report("../rows", "one.html", most=0)
    assert pathlib.Path("one.html").read_bytes() == first
    assert b"There is no such file" in tf_gradcam.write_report("../rows", "three.html").read_bytes()


def test_a_thousand_images_take_less_than_25_megabytes():
    # Noise is what JPEG compresses worst; the 300 images are measured as a part of 1,000.
    paths = [write_picture(f"{number}.png", (300, 300), seed=number) for number in range(5)]
    items = [read(f"{number} {'x' * 5000}", paths[number % 5]) for number in range(300)]
    maps = np.random.default_rng(0).normal(size=(300, 56, 56))
    write_run("rows", items, maps, [0] * 300, [[0.1, 0.9]] * 300, labels=["<" * 5000, "b" * 5000])
    path = tf_gradcam.write_report("rows")
    page = Page(path)
    assert len(page.all("img")) == 300
    assert path.stat().st_size < 25e6 * 0.3
    assert {each["data-grid"] for each in page.all("canvas")} == {"40,40"}


def test_of_many_images_the_doubtful_are_kept_and_all_are_counted():
    rng = np.random.default_rng(0)
    shares = rng.permutation(np.linspace(0.5, 1, 700))
    shares[13] = 0.999  # It is sure, but explained for another class.
    classes = [1 if number == 13 else 0 for number in range(700)]
    outputs = np.stack([shares, 1 - shares], axis=1)
    items = [read(f"{number:03}") for number in range(700)]
    write_run("rows", items, rng.random((700, 2, 2)), classes, outputs, part=200)
    page = Page(tf_gradcam.write_report("rows", most=3))
    names = re.findall(r'<h3 title="(\d+)"', page.source)
    doubtful = [f"{number:03}" for number in np.argsort(shares)[:2]]
    assert names == ["013", *doubtful]
    assert "3 images that need a look first; 697 are left out" in page.text
    assert "mean of 699 images" in page.text
    assert sum(map(int, re.findall(r"</svg></td><td>(\d+)</td>", page.source))) == 700


def test_many_errors_are_counted():
    write_run("rows", [read("a"), *(read(f"e{n}", error="broken") for n in range(130))], np.ones((1, 2, 2)))
    page = Page(tf_gradcam.write_report("rows"))
    assert [each["data-state"] for each in cards(page)].count("error") == 100
    assert "Of the errors, the first 100 are shown." in page.text


@pytest.mark.parametrize("classes", [None, [2]])
def test_without_labels_and_probability_a_single_blank_image_is_shown(classes):
    write_run("rows", [read("only")], -np.ones((1, 2, 2)), classes)
    page = Page(tf_gradcam.write_report("rows"))
    assert "maximum blank" in page.text
    assert ("class 2" if classes else "no class") in page.text
    assert "The data set was of arrays" in page.text
    assert ("Mean heatmap" in page.text) == bool(classes)
    (probability,) = (each for each in page.all("label") if "hidden" in each)
    assert probability["class"] == "field"
    assert not decoded(page.all("canvas")[0]).any()


def test_a_folder_is_no_file_to_write_to(capsys):
    write_run("rows", [read("only")], np.ones((1, 2, 2)))
    pathlib.Path("pages").mkdir()
    for out in ("pages", "rows", "."):
        assert main(["report", "rows", "--out", out]) == 2
        said = f"`--out` must be the file to write. Received: '{out}', which is a folder. Name a file in it: "
        assert said + repr(str(pathlib.Path(out, "rows-report.html"))) in capsys.readouterr().err
    pathlib.Path("file").touch()
    assert main(["report", "rows", "--out", "file/below/page.html"]) == 2
    assert "`--out` must be a file in a folder" in capsys.readouterr().err
    assert main(["report", "rows", "--out", "new/below/page.html"]) == 0


def test_a_run_of_errors_alone_is_a_page():
    write_run("rows", [read("a", error="broken")], np.ones((0, 2, 2)))
    page = Page(tf_gradcam.write_report("rows"))
    assert [each["data-state"] for each in cards(page)] == ["error"]


def test_files_of_more_than_8_bits_and_changed_ones_are_shown():
    rng = np.random.default_rng(0)
    cv2.imwrite("deep.png", rng.integers(0, 4096, (30, 40), np.uint16))
    cv2.imwrite("even.png", np.full((30, 40), 3, np.uint16))
    cv2.imwrite("float.tiff", rng.normal(size=(30, 40)).astype(np.float32))
    pathlib.Path("cut.png").write_bytes(pathlib.Path("deep.png").read_bytes()[:300])
    names = ["deep.png", "even.png", "float.tiff", "cut.png"]
    items = [read(name, name, sha256="0" * 64) for name in names]
    write_run("rows", items, np.ones((4, 2, 2)))
    page = Page(tf_gradcam.write_report("rows"))
    assert [each["alt"] for each in page.all("img")] == [f"photograph {name}" for name in names[:3]]
    assert page.text.count("The file has changed since it was explained.") == 3
    data = base64.b64decode(page.all("img")[0]["src"].partition(",")[2])
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE).max() > 200


def test_one_image_for_two_classes_is_compared():
    path = write_picture("one.png")
    maps = np.random.default_rng(0).random((3, 2, 3))
    items = [read("one as ant", path), read("one as bee", path), read("alone", write_picture("two.png"))]
    write_run("rows", items, maps, [0, 1, 1], [[0.3, 0.7]] * 3, labels=LABELS)
    page = Page(tf_gradcam.write_report("rows"))
    (difference,) = (each for each in page.all("canvas") if "data-map-minus" in each)
    np.testing.assert_allclose(decoded(difference), maps[1], atol=0.01)
    np.testing.assert_allclose(decoded(difference, "-minus"), maps[0], atol=0.01)
    assert "bee (orange) against ant (blue)" in page.text


def test_the_trust_table_of_an_evaluation_is_shown():
    some_run()
    check = Check("insertion", "blur", 0.123456, 0.1, float("nan"), 5, 0, "What it means.", np.zeros(5))
    evaluation = {"method": "gradcam", "layer": "conv", "trust": {"checks": [record(check)]}}
    path = pathlib.Path("rows/evaluation.json")
    path.write_text(json.dumps(evaluation))
    page = Page(tf_gradcam.write_report("rows"))
    for text in ("insertion", "blur", "0.1235", "insertion: What it means."):
        assert text in page.text
    assert "of another run" not in page.text
    path.write_text(json.dumps({**evaluation, "layer": "early"}))
    assert "of another run, with layer 'early'" in Page(tf_gradcam.write_report("rows")).text
    path.write_text(json.dumps({"method": "gradcam", "layer": "conv", "metrics": {}}))
    assert "Trust" not in Page(tf_gradcam.write_report("rows")).text
    for damaged in ("{", "[]", '{"trust": 3}', '{"trust": {"checks": [1]}}'):
        path.write_text(damaged)
        with pytest.raises(ValueError, match="evaluation.json"):
            tf_gradcam.write_report("rows")


def test_a_folder_without_a_whole_run_is_refused():
    with pytest.raises(ValueError, match="holds no part"):
        tf_gradcam.write_report("nothing")
    some_run("one")
    part = pathlib.Path("one/part-00000.parquet")
    write_run("two", [read("a")], np.ones((1, 3, 4)), manifest={**MANIFEST, "model": "other"})
    pathlib.Path("two/part-00000.parquet").rename("one/part-00001.parquet")
    with pytest.raises(ValueError, match="part-00001.parquet, of another run"):
        tf_gradcam.write_report("one")
    pathlib.Path("one/part-00001.parquet").unlink()
    whole = part.read_bytes()
    for damaged in (b"", whole[:-200], b"PAR1" + bytes(100) + b"PAR1"):
        part.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged"):
            tf_gradcam.write_report("one")
    middle = bytearray(whole)
    middle[4:400] = bytes(396)
    part.write_bytes(bytes(middle))
    with pytest.raises(ValueError, match="damaged"):
        tf_gradcam.write_report("one")
    write_run("volume", [read("a")], np.ones((1, 2, 2, 2)))
    with pytest.raises(ValueError, match=r"a height and a width.*\(2, 2, 2\)"):
        tf_gradcam.write_report("volume")


def test_a_killed_run_is_said_to_be_unfinished():
    some_run()
    pathlib.Path("rows/.tf_gradcam-journal.arrows").write_bytes(b"")
    assert "The run is not finished" in Page(tf_gradcam.write_report("rows")).text


def test_the_command_reports_on_a_real_run(capsys):
    for number in range(3):
        write_picture(f"photos/{number}.png", seed=number)
    cam = tf_gradcam.GradCAM(head(3, "softmax"), preprocess=lambda images: images / 255)
    tf_gradcam.explain_dataset(cam, "photos", "rows", labels=LABELS)
    assert main(["report", "rows", "--title", "My run", "--most", "2", "--out", "page.html"]) == 0
    assert re.fullmatch(r"page\.html: 0\.\d MB\n", capsys.readouterr().out)
    page = Page("page.html")
    assert len(page.all("img")) == 2
    for text in ("My run", "model_sha256", "conv", "1 are left out"):
        assert text in page.text
    assert main(["report", "nothing"]) == 2
    assert "holds no part-*.parquet" in capsys.readouterr().err
