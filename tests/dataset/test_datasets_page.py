"""The code in docs/datasets.md runs."""

import pathlib
import re

PAGE = pathlib.Path(__file__).parents[2] / "docs/datasets.md"


def test_the_code_of_the_page_runs(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    exec(compile("\n".join(blocks), str(PAGE), "exec"), {"__name__": "page"})
    run, table, *paths = capsys.readouterr().out.splitlines()
    assert run == "DatasetRun(out=PosixPath('rows'), explained=6, failed=0, skipped=0)" or "Windows" in run
    assert table == "6 (6, 30, 30) gradcam"
    assert [pathlib.Path(path).name for path in paths] == ["rows.csv", "rows-pictures"]
