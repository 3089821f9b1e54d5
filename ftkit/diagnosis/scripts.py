"""Training scripts and notebooks held against the libraries that are installed.

TRL renames an argument every few months, and tutorials stay. The code is parsed, never run: each
name it imports from trl, transformers and peft must be there, and each argument it passes to them
must be in the signature of what is installed here.
"""

import ast
import importlib
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftkit.errors import DataError
from ftkit.findings import Finding

_LIBRARIES = ("trl", "transformers", "peft")
_NOW = {
    "DataCollatorForCompletionOnlyLM": "give 'prompt' and 'completion' columns, or "
    "SFTConfig(assistant_only_loss=True), or ftkit.stages.sft(…, mask='completion', "
    "response_template=…)",
    "PPOTrainer": "ftkit.PPOTrainer; TRL has none since 1.13",
    "PPOConfig": "ftkit.PPOConfig; TRL has none since 1.13",
    "AutoModelForCausalLMWithValueHead": "ftkit.PPOTrainer brings its own value head",
    "AutoModelForSeq2SeqLMWithValueHead": "no successor",
    "create_reference_model": "leave ref_model out; trainers make their own",
    "ORPOTrainer": "DPOTrainer, or an older TRL",
    "CPOTrainer": "DPOTrainer, or an older TRL",
    "tokenizer": "processing_class=",
    "max_seq_length": "SFTConfig(max_length=)",
    "dataset_text_field": "SFTConfig(dataset_text_field=)",
    "packing": "SFTConfig(packing=)",
    "max_prompt_length": "max_length= alone",
    "evaluation_strategy": "eval_strategy=",
    "no_cuda": "use_cpu=",
    "use_auth_token": "token=",
    "beta": "the trainer's config",
    "neftune_noise_alpha": "SFTConfig(neftune_noise_alpha=)",
}
"""Where a name or an argument went, for those that tutorials still use."""


def examine_script(path: Path) -> list[Finding]:
    """Check a ``.py`` file or a notebook.

    Raises:
        DataError: no such file, or it cannot be parsed; names the line.
    """
    code = _code(path)
    try:
        tree = ast.parse(code, str(path))
    except SyntaxError as error:
        raise DataError(f"{path}, line {error.lineno}: no valid Python: {error.msg}") from error
    found = list(_Reader(path.name).read(tree))
    if found:
        return found
    return [Finding("api-current", "ok", "fits the installed libraries", where=path.name)]


def _code(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if path.suffix != ".ipynb":
        return text
    try:
        cells = json.loads(text)["cells"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no notebook: {error}") from error
    return "\n".join(
        _without_magics("".join(c["source"])) for c in cells if c.get("cell_type") == "code"
    )


def _without_magics(source: str) -> str:
    """Comment out what only IPython reads, line by line, so that line numbers stay."""
    lines = source.splitlines()
    if lines and lines[0].startswith("%%"):
        return "\n".join("#" + line for line in lines)
    return "\n".join("#" + x if x.lstrip().startswith(("%", "!")) else x for x in lines)


class _Reader:
    """Walks one file and knows what its names mean."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.known: dict[str, Any] = {}

    def read(self, tree: ast.Module) -> Iterator[Finding]:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self._modules(node)
            elif isinstance(node, ast.ImportFrom):
                yield from self._imported(node)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield from self._called(node)

    def _modules(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name in _LIBRARIES:
                self.known[alias.asname or alias.name] = importlib.import_module(alias.name)

    def _imported(self, node: ast.ImportFrom) -> Iterator[Finding]:
        library = (node.module or "").partition(".")[0]
        if library not in _LIBRARIES or node.level:
            return
        try:
            module = importlib.import_module(str(node.module))
        except ImportError:
            yield self._gone(node, f"there is no module {node.module}", library, node.names[0].name)
            return
        for alias in node.names:
            value = getattr(module, alias.name, None)
            if value is None and alias.name != "*":
                text = f"{node.module} has no {alias.name}"
                yield self._gone(node, text, library, alias.name)
            self.known[alias.asname or alias.name] = value

    def _called(self, node: ast.Call) -> Iterator[Finding]:
        target = self._value(node.func)
        if not inspect.isclass(target) and not inspect.isfunction(target):
            return
        library = target.__module__.partition(".")[0]
        names = _arguments(target)
        if library not in _LIBRARIES or names is None:
            return
        for keyword in node.keywords:
            if keyword.arg and keyword.arg not in names:
                text = f"{target.__name__} has no argument {keyword.arg!r}"
                yield self._gone(keyword.value, text, library, keyword.arg)

    def _value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name):
            return self.known.get(node.id)
        if isinstance(node, ast.Attribute):
            return getattr(self._value(node.value), node.attr, None)
        return None

    def _gone(self, node: Any, text: str, library: str, name: str) -> Finding:
        version = importlib.import_module(library).__version__
        return Finding(
            "stale-api",
            "error",
            f"{text} in {library} {version}: the code was written for another version",
            _NOW.get(name, f"look {name} up in the documentation of {library} {version}"),
            f"{self.name}, line {node.lineno}",
        )


def _arguments(target: Any) -> set[str] | None:
    """Names that `target` takes; None where it takes any."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return {p.name for p in parameters}
