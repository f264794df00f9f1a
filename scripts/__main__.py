"""The console command ``adafocus``: each of its programs is the script beside this file that has the same name.

In a checkout, ``python scripts COMMAND`` does the same. ``--help`` reads the first line of every script and runs none,
and nothing heavy is imported before a script is chosen.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import importlib.util
import io
import shutil
import sys
import textwrap
import types
from pathlib import Path

NAME = "adafocus"
GROUPS = {
    "start here": ("quickstart", "watch"),
    "train": ("train_recognizer", "train_policy", "finetune", "train_end_to_end", "import_checkpoint"),
    "measure": (
        "evaluate", "render", "compare_algorithms", "compare_compute", "compare_pipelines", "ablate", "tune",
        "benchmark", "cost_table", "reproduce_results", "reproduce_motion", "reproduce_stills", "record",
    ),
    "data": ("extract_frames", "build_feature_bank", "make_image_pool"),
}  # fmt: skip
"""The scripts by what they are for, in the order of ``--help``, which shows those that there are."""


def scripts() -> dict[str, dict[str, Path]]:
    """The files of the scripts that there are, by group and by command, such as ``train-policy``."""
    folder = Path(__file__).parent
    return {
        group: {name.replace("_", "-"): path for name in names if (path := folder / f"{name}.py").exists()}
        for group, names in GROUPS.items()
    }


def overview() -> str:
    """The text of ``adafocus --help``."""
    width = min(shutil.get_terminal_size().columns, 120)
    lines = [f"usage: {NAME} COMMAND [--help] [OPTIONS]", "", "AdaFocus: where should a video recogniser look?"]
    for group, paths in scripts().items():
        lines += ["", f"{group}:"]
        for command, path in paths.items():
            summary = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
            indent = " " * 22
            lines.append(textwrap.fill(summary, width, initial_indent=f"  {command:<20}", subsequent_indent=indent))
    lines += [
        "",
        f"{NAME} COMMAND --help lists a command's options; begin with {NAME} quickstart.",
        f"Tab completion: {NAME} --tyro-write-completion bash FILE, then source FILE; zsh and fish have it, too.",
    ]
    return "\n".join(lines)


def run(path: Path, command: str, arguments: list[str]) -> None:
    """Run a script as ``python path …`` does, under the name of its command.

    That name is ``sys.argv[0]``, which ``runpy.run_path`` would set to the path.
    """
    main = types.ModuleType("__main__")
    main.__file__ = str(path)
    sys.modules["__main__"] = main
    sys.argv = [f"{NAME} {command}", *arguments]
    exec(compile(path.read_bytes(), path, "exec"), vars(main))


def complete(arguments: list[str]) -> None:
    """Print or write what tyro makes for the completion of all commands and their options.

    Shells take each line of an option's description for a word of its own, so descriptions become single lines.
    """
    import tyro

    if arguments[0] == "--tyro-write-completion" and len(arguments) == 3:
        arguments, written = ["--tyro-print-completion", arguments[1]], Path(arguments[2])
    else:
        written = None
    configs = {}
    for command, path in (pair for paths in scripts().values() for pair in paths.items()):
        spec = importlib.util.spec_from_file_location(f"{NAME}_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # tyro looks annotations up there
        spec.loader.exec_module(module)
        configs[command] = module.Config
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            tyro.extras.subcommand_cli_from_dict(configs, prog=NAME, args=arguments)
    finally:
        lines = said.getvalue().splitlines(keepends=True)
        text = "".join(line.replace("\\n", " ") if line.startswith("COMPLETION_SPEC") else line for line in lines)
        if written is None:
            sys.stdout.write(text)
        elif text:
            written.write_text(text, encoding="utf-8")


def main() -> None:
    """Run the command that ``sys.argv`` names.

    Raises:
        SystemExit: There is no such command, or it ended.
    """
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
    elif arguments[0].startswith("--tyro-"):
        complete(arguments)
    elif arguments[0] == "--version":
        from adafocus_env.version import __version__

        print(f"{NAME} {__version__}")
    else:
        commands = {command: path for paths in scripts().values() for command, path in paths.items()}
        command = arguments[0].replace("_", "-").removesuffix(".py")
        if command not in commands:
            near = difflib.get_close_matches(command, commands, 1, 0.0)[0]
            say = f"{NAME}: no command {arguments[0]!r}; did you mean {near}? ({NAME} --help lists all)"
            print(say, file=sys.stderr)
            raise SystemExit(2)
        run(commands[command], command, arguments[1:])


if __name__ == "__main__":
    main()
