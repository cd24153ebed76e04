"""The entry point: answers at once what needs no model, and its exit codes."""

import contextlib
import errno
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import PIL.Image
import pytest
from photo_files import files, read_rows, write_photo

import tf_gradcam
from tf_gradcam import _run
from tf_gradcam._cli import explain as cli_explain
from tf_gradcam._cli import main
from tf_gradcam._run import batches, findings
from tf_gradcam._run import run as run_module


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


@pytest.fixture
def command(functional, monkeypatch, tmp_path):
    """What explains three photographs with a small network, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tf_gradcam._run.model_files.SAFE_KERAS", (3, 0))  # We make this file ourselves.
    functional.save("tiny.keras")
    for name in "abc":
        write_photo(f"{name}.png")
    return ["explain", "a.png", "b.png", "c.png", "--model", "tiny.keras", "--preprocess", "unit"]


@pytest.fixture
def one_at_a_time(monkeypatch):
    monkeypatch.setattr(run_module, "MAX_PHOTOGRAPHS", 1)


def explained_calls(monkeypatch, before, number=3):
    """Let `before` be called before one of the explanations: the first is the rehearsal, then `a.png`, ..."""
    calls, explain_and_time = [], findings.explain_and_time

    def spy(*args, **kwargs):
        calls.append(args)
        if len(calls) == number:
            before()
        return explain_and_time(*args, **kwargs)

    monkeypatch.setattr(findings, "explain_and_time", spy)


@pytest.mark.usefixtures("one_at_a_time", "default_signals")
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated"), ("SIGHUP", 129, "terminated")],
)
def test_a_run_that_is_ended_keeps_its_rows_and_those_of_an_earlier_run(
    command, monkeypatch, capsys, number, code, said
):
    if not hasattr(signal, number):
        pytest.skip("this system has no such signal")
    assert main(command) == 0
    earlier = pathlib.Path("gradcam/explanations.json").read_bytes()
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    explained_calls(monkeypatch, lambda: signal.raise_signal(getattr(signal, number)))
    capsys.readouterr()
    assert main(command) == code
    assert pathlib.Path("gradcam/explanations.json").read_bytes() == earlier
    (row,) = json.loads(pathlib.Path("gradcam/explanations-unfinished.json").read_text())
    assert (row["file"], row["overlay"]) == ("a.png", "a-overlay.png")
    out, err = capsys.readouterr()
    assert "a.png" in out
    assert "The pictures and explanations-unfinished.json are in gradcam" in out
    assert "explanations.json there is an earlier run's" in out
    assert err == f"tf-gradcam: error: {said}, after 1 of 3 photographs\n"
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.usefixtures("default_signals")
def test_more_interrupts_lose_nothing(command, monkeypatch):
    write_results = _run.write_results

    def interrupted(*args, **kwargs):
        signal.raise_signal(signal.SIGINT)
        return write_results(*args, **kwargs)

    monkeypatch.setattr(_run, "write_results", interrupted)
    assert main(command) == 0  # The results of a finished run are written in any case.
    assert len(read_rows()) == 3

    def interrupt_often():
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "MAX_PHOTOGRAPHS", 1)
    explained_calls(monkeypatch, interrupt_often)
    assert main(command) == 130
    rows = json.loads(pathlib.Path("gradcam/explanations-unfinished.json").read_text())
    assert [row["file"] for row in rows] == ["a.png"]


@pytest.mark.usefixtures("one_at_a_time", "default_signals")
def test_the_first_run_that_is_finished_removes_the_rows_of_the_unfinished_one(command, monkeypatch):
    with monkeypatch.context() as patch:
        explained_calls(patch, lambda: signal.raise_signal(signal.SIGINT))
        assert main(command) == 130
    assert "explanations.json" not in files("gradcam")
    assert "explanations-unfinished.json" in files("gradcam")
    assert main(command) == 0
    assert [row["file"] for row in read_rows()] == ["a.png", "b.png", "c.png"]
    assert "explanations-unfinished.json" not in files("gradcam")


@pytest.mark.usefixtures("one_at_a_time")
def test_a_run_that_is_killed_leaves_the_rows_that_were_saved_now_and_then(command, monkeypatch):
    saved = []

    def look():
        saved.extend(json.loads(pathlib.Path("gradcam/explanations-unfinished.json").read_text()))

    monkeypatch.setattr(cli_explain, "SECONDS_BETWEEN_SAVES", 0.0)
    explained_calls(monkeypatch, look, number=4)  # that of `c.png`, while `b.png` is being written
    assert main(command) == 0
    assert [row["file"] for row in saved] == ["a.png"]
    assert "explanations-unfinished.json" not in files("gradcam")


def test_an_interrupt_before_the_first_photograph_changes_no_file(command, monkeypatch, capsys):
    assert main(command) == 0
    before = {name: pathlib.Path("gradcam", name).read_bytes() for name in files("gradcam")}
    read = batches.read_photograph

    def interrupted(photograph):
        if photograph.file == "b.png":
            raise KeyboardInterrupt
        return read(photograph)

    monkeypatch.setattr(batches, "read_photograph", interrupted)
    capsys.readouterr()
    assert main(command) == 130
    assert {name: pathlib.Path("gradcam", name).read_bytes() for name in files("gradcam")} == before
    assert capsys.readouterr().err == "tf-gradcam: error: interrupted, after 0 of 3 photographs\n"


def test_an_interrupt_between_two_photographs_loses_none_that_are_explained(command, monkeypatch):
    taken = []

    class Bar(contextlib.AbstractContextManager):
        def __enter__(self):
            return self.advance

        def __exit__(self, *raised):
            pass

        def advance(self):
            taken.append(1)
            if len(taken) == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(cli_explain, "show_bar", lambda total: Bar())
    assert main(command) == 130
    rows = json.loads(pathlib.Path("gradcam/explanations-unfinished.json").read_text())
    assert [row["file"] for row in rows] == ["a.png", "b.png", "c.png"]  # one batch


@pytest.mark.usefixtures("one_at_a_time")
@pytest.mark.parametrize("json_fits", [True, False])
def test_a_full_disk_is_said_once_and_keeps_the_rows_and_the_table(command, monkeypatch, capsys, json_fits):
    assert main(command) == 0
    earlier = read_rows()
    replace = os.replace

    def full_after_a(source, target):
        target = pathlib.Path(target)
        fits = json_fits if target.suffix == ".json" else target.name.startswith("a-")
        if not fits:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full_after_a)
    capsys.readouterr()
    assert main(command) == 3
    out, err = capsys.readouterr()
    # `c.png` may be written at the same time, and be the first to fail.
    said = re.fullmatch(r"tf-gradcam: error: (.*), after 1 of 3 photographs\n", err)[1]
    assert re.fullmatch(r"\[Errno 28\] No space left on device: 'gradcam.[bc]-overlay\.png'", said)
    assert [name in out for name in ("a.png", "b.png")] == [True, True]
    assert read_rows() == earlier
    assert [name for name in os.listdir("gradcam") if name.startswith(".")] == []
    unfinished = pathlib.Path("gradcam/explanations-unfinished.json")
    assert unfinished.exists() == json_fits
    if json_fits:
        first, second, *_ = json.loads(unfinished.read_text())
        assert (first["file"], "error" in first) == ("a.png", False)
        assert (second["file"], second["error"]) == ("b.png", said)
        assert second["label"].startswith("class ")


def test_a_disk_that_is_full_for_the_json_alone_keeps_the_table(command, monkeypatch, capsys):
    replace = os.replace

    def full_for_json(source, target):
        if str(target).endswith(".json"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full_for_json)
    assert main(command) == 3
    out, err = capsys.readouterr()
    assert [f"{name}.png" in out for name in "abc"] == [True] * 3
    assert "The pictures are in gradcam\n" in out
    assert "explanations.json', after 3 of 3 photographs" in err


def test_the_help_lists_every_exit_code(capsys):
    with pytest.raises(SystemExit):
        main(["explain", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    codes = said[said.index("Exit code:") :]
    for code in ("0;", "1 when", "2 for", "3 when", "130 when", "143 when", "129 when"):
        assert code in codes
    assert "explanations-unfinished.json" in codes


# Real processes


@pytest.mark.slow
@pytest.mark.usefixtures("default_signals")
@pytest.mark.skipif(os.name == "nt", reason="this system can't send these signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_process_that_gets_a_signal_leaves_whole_files(command, number, code):
    model = command[4:]
    for index in range(200):
        write_photo(f"many/deep/{index:03}.png", size=(300, 400), seed=index)
    script = (
        "import sys; from tf_gradcam._cli import main; "
        "from tf_gradcam._run import model_files; model_files.SAFE_KERAS = (3, 0)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", f"{script}; sys.exit(main(sys.argv[1:]))", "explain", "many", *model],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    deadline = time.monotonic() + 120
    while not list(pathlib.Path().glob("gradcam/01*-overlay.png")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    rows = json.loads(pathlib.Path("gradcam/explanations-unfinished.json").read_text())
    assert 0 < len(rows) < 200
    assert f"after {len(rows)} of 200 photographs" in err
    assert all(row["file"] in out for row in rows)
    names = {row[kind] for row in rows for kind in ("overlay", "heatmap")}
    assert names == set(os.listdir("gradcam")) - {"explanations-unfinished.json"}
    for name in names:
        with PIL.Image.open(pathlib.Path("gradcam", name)) as picture:
            picture.load()
