"""Make Powertools import its modules on first use: `lazy.py FOLDER`, the folder that contains `aws_lambda_powertools`.

Three packages of Powertools import a module for every resolver and every kind of event, with asyncio, XML and zip
files; the logger imports JMESPath. This project uses little of that. Here their sources are rewritten so that a name is
imported when it is first used; all names stay. A file that is not as expected fails the build.
"""

import ast
import sys
from importlib.util import resolve_name
from pathlib import Path
from pkgutil import iter_modules
from typing import Final

POWERTOOLS: Final = "aws_lambda_powertools"
PACKAGES: Final = ("event_handler", "event_handler.openapi", "utilities.data_classes")

# PEP 562.
_LAZY: Final = """\
from importlib import import_module

{eager}
_MODULES = {modules}
_SUBMODULES = {submodules}
__all__ = {exported}


def __getattr__(name):
    if name in _MODULES:
        value = globals()[name] = getattr(import_module(_MODULES[name]), name)
        return value
    if name in _SUBMODULES:
        return import_module("." + name, __name__)
    raise AttributeError(f"module {{__name__!r}} has no attribute {{name!r}}")


def __dir__():
    return sorted({{*globals(), *_MODULES, *_SUBMODULES}})
"""

# The logger's one import of a module that imports JMESPath, and the same with Powertools' own means.
_IMPORT: Final = "\nfrom aws_lambda_powertools.utilities import jmespath_utils\n"
_LAZY_IMPORT: Final = """
from aws_lambda_powertools.shared.lazy_import import LazyLoader
jmespath_utils = LazyLoader("jmespath_utils", globals(), "aws_lambda_powertools.utilities.jmespath_utils")
"""


def main(folder: Path) -> None:
    """Rewrite the files in `folder`."""
    for name in PACKAGES:
        package = f"{POWERTOOLS}.{name}"
        file = folder.joinpath(*package.split("."), "__init__.py")
        submodules = {module.name for module in iter_modules([str(file.parent)])}
        _rewrite(file, _lazy_package(package, file.read_text(encoding="utf-8"), submodules))
    logger = folder / POWERTOOLS / "logging" / "logger.py"
    before, *rest = logger.read_text(encoding="utf-8").split(_IMPORT)
    _rewrite(logger, before + _LAZY_IMPORT + rest[0] if len(rest) == 1 else None)


def _lazy_package(package: str, source: str, submodules: set[str]) -> str | None:
    """Return a lazy `__init__.py`; `None` if `source` is more than imports of the names in `__all__`."""
    modules: dict[str, str] = {}
    exported: list[str] = []
    for statement in ast.parse(source).body:
        match statement:
            case ast.Expr(value=ast.Constant(value=str())):  # the docstring
                pass
            case ast.ImportFrom(module=module, names=names, level=level) if all(not name.asname for name in names):
                home = resolve_name("." * level + (module or ""), package)
                modules |= {name.name: home for name in names}
            case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List() as value):
                exported = ast.literal_eval(value)
            case _:
                return None
    if not exported or sorted(exported) != sorted(modules):
        return None
    # Importing a submodule sets the package's attribute of that name. Only an eager import replaces it by the function.
    eager = sorted(modules.keys() & submodules)
    return _LAZY.format(
        eager="".join(f"from {modules.pop(name)} import {name}\n" for name in eager),
        modules=modules,
        submodules=sorted(submodules - {*eager}),
        exported=exported,
    )


def _rewrite(file: Path, source: str | None) -> None:
    if source is None:
        sys.exit(f"layer: {POWERTOOLS}/{file.parent.name}/{file.name} is not as expected; adapt {Path(__file__).name}")
    file.write_text(source, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
