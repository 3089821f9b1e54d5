"""Live widgets only where something shows that a front end is there; HTML everywhere else."""

import os
import sys
from types import SimpleNamespace

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

from ftkit import showing
from ftkit.errors import SettingsError

SIGNS = ("JPY_SESSION_NAME", "VSCODE_PID", "VSCODE_CWD")


@pytest.fixture
def shell(monkeypatch) -> SimpleNamespace:
    """A kernel's IPython shell, in surroundings that say nothing of a front end."""
    for name in ("FTKIT_STATIC", "CI", *SIGNS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    shell = SimpleNamespace(kernel=object(), user_ns={})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(showing, "_mode", "auto")
    return shell


def test_a_kernel_alone_is_no_front_end(shell) -> None:
    assert showing.is_static()


@pytest.mark.parametrize("sign", SIGNS)
def test_a_front_ends_variable_makes_it_live_but_only_in_a_kernel(shell, monkeypatch, sign) -> None:
    monkeypatch.setenv(sign, "x")
    assert not showing.is_static()
    del shell.kernel  # IPython in the terminal of an editor
    assert showing.is_static()


def test_vs_code_and_colab_show_themselves_in_the_kernel(shell, monkeypatch) -> None:
    shell.user_ns["__vsc_ipynb_file__"] = "/a.ipynb"
    assert not showing.is_static()
    shell.user_ns.clear()
    monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace())
    assert not showing.is_static()


def test_what_the_user_says_comes_before_any_sign(shell, monkeypatch) -> None:
    monkeypatch.setenv("FTKIT_STATIC", "0")
    assert not showing.is_static()
    monkeypatch.setenv("FTKIT_STATIC", "1")
    monkeypatch.setenv("JPY_SESSION_NAME", "x")
    assert showing.is_static()
    showing.display("widget")
    assert not showing.is_static()
    showing.display("html")
    monkeypatch.setenv("FTKIT_STATIC", "0")
    assert showing.is_static()


def test_continuous_integration_is_static(shell, monkeypatch) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "x")
    monkeypatch.setenv("CI", "true")
    assert showing.is_static()


def test_an_unknown_mode_is_an_error() -> None:
    with pytest.raises(SettingsError, match="'live' is unknown"):
        showing.display("live")


class _ThisInterpreter(KernelSpecManager):
    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name=kernel_name, language="python")


def _printed_in_a_kernel(source: str, env: dict[str, str]) -> str:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    manager = KernelManager(kernel_spec_manager=_ThisInterpreter())
    NotebookClient(notebook, km=manager, timeout=60).execute(env=env)
    return notebook.cells[0].outputs[0].text.strip()


def test_a_kernel_of_nbclient_is_static() -> None:
    """nbconvert, nbmake and papermill all execute through nbclient."""
    env = {k: v for k, v in os.environ.items() if k not in ("FTKIT_STATIC", "CI", *SIGNS)}
    ask = (
        "import os\nfrom ftkit.showing import is_static\nalone = is_static()\n"
        "os.environ['JPY_SESSION_NAME'] = 'a.ipynb'\nprint(alone, is_static())"
    )
    assert _printed_in_a_kernel(ask, env) == "True False"
