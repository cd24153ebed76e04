"""Parts: whole at every moment, taken up by row, locked, and only by a run of the same manifest."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tf_gradcam._dataset.parts import Parts, read_manifest
from tf_gradcam._files import JOURNAL

SCHEMA = pa.schema([("id", pa.string()), ("score", pa.float32())])


def rows(*ids):
    return pa.RecordBatch.from_arrays([list(ids), pa.array([0.0] * len(ids), pa.float32())], schema=SCHEMA)


def written(folder):
    return [pq.read_table(path)["id"].to_pylist() for path in sorted(folder.glob("part-*.parquet"))]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "rows"


def killed(parts):
    """Leave a run's folder as it is when its process is killed: the journal has no end."""
    parts._file.close()
    parts._undo.pop_all()


def test_full_journals_become_parts(folder):
    with Parts(folder, SCHEMA, {}, rows_in_part=3) as parts:
        for name in "abcdefg":
            parts.add(rows(name))
        assert written(folder) == [["a", "b", "c"], ["d", "e", "f"]]
    assert written(folder) == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    assert names(folder) == [f"part-{number:05}.parquet" for number in range(3)]


def test_rows_are_kept_when_a_run_ends_early(folder):
    def interrupted_run():
        with Parts(folder, SCHEMA, {}) as parts:
            parts.add(rows("a"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_run()
    assert written(folder) == [["a"]]


def test_a_killed_run_is_taken_up_by_row(folder):
    parts = Parts(folder, SCHEMA, {}, rows_in_part=3).__enter__()
    for name in "abcde":
        parts.add(rows(name))
    (folder / ".tf_gradcam-1.unfinished.parquet").write_bytes(b"half a part")
    killed(parts)
    with Parts(folder, SCHEMA, {}, rows_in_part=3) as parts:
        assert parts.done() == set("abcde")
        parts.add(rows("f"))
    assert written(folder) == [["a", "b", "c"], ["d", "e", "f"]]
    assert names(folder) == ["part-00000.parquet", "part-00001.parquet"]


@pytest.mark.parametrize("cut", range(1, 400, 23))
def test_the_readable_beginning_of_a_journal_counts(folder, cut):
    parts = Parts(folder, SCHEMA, {}).__enter__()
    for name in "abc":
        parts.add(rows(name))
    killed(parts)
    journal = folder / ".tf_gradcam-journal.arrows"
    journal.write_bytes(journal.read_bytes()[:-cut])
    with Parts(folder, SCHEMA, {}) as parts:
        done = parts.done()
        assert done in (set(), {"a"}, {"a", "b"})
        for name in sorted(set("abc") - done):
            parts.add(rows(name))
    assert written(folder) == [["a", "b", "c"]]


def test_a_journal_with_a_damaged_byte_does_not_stop_a_run(folder):
    journal, refusals, added = folder / JOURNAL, [], []
    with Parts(folder, SCHEMA, {"a": 1}) as parts:
        parts.add(rows("a"))
        parts.add(rows("b"))
        whole = journal.read_bytes()
    for place in range(0, len(whole), 7):
        for path in folder.iterdir():
            path.unlink()
        journal.write_bytes(whole[:place] + bytes([whole[place] ^ 0xD9]) + whole[place + 1 :])
        try:
            with Parts(folder, SCHEMA, {"a": 1}) as parts:
                parts.add(rows("c"))
                added.append("c" in parts.done())
        except ValueError as error:  # The byte is one of the manifest.
            refusals.append("a run with the same model and options" in str(error))
    assert len(refusals) < 10 < len(added)
    assert all(refusals + added)


def test_rows_of_a_part_that_are_still_in_the_journal_count_once(folder):
    parts = Parts(folder, SCHEMA, {}).__enter__()
    parts.add(rows("a", "b"))
    journal = (folder / ".tf_gradcam-journal.arrows").read_bytes()
    parts.__exit__(None, None, None)
    (folder / ".tf_gradcam-journal.arrows").write_bytes(journal)  # as when killed right after the part
    with Parts(folder, SCHEMA, {}) as parts:
        assert parts.done() == {"a", "b"}
    assert written(folder) == [["a", "b"]]


def test_one_run_at_a_time_writes_to_a_folder(folder):
    message = "`out` must be a folder that no other run writes to"
    with Parts(folder, SCHEMA, {}), pytest.raises(ValueError, match=message):
        Parts(folder, SCHEMA, {}).__enter__()
    with Parts(folder, SCHEMA, {}):
        pass


def test_a_run_with_other_options_is_refused_with_what_differs(folder):
    with Parts(folder, SCHEMA, {"layer": "conv", "target": 1}) as parts:
        parts.add(rows("a"))
    with pytest.raises(ValueError, match=r"where target was 1, and is 2\. Choose another folder"):
        Parts(folder, SCHEMA, {"layer": "conv", "target": 2}).__enter__()
    (part,) = folder.glob("*.parquet")
    assert read_manifest(part) == {"layer": "conv", "target": 1}
    killed_parts = Parts(folder, SCHEMA, {"layer": "conv", "target": 1}).__enter__()
    killed_parts.add(rows("b"))
    killed(killed_parts)
    part.unlink()  # Only the journal is left.
    with pytest.raises(ValueError, match="where target was 1, and is 2"):
        Parts(folder, SCHEMA, {"layer": "conv", "target": 2}).__enter__()


def test_another_parquet_file_is_not_taken_for_a_part(folder):
    folder.mkdir()
    pq.write_table(pa.table({"id": ["a"]}), folder / "part-00000.parquet")
    with pytest.raises(ValueError, match="`out` must be a folder of a run's parts"):
        Parts(folder, SCHEMA, {}).__enter__()


def test_beginning_anew_removes_nothing_else(folder):
    with Parts(folder, SCHEMA, {}) as parts:
        parts.add(rows("a"))
    (folder / "mine.txt").write_text("mine")
    with Parts(folder, SCHEMA, {"other": 1}, restart=True):
        assert names(folder) == [".tf_gradcam-journal.arrows", ".tf_gradcam-lock", "mine.txt"]
    assert names(folder) == ["mine.txt"]


def test_a_full_disk_loses_no_row_that_was_added(folder):
    resource = pytest.importorskip("resource", reason="Windows has no limit of file sizes")
    before, added = resource.getrlimit(resource.RLIMIT_FSIZE), []
    parts = Parts(folder, SCHEMA, {}).__enter__()
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        for number in range(100):
            parts.add(rows(*(f"{number}-{other}" for other in range(20))))
            added.append(number)
    except OSError:
        pass
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        with pytest.raises(OSError, match="part-00000.parquet"):
            parts.__exit__(None, None, None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert 0 < len(added) < 100
    assert not list(folder.glob("*.unfinished*"))
    with Parts(folder, SCHEMA, {}) as parts:
        assert {f"{number}-{other}" for number in added for other in range(20)} <= parts.done()


def test_rows_with_large_maps_make_smaller_parts(folder, monkeypatch):
    monkeypatch.setattr("tf_gradcam._dataset.parts._BYTES_IN_PART", 3 * rows("a").nbytes)
    with Parts(folder, SCHEMA, {}) as parts:
        for name in "abcde":
            parts.add(rows(name))
    assert written(folder) == [["a", "b", "c"], ["d", "e"]]


def test_a_run_that_is_refused_removes_nothing(folder):
    with Parts(folder, SCHEMA, {}) as parts:
        parts.add(rows("a"))
        with pytest.raises(ValueError, match="no other run writes to"):
            Parts(folder, SCHEMA, {}, restart=True).__enter__()
    pq.write_table(pa.table({"id": ["b"]}), folder / "part-00001.parquet")
    for restart in (False, True):
        with pytest.raises(ValueError, match="part-00001.parquet, which is none"):
            Parts(folder, SCHEMA, {}, restart=restart).__enter__()
    assert names(folder) == ["part-00000.parquet", "part-00001.parquet"]
    (folder / "part-00001.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(ValueError, match="part-00001.parquet, which is none"):
        Parts(folder, SCHEMA, {}).__enter__()


def test_what_a_manifest_only_notes_may_differ(folder):
    with Parts(folder, SCHEMA, {"model": "functional", "keras": "3.6.0"}) as parts:
        parts.add(rows("a"))
    with Parts(folder, SCHEMA, {"model": "functional_1", "keras": "3.15.0"}) as parts:
        assert parts.done() == {"a"}
