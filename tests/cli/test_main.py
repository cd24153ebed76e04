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


SLOW_TO_IMPORT = """
import sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "tf_gradcam._cli":
            print("importing", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Slow())
from tf_gradcam.__main__ import run
sys.exit(run())
"""


@pytest.mark.usefixtures("default_signals")
@pytest.mark.skipif(os.name == "nt", reason="Windows sends no such signal to another process")
def test_an_interrupt_before_the_command_is_imported_prints_no_traceback():
    command = [sys.executable, "-c", SLOW_TO_IMPORT, "--version"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    assert process.stdout.readline() == b"importing\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == (b"", b"")
    assert process.returncode == -signal.SIGINT  # A shell says 130.


# What `tf-gradcam` runs, also with the Keras of the oldest supported versions.
PROCESS = (
    "import sys; from tf_gradcam._cli import run_process; from tf_gradcam._run import model_files; "
    "model_files.SAFE_KERAS = (3, 0); sys.exit(run_process())"
)


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


def explained_files(monkeypatch):
    """Return a function that returns which photographs were explained since."""
    explained, explain_batch = [], batches.explain_batch

    def spy(batch, explain):
        explained.extend(each.photograph.file for each in batch)
        return explain_batch(batch, explain)

    monkeypatch.setattr(batches, "explain_batch", spy)
    return lambda: [explained.pop(0) for _ in list(explained)]


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
    assert main([*command, "--restart"]) == code
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
    assert main([*command, "--restart"]) == 130
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
    assert main([*command, "--restart"]) == 130
    del before[".explanations.jsonl"]  # It begins anew, and names no photograph.
    after = {name: pathlib.Path("gradcam", name).read_bytes() for name in files("gradcam")}
    assert after.pop(".explanations.jsonl").count(b"\n") == 1
    assert after == before
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
        fits = (
            json_fits if target.suffix == ".json" else target.name.startswith(("a-", ".explanations.jsonl"))
        )
        if not fits:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full_after_a)
    capsys.readouterr()
    assert main([*command, "--restart"]) == 3
    out, err = capsys.readouterr()
    # `c.png` may be written at the same time, and be the first to fail.
    said = re.fullmatch(r"tf-gradcam: error: (.*), after 1 of 3 photographs\n", err)[1]
    assert re.fullmatch(r"\[Errno 28\] No space left on device: 'gradcam.[bc]-overlay\.png'", said)
    assert [name in out for name in ("a.png", "b.png")] == [True, True]
    assert read_rows() == earlier
    assert [name for name in os.listdir("gradcam") if name.startswith(".")] == [".explanations.jsonl"]
    unfinished = pathlib.Path("gradcam/explanations-unfinished.json")
    assert unfinished.exists() == json_fits
    if json_fits:
        first, second, *_ = json.loads(unfinished.read_text())
        assert (first["file"], "error" in first) == ("a.png", False)
        assert (second["file"], second["error"]) == ("b.png", said)
        assert second["label"].startswith("class ")
    monkeypatch.setattr(os, "replace", replace)  # There is room again.
    again = explained_files(monkeypatch)
    assert main(command) == 0
    assert again() == ["b.png", "c.png"]
    assert [row["file"] for row in read_rows()] == ["a.png", "b.png", "c.png"]


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


# The same command again


def test_only_missing_and_changed_photographs_are_explained_again(command, monkeypatch, capsys):
    explained = explained_files(monkeypatch)
    pathlib.Path("broken.png").write_bytes(b"no")
    command = [*command[:4], "broken.png", *command[4:]]
    assert main(command) == 1
    assert explained() == ["a.png", "b.png", "c.png", "broken.png"]
    before = read_rows()
    write_photo("b.png", seed=9)
    os.unlink("gradcam/c-heatmap.png")
    write_photo("broken.png", seed=8)  # It isn't any more.
    assert main(command) == 0
    assert explained() == ["b.png", "c.png", "broken.png"]
    assert "tf-gradcam: 1 of 4 photographs were explained before" in capsys.readouterr().err
    after = read_rows()
    assert [row["file"] for row in after] == ["a.png", "b.png", "c.png", "broken.png"]
    assert after[0] == before[0]
    assert after[1]["score"] != before[1]["score"]
    assert [row["overlay"] for row in after[:3]] == [row["overlay"] for row in before[:3]]
    assert main(command) == 0
    assert explained() == []
    assert read_rows() == after
    assert main([*command, "--restart"]) == 0
    assert explained() == ["a.png", "b.png", "c.png", "broken.png"]


