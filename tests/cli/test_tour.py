"""`ftkit tour` on small notebooks: what it leaves, what it says, how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from typer.testing import CliRunner

from ftkit.cli import course, main, tour
from ftkit.cli.main import app

PICTURE = {"tags": ["picture"]}
KERNEL = {"kernelspec": {"name": "no-such-kernel", "display_name": "x", "language": "python"}}

GOOD = [
    new_markdown_cell("# A *good* one <b>\n\nFirst paragraph, with $x_t$.\n\nSecond paragraph."),
    new_markdown_cell("## The strip & the mask"),
    new_code_cell(
        "import os, sys\n"
        "print(sys.executable, os.environ['FTKIT_STATIC'], os.environ['FTKIT_PROFILE'])\n"
        "from IPython.display import HTML\n"
        "HTML('<p onclick=\"evil()\">trained &lt;|im_end|&gt;<script>evil()</script>')",
        metadata=PICTURE,
    ),
    new_markdown_cell("## The curve"),
    new_code_cell(
        "import base64\nfrom IPython.display import Image\n"
        "Image(base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
        "YPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=='))",
        metadata=PICTURE,
    ),
    new_code_cell("import ipywidgets\nipywidgets.IntSlider()"),
    new_code_cell("raise SystemError('never run')", metadata={"tags": ["skip-execution"]}),
]
BAD = [
    new_markdown_cell("# A bad one"),
    new_code_cell("print('kept')"),
    new_code_cell("def divide():\n    return 1 / 0\n\ndivide()  # <here>"),
    new_code_cell("print('never')"),
]


def save(folder: Path, name: str, cells: list) -> None:
    nbformat.write(new_notebook(cells=cells, metadata=KERNEL), folder / name)


def ftkit(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the entry point in this process and return its exit status."""
    monkeypatch.setattr(sys, "argv", ["ftkit", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def toured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess]:
    """A tour over a bad and a good notebook, as a reader would run it."""
    folder = tmp_path_factory.mktemp("notebooks")
    save(folder, "01_bad.ipynb", BAD)
    save(folder, "02_good.ipynb", GOOD)
    out = folder / "deep" / "out"
    command = [sys.executable, "-m", "ftkit.cli", "tour", "--all", "--profile", "smoke"]
    command += ["--notebooks", str(folder), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return out, done


def test_a_failing_notebook_is_named_and_does_not_stop_the_others(toured) -> None:
    out, done = toured
    assert done.returncode == 1, done.stderr
    assert "✗ 01_bad" in done.stdout
    assert "cell 2, line 4: divide()  # <here>\nZeroDivisionError: division by zero" in done.stdout
    assert "✓ 02_good  3 cells" in done.stdout
    assert {path.name for path in out.iterdir()} == {
        "01_bad.ipynb",
        "01_bad.html",
        "02_good.ipynb",
        "02_good.html",
        "index.html",
    }


def test_progress_counts_the_cells_that_run_and_names_their_section(toured) -> None:
    lines = [line for line in toured[1].stdout.splitlines() if line.startswith("02_good  cell")]
    assert [line.split()[2] for line in lines] == ["1/3", "2/3", "3/3"]
    assert lines[0].endswith("The strip & the mask")


def test_the_partial_copy_of_a_failing_notebook_keeps_what_ran(toured) -> None:
    cells = nbformat.read(toured[0] / "01_bad.ipynb", as_version=4).cells
    assert cells[1].outputs[0].text == "kept\n"
    assert cells[2].outputs[0].ename == "ZeroDivisionError"
    assert cells[3].outputs == []


def test_the_kernel_is_this_interpreter_in_static_mode_and_in_the_profile(toured) -> None:
    cell = nbformat.read(toured[0] / "02_good.ipynb", as_version=4).cells[2]
    assert cell.outputs[0].text.split() == [sys.executable, "1", "smoke"]


def test_no_copy_holds_widget_state_or_views(toured) -> None:
    copy = json.loads((toured[0] / "02_good.ipynb").read_text())
    assert "widgets" not in copy["metadata"]
    slider = copy["cells"][5]["outputs"][0]["data"]
    assert list(slider) == ["text/plain"]


def test_pages_load_nothing_and_run_nothing(toured) -> None:
    for path in toured[0].glob("*.html"):
        html = path.read_text()
        assert "default-src 'none'" in html
        assert "<script src" not in html
        assert "<link" not in html
        assert "cdnjs" not in html


def test_the_index_shows_titles_states_intros_and_captioned_pictures(toured) -> None:
    html = (toured[0] / "index.html").read_text()
    assert html.index('id="01_bad"') < html.index('id="02_good"')
    assert "1 of 2 notebooks ran through" in html
    assert "A <em>good</em> one" in html
    assert "First paragraph, with <svg" in html
    assert "Second paragraph" not in html
    assert "<figcaption>The strip &amp; the mask</figcaption>" in html
    assert '<img alt="The curve" src="data:image/png;base64,iVBOR' in html
    assert 'href="02_good.html"' in html


def test_the_index_escapes_failures_and_disarms_pictures(toured) -> None:
    html = (toured[0] / "index.html").read_text()
    assert "divide()  # &lt;here&gt;" in html
    assert "trained &lt;|im_end|&gt;" in html
    assert "evil()" not in html


def test_a_second_tour_adds_to_the_page_and_expects_the_time_of_the_first(
    toured, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = toured[0]
    save(tmp_path, "03_more.ipynb", [new_markdown_cell("# More"), new_code_cell("1 + 1")])
    more = ["tour", "--notebooks", str(tmp_path), "--out", str(out), "--profile", "smoke"]
    assert CliRunner().invoke(app, [*more, "--stage", "3"]).exit_code == 0
    html = (out / "index.html").read_text()
    assert "2 of 3 notebooks ran through" in html
    stage = course.stages(tmp_path)[0]
    assert tour.usual_seconds(stage, out, "smoke") == pytest.approx(3, abs=30)
    assert tour.usual_seconds(stage, out, "cpu") is None


def test_the_authors_minutes_count_until_the_reader_has_run_it(tmp_path: Path) -> None:
    notebook = new_notebook(metadata={"ftkit": {"minutes": {"cpu": 4}}})
    nbformat.write(notebook, tmp_path / "02_sft.ipynb")
    stage = course.stages(tmp_path)[0]
    assert tour.usual_seconds(stage, tmp_path / "none", "cpu") == 240
    assert tour.usual_seconds(stage, tmp_path / "none", "gpu") is None


def test_a_file_that_is_no_notebook_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "01_broken.ipynb").write_text("{ not json")
    save(tmp_path, "02_sft.ipynb", [new_code_cell("1")])
    out = tmp_path / "out"
    arguments = ["tour", "--all", "--notebooks", str(tmp_path), "--out", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "01_broken.ipynb is not a notebook" in result.stdout
    assert "✓ 02_sft" in result.stdout


def test_a_dead_kernel_is_reported_with_its_cell(tmp_path: Path) -> None:
    save(tmp_path, "02_sft.ipynb", [new_code_cell("1"), new_code_cell("import os\nos._exit(9)")])
    arguments = ["tour", "--notebooks", str(tmp_path), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "cell 2\nDeadKernelError: the kernel's process ended" in result.stdout


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_stops_the_kernel_keeps_the_copy_and_exits_130(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    waits = f"import os, time\nopen({str(pid_file)!r}, 'w').write(str(os.getpid()))\ntime.sleep(99)"
    save(tmp_path, "02_sft.ipynb", [new_code_cell("print('kept')"), new_code_cell(waits)])
    save(tmp_path, "03_more.ipynb", [new_code_cell("print('never')")])
    command = [sys.executable, "-m", "ftkit.cli", "tour", "--all", "--notebooks", str(tmp_path)]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background lets its children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (pid_file.exists() and pid_file.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "interrupted" in stdout
    assert stderr == ""
    assert not Path(f"/proc/{pid_file.read_text()}").exists()
    copy = nbformat.read(tmp_path / "out" / "02_sft.ipynb", as_version=4)
    assert copy.cells[0].outputs[0].text == "kept\n"
    assert not (tmp_path / "out" / "03_more.ipynb").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--stage", "ppo"], "stage 'ppo' is unknown; the stages are: 01 bad, 02 good"),
        (["--stage", "02", "--all"], "--all and --stage exclude each other"),
        (["--stage", "02", "--profile", "tpu"], "profile 'tpu' is unknown"),
        (["--no-such-option"], "No such option"),
    ],
)
def test_usage_errors_say_what_is_known_and_exit_2(
    monkeypatch, capsys, tmp_path: Path, arguments: list[str], said: str
) -> None:
    save(tmp_path, "01_bad.ipynb", BAD)
    save(tmp_path, "02_good.ipynb", GOOD)
    code = ftkit(monkeypatch, "tour", "--notebooks", str(tmp_path), *arguments)
    assert code == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_folder_without_notebooks_is_a_usage_error(monkeypatch, capsys, tmp_path: Path) -> None:
    assert ftkit(monkeypatch, "tour", "--notebooks", str(tmp_path)) == 2
    assert "holds no notebook named like 02_sft.ipynb" in " ".join(capsys.readouterr().err.split())
