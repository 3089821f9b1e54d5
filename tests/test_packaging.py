"""The files around the package agree with each other."""

import importlib.metadata
import importlib.util
import re
import subprocess
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ftkit

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RUNTIME = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRA = [Requirement(line) for lines in PROJECT["optional-dependencies"].values() for line in lines]
CONSTRAINTS = {
    canonicalize_name(pin.name): pin
    for line in (ROOT / ".ci" / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
    for pin in [Requirement(line)]
}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TOP_LEVEL = {
    *(".ci", ".gitignore", "LICENSE", "README.md", "environment.yml", "pyproject.toml"),
    *("benchmarks", "ftkit", "notebooks", "tests"),
}


def readme_command(text: str, name: str) -> str:
    """Call `.ci/readme_command.py`, which no import finds."""
    spec = importlib.util.spec_from_file_location("cmd", ROOT / ".ci" / "readme_command.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.command(text, name))


def test_the_version_is_the_same_everywhere() -> None:
    assert ftkit.__version__ == PROJECT["version"] == importlib.metadata.version("ftkit")


def test_the_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_cuda_environment_lists_what_pyproject_lists() -> None:
    listed = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    conda = [line for line in listed["dependencies"] if isinstance(line, str)]
    (pip,) = (entry["pip"] for entry in listed["dependencies"] if isinstance(entry, dict))
    assert f"python{PROJECT['requires-python']}" in conda
    assert pip[-1] == "--editable ."
    assert {str(Requirement(line)) for line in pip[:-1]} == {str(need) for need in RUNTIME}


@pytest.mark.parametrize("need", [*RUNTIME, *EXTRA], ids=str)
def test_each_dependency_is_pinned_within_its_bounds(need: Requirement) -> None:
    pin = CONSTRAINTS.get(canonicalize_name(need.name))
    assert pin is not None, f"add {need.name} to .ci/constraints.txt"
    (exact,) = pin.specifier
    assert exact.operator == "=="
    assert need.specifier.contains(exact.version, prereleases=True), f"{pin} is outside {need}"


def test_constraints_pin_torch_without_a_build_and_nothing_local() -> None:
    assert str(CONSTRAINTS["torch"]) == "torch==2.13.0"
    assert [str(pin) for pin in CONSTRAINTS.values() if "+" in str(pin) or pin.url] == []


@pytest.mark.parametrize("need", RUNTIME, ids=str)
def test_each_dependency_states_the_lowest_version_that_works(need: Requirement) -> None:
    assert [spec.operator for spec in need.specifier][:1] == [">="]


def test_the_top_level_holds_only_what_belongs_there() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git clone")
    assert {line.partition("/")[0] for line in done.stdout.splitlines()} - TOP_LEVEL == set()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_committed_notebooks_are_clean(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.source for cell in code if cell.outputs or cell.execution_count] == []
    assert [len(c.source.splitlines()) for c in code if len(c.source.splitlines()) >= 15] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_open_with_a_title_and_say_what_they_show(path: Path) -> None:
    first = nbformat.read(path, as_version=4).cells[0]
    assert re.fullmatch(r"\d{2}_[a-z0-9_]+\.ipynb", path.name)
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")


def test_readme_gives_the_tour_and_the_test_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tour, test = (readme_command(text, f"{name}-command") for name in ("tour", "test"))
    assert "ftkit tour" in tour
    assert "-m pytest" in test
    assert '-e ".[test]"' in test
    for command in (tour, test):
        assert "python3 -m venv .venv" in command
        assert "-c .ci/constraints.txt" in command


@pytest.mark.parametrize(
    "readme",
    [
        "",
        "<!-- test-command -->\n",
        "<!-- test-command -->\n```\n\n```\n",
        "<!-- test-command -->\ntext\n```\npytest\n```\n",
        "<!-- test-command -->\n```\na\n```\n<!-- test-command -->\n```\nb\n```\n",
    ],
)
def test_a_missing_or_doubtful_readme_command_fails_loudly(readme: str) -> None:
    with pytest.raises(ValueError, match="exactly one '<!-- test-command -->'"):
        readme_command(readme, "test-command")


def test_the_readme_command_is_the_marked_block_only() -> None:
    readme = (
        "```\nfirst\n```\n<!-- tour-command -->\n```bash\ntour\n```\n"
        "<!-- test-command -->\n\n```sh\npytest && \\\n  echo `date`\n```\n```\nlast\n```\n"
    )
    assert readme_command(readme, "test-command") == "pytest && \\\n  echo `date`"
    assert readme_command(readme, "tour-command") == "tour"


def test_the_ci_script_is_executable_bash() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(script)], check=True)