def test_photographs_of_several_commands_are_kept_and_do_not_replace_each_other(command):
    write_photo("other/a.png", seed=5)
    options = command[4:]
    assert main(["explain", "a.png", *options]) == 0
    overlay = pathlib.Path("gradcam/a-overlay.png").read_bytes()
    assert main(["explain", "no.png", *options]) == 1
    assert main(["explain", "other/a.png", "a.png", *options]) == 0
    assert [row["file"] for row in read_rows()] == ["other/a.png", "a.png"]  # An error is not kept.
    assert [row["overlay"] for row in read_rows()] == ["a_2-overlay.png", "a-overlay.png"]
    assert main(["explain", "b.png", *options]) == 0
    assert {row["file"] for row in read_rows()} == {"other/a.png", "a.png", "b.png"}
    assert pathlib.Path("gradcam/a-overlay.png").read_bytes() == overlay


def test_another_model_or_option_is_refused_with_what_differs(command, functional, capsys):
    assert main(command) == 0
    before = {name: pathlib.Path("gradcam", name).read_bytes() for name in files("gradcam")}
    functional.set_weights([weight / 2 for weight in functional.get_weights()])
    functional.save("half.keras")
    for options, differs in [
        (
            ["--no-fade"],
            "gradcam, where fade was True, and is False. Choose another folder, or begin anew: `--res",
        ),
        (
            ["--method", "hirescam", "--top", "2"],
            "methods was ['gradcam'], and is ['hirescam']; top was 1, and",
        ),
        (["--model", "half.keras"], "model_sha256 was"),
    ]:
        assert main([*command, *options]) == 2
        assert differs in capsys.readouterr().err
    assert {name: pathlib.Path("gradcam", name).read_bytes() for name in files("gradcam")} == before
    assert main([*command, "--no-fade", "--restart"]) == 0
    assert main([*command, "--no-fade"]) == 0


def test_a_line_of_the_journal_that_was_cut_off_does_not_count(command, monkeypatch):
    assert main(command) == 0
    journal = pathlib.Path("gradcam/.explanations.jsonl")
    whole = journal.read_bytes()
    assert whole.count(b"\n") == 4
    last = json.loads(whole.splitlines()[-1])["file"]  # Threads write them, in any order.
    explained = explained_files(monkeypatch)
    for cut, again in [(1, [last]), (50, [last]), (len(whole), ["a.png", "b.png", "c.png"])]:
        journal.write_bytes(whole[:-cut])
        assert main(command) == 0
        if cut > 1:  # The last line is whole but for its end.
            assert explained() == again
        assert len(read_rows()) == 3


@pytest.mark.parametrize(
    "line",
    [
        b"\0\xff",
        b"null",
        b"[1]",
        b'{"file": 1, "state": null, "name": "a", "rows": [{"file": "a.png"}]}',
        b'{"file": "a.png", "state": null, "name": 3, "rows": [{"file": "a.png"}]}',
        b'{"file": "a.png", "state": null, "name": "a", "rows": [1]}',
        b'{"file": "a.png", "state": null, "name": "a", "rows": [{}]}',
        b'{"file": "a.png", "state": null, "name": "a", "rows": {}}',
    ],
)
def test_a_damaged_line_of_the_journal_does_not_count(line, tmp_path):
    a, b = _run.Photograph("a.png", "a.png"), _run.Photograph("b.png", "b.png")
    path = tmp_path / ".explanations.jsonl"
    with _run.Journal(tmp_path, {"top": 1}) as journal:
        journal.begin()
        journal.add(b, "b", [{"file": "b.png"}])
    manifest, entry = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([manifest, line, entry, b""]))
    with _run.Journal(tmp_path, {"top": 1}) as journal:
        assert journal.all_rows([a, b]) == [{"file": "b.png"}]
        assert journal.names() == {"b"}
    for damaged in (line, b'{"manifest": null}'):
        path.write_bytes(b"\n".join([damaged, entry, b""]))
        with _run.Journal(tmp_path, {"top": 3}) as journal:  # The entries may be of any model.
            assert journal.all_rows([a, b]) == []


