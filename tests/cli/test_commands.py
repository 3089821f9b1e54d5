"""The other commands: version, help, lab, pull."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ftkit
import ftkit.models
from ftkit.cli import lab
from ftkit.cli.main import app


def test_version_is_the_packages() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"ftkit {ftkit.__version__}\n")


def test_help_names_the_commands_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from ftkit.cli import main; sys.argv = ['ftkit', '--help']\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'transformers', 'nbclient', 'IPython', 'matplotlib'} "
        "& set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for command in ("tour", "lab", "pull"):
        assert command in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_lab_opens_the_clones_notebooks_with_the_asked_options(monkeypatch) -> None:
    asked: list[str] = []

    class Process:
        def __init__(self, command: list[str], env: dict[str, str]) -> None:
            asked.extend(command)
            assert env["OMP_WAIT_POLICY"]
            assert env["PATH"]

        def wait(self) -> int:
            return 7

    monkeypatch.setattr(lab.subprocess, "Popen", Process)
    result = CliRunner().invoke(app, ["lab", "--port", "9001", "--no-browser"])
    assert result.exit_code == 7
    notebooks = Path(ftkit.__file__).parents[1] / "notebooks"
    assert asked == [
        *(sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={notebooks}"),
        *("--port=9001", "--no-browser"),
    ]


def test_packaged_notebooks_are_copied_once_and_edits_are_kept(tmp_path: Path) -> None:
    packaged = tmp_path / "_notebooks"
    packaged.mkdir()
    (packaged / "02_sft.ipynb").write_text("shipped")
    copy = lab.workspace(packaged, tmp_path) / "02_sft.ipynb"
    assert copy.read_text() == "shipped"
    copy.write_text("edited")
    assert lab.workspace(packaged, tmp_path) == copy.parent
    assert copy.read_text() == "edited"


def test_pull_fetches_the_named_model_and_prints_where_it_is(monkeypatch, tmp_path: Path) -> None:
    fetched: list[str] = []

    def fetch(name: str) -> Path:
        fetched.append(name)
        return tmp_path

    monkeypatch.setattr(ftkit.models, "fetch", fetch, raising=False)
    result = CliRunner().invoke(app, ["pull"])
    assert result.exit_code == 0
    assert fetched == ["smollm2-135m"]
    assert result.stdout.strip() == str(tmp_path)


def test_an_error_of_ours_ends_in_one_line_not_a_traceback(monkeypatch, capsys) -> None:
    def fetch(_: str) -> Path:
        raise ftkit.errors.ModelSourceError("no network; connect or set FTKIT_MODEL_SOURCE")

    monkeypatch.setattr(ftkit.models, "fetch", fetch, raising=False)
    monkeypatch.setattr(sys, "argv", ["ftkit", "pull"])
    with pytest.raises(SystemExit) as ended:
        ftkit.cli.main()
    assert ended.value.code == 1
    assert (
        capsys.readouterr()
        .err.strip()
        .endswith("Error: no network; connect or set FTKIT_MODEL_SOURCE")
    )
