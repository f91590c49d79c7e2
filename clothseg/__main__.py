"""`python -m clothseg`: the commands."""

from __future__ import annotations

import ast
import pkgutil
import sys
from pathlib import Path

from clothseg.checks import suggestion


def commands() -> dict[str, str]:
    """The commands, each with its line, in the order in which they are mostly used."""
    folder, found = Path(__file__).parent, {}
    for module in pkgutil.iter_modules([str(folder)]):
        text = (folder / f"{module.name}.py").read_text(encoding="utf-8") if not module.ispkg else ""
        line = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
        begin = f"`python -m clothseg.{module.name}`: "
        if line.startswith(begin):
            found[module.name] = line.removeprefix(begin)
    first = ("prepare", "train", "evaluate", "compare", "report", "predict", "register", "export", "results", "deliver")
    return dict(sorted(found.items(), key=lambda item: first.index(item[0]) if item[0] in first else len(first)))


def main(arguments: list[str]) -> int:
    """Prints the commands; says what there is where one is typed that is none."""
    found = commands()
    if arguments and arguments[0] not in ("-h", "--help"):
        given = arguments[0]
        if given in found:
            hint = f"the command is python -m clothseg.{given}"
        else:
            hint = f"{suggestion(given, found)}commands are {', '.join(f'clothseg.{name}' for name in found)}"
        print(f"clothseg: {given}: {hint}", file=sys.stderr)
        return 2
    width = max(map(len, found))
    for name, line in found.items():
        print(f"python -m clothseg.{name:{width}}  {line}")
    print("\nEach takes KEY=VALUE, and --help, which prints all of its options.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
