"""`ftkit doctor`: files in, report out, a status that CI understands."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ftkit.cli
from ftkit.cli.main import app
from ftkit.records.report import DoctorReport

CHAT = {
    "messages": [
        {"role": "user", "content": "How is it?"},
        {"role": "assistant", "content": "It is fine."},
    ]
}
PAIR = {"prompt": "How?", "chosen": "Well, thanks.", "rejected": "Go away now."}


def lines(folder: Path, *rows: object, name: str = "rows.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run(*arguments: str):
    return CliRunner().invoke(app, ["doctor", *arguments])


@pytest.fixture(scope="session")
def folder(tiny_folder) -> str:
    return str(tiny_folder)


def test_a_healthy_set_ends_with_0_and_strict_sees_warnings(folder, tmp_path) -> None:
    data = lines(tmp_path, CHAT, CHAT)
    plain = run(folder, data)
    assert plain.exit_code == 0, plain.output
    assert "passed:" in plain.output
    assert "! generation-markers" in plain.output
    assert run(folder, data, "--strict").exit_code == 3


def test_the_patched_template_makes_strict_pass(folder, tmp_path) -> None:
    data, template = lines(tmp_path, CHAT), str(tmp_path / "t.jinja")
    run(folder, data, "--save-template", template)
    again = run(folder, data, "--strict", "--chat-template", template)
    assert again.exit_code == 0, again.output
    assert "nothing found that fails silently" in again.output


def test_an_error_ends_with_4_and_its_rows(folder, tmp_path) -> None:
    result = run(folder, lines(tmp_path, CHAT, CHAT), "--max-length", "20")
    assert result.exit_code == 4
    assert "answer-gone" in result.output
    assert "rows 0, 1" in result.output


def test_preferences_need_a_file_alone_and_json_is_whole(tmp_path) -> None:
    result = run(lines(tmp_path, PAIR), "--format", "json")
    data = json.loads(result.stdout)
    assert (result.exit_code, data["exit_code"], data["subject"]) == (0, 0, "rows.jsonl")


def test_a_report_is_written_as_its_ending_says(tmp_path) -> None:
    data, page, saved = lines(tmp_path, PAIR), tmp_path / "r.html", tmp_path / "r.json"
    assert run(data, "--out", str(page)).exit_code == 0
    assert page.read_text().startswith("<!doctype html>")
    run(data, "--out", str(saved))
    assert DoctorReport.load(saved).read == "1 row"


def test_a_script_is_held_against_the_installed_libraries(tmp_path) -> None:
    path = tmp_path / "old.py"
    path.write_text("from trl import DataCollatorForCompletionOnlyLM\n")
    result = run("--script", str(path))
    assert result.exit_code == 4
    assert "old.py, line 1" in result.output


def test_codes_are_explained_without_torch(tmp_path) -> None:
    import subprocess

    code = (
        "import sys; from ftkit.cli import main; sys.argv = ['ftkit', 'doctor', '--explain', "
        "'pad-is-eos']\ntry: main()\nfinally: print({'torch', 'trl'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("pad-is-eos: Pad token and stop token are one")
    assert done.stdout.splitlines()[-1] == "set()"
    assert "double-bos" in run("--explain", "all").output


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ([], 2, "name a tokenizer, a data file or a script"),
        (["{empty}", "{rows}"], 2, "holds no tokenizer"),
        (["{rows}", "--format", "pdf"], 2, "--format 'pdf' is unknown"),
        (["{rows}", "--mask", "most"], 2, "mask 'most' is unknown"),
        (["{broken}"], 1, "broken.jsonl, line 2: no valid JSON"),
        (["{list}"], 1, "list.jsonl, line 1: a list"),
        (["{text}"], 1, "must end in .jsonl"),
        (["--explain", "nonsense"], 2, "no code 'nonsense'"),
        (["{rows}", "--save-template", "{new}"], 2, "there is no patched template"),
    ],
)
def test_bad_input_ends_in_one_line(arguments, status, says, tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.jsonl").write_text('{"a": 1}\n{"a": \n')
    (tmp_path / "list.jsonl").write_text("[1]\n")
    (tmp_path / "rows.txt").write_text("")
    known = {
        "empty": tmp_path / "empty", "broken": tmp_path / "broken.jsonl",
        "list": tmp_path / "list.jsonl", "text": tmp_path / "rows.txt",
        "rows": lines(tmp_path, PAIR), "new": tmp_path / "t.jinja",
    }  # fmt: skip
    filled = [a.format(**known) for a in arguments]
    monkeypatch.setattr(sys, "argv", ["ftkit", "doctor", *filled])
    with pytest.raises(SystemExit) as ended:
        ftkit.cli.main()
    assert ended.value.code == status
    assert says in capsys.readouterr().err.replace("\n", " ")