def test_a_folder_that_can_not_be_written_to_is_refused_with_what_to_do(command, capsys):
    for out in ("a.png", "a.png/b"):
        assert main([*command, "--out", out]) == 2
        said = capsys.readouterr().err
        assert f"`--out` must be a folder that can be written to. Received: {out}: " in said
        assert said.endswith(". Choose another folder.\n")


# Real processes

# An interrupt that Python raises within `__del__` is dropped.
DROPPED = """
import signal, sys, threading, time
from tf_gradcam._cli import process
class Slow:
    def __del__(self):
        while True: time.sleep(0.01)
def run(arguments):
    Slow()
    try:
        for _ in range(500): time.sleep(0.01)
    except KeyboardInterrupt:
        print("ended in order")
        return 130
process.run_command = run
sys.argv = ["tf-gradcam", "methods"]
threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
sys.exit(process.run_process())
"""


@pytest.mark.usefixtures("default_signals")
@pytest.mark.skipif(os.name == "nt", reason="Windows sends no such signals to another process")
def test_an_interrupt_that_python_drops_is_raised_again():
    done = subprocess.run(
        [sys.executable, "-c", DROPPED], capture_output=True, text=True, env=environment(), timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "ended in order\n", "")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="this system has no SIGKILL")
def test_a_run_that_is_killed_at_any_moment_goes_on_and_explains_nothing_twice(command):
    for index in range(60):
        write_photo(f"many/{index:02}.png", size=(200, 300), seed=index)
    arguments = [sys.executable, "-c", PROCESS, "explain", "many", *command[4:]]
    journal, lines = pathlib.Path("gradcam/.explanations.jsonl"), []
    for more in (1, 20):
        process = subprocess.Popen(arguments, stderr=subprocess.PIPE, env=environment())
        deadline = time.monotonic() + 60
        while not journal.exists() or journal.read_bytes().count(b"\n") <= len(lines) + more:
            assert process.poll() is None, process.communicate()[1].decode()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.kill()
        process.communicate()
        now = journal.read_bytes().splitlines(keepends=True)
        assert now[: len(lines)] == lines
        lines = [line for line in now if line.endswith(b"\n")]
    assert subprocess.run(arguments, capture_output=True, env=environment()).returncode == 0
    last = journal.read_bytes().splitlines(keepends=True)
    assert last[: len(lines)] == lines
    rows = read_rows()
    assert [row["file"] for row in rows] == [f"many/{index:02}.png" for index in range(60)]
    names = {row[kind] for row in rows for kind in ("overlay", "heatmap")}
    assert set(os.listdir("gradcam")) == {*names, "explanations.json", ".explanations.jsonl"}
    for name in names:
        with PIL.Image.open(pathlib.Path("gradcam", name)) as picture:
            picture.load()


@pytest.mark.usefixtures("default_signals")
@pytest.mark.skipif(os.name == "nt", reason="this system can't send this signal")
def test_a_process_ends_soon_also_while_it_can_not_be_interrupted(tmp_path):
    script = (
        "import ctypes, pathlib, sys, time; from tf_gradcam._cli import main, process, run_process\n"
        "from tf_gradcam._files import write_file, unfinished\n"
        "def busy(arguments):\n"
        "    with unfinished('half.bin') as temporary:\n"
        "        temporary.touch()\n"
        "        print('begun', flush=True)\n"
        "        ctypes.CDLL(None).sleep(30)\n"  # as TensorFlow does while it compiles
        "process.run_command = busy\n"
        "run_process()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, "methods"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=tmp_path,
    )
    assert process.stdout.readline() == "begun\n"
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    err = process.communicate(timeout=20)[1]
    print(f"{time.monotonic() - start:.2f} s")
    assert process.returncode == 143, err
    assert err == "tf-gradcam: error: terminated\n"
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
@pytest.mark.usefixtures("default_signals")
@pytest.mark.skipif(os.name == "nt", reason="this system can't send these signals")
@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.full), (signal.SIGTERM, 143)]
)
def test_a_process_that_gets_a_signal_leaves_whole_files(command, number, code):
    model = command[4:]
    for index in range(200):
        write_photo(f"many/deep/{index:03}.png", size=(300, 400), seed=index)
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, "explain", "many", *model],
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
    kept = {"explanations-unfinished.json", ".explanations.jsonl"}
    assert names == set(os.listdir("gradcam")) - kept
    for name in names:
        with PIL.Image.open(pathlib.Path("gradcam", name)) as picture:
            picture.load()
