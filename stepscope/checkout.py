"""`import hooks` at the root of a checkout gives the modules of `stepscope.hooks`, not copies of them.

A checkout has its packages at the top, so `python -m probes` runs there; what is installed is `stepscope`
alone. Copies would have classes of their own, so that an error of one would not be caught as the other's.
"""

import sys
from collections.abc import Iterable
from importlib import import_module
from importlib.abc import InspectLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("hooks", "probes", "analysis", "conf", "pocket")


class _Same(MetaPathFinder, Loader):
    """Finds `hooks.store` as `stepscope.hooks.store`, where `hooks` is this checkout's."""

    def __init__(self) -> None:
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The spec of one of the packages or of a module inside, None for all others."""
        top, _, rest = name.partition(".")
        if top not in PACKAGES:
            return None
        found = sys.modules.get(top) if rest else PathFinder.find_spec(top)
        places = getattr(found, "__path__" if rest else "submodule_search_locations", None)
        if not _is_ours(top, places):
            return None
        real = find_spec(f"stepscope.{name}")
        package = real is not None and real.submodule_search_locations is not None
        return real and spec_from_loader(name, self, origin=real.origin, is_package=package)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module that `stepscope` has."""
        module = import_module(f"stepscope.{spec.name}")
        self._specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has run; the import system has just given it the alias's spec."""
        if module.__spec__ is not None:
            module.__spec__ = self._specs.pop(module.__spec__.name)

    def get_code(self, fullname: str) -> CodeType | None:
        """The code of a module that runs as a program: `python -m probes.check`."""
        spec = find_spec(f"stepscope.{fullname}")
        loader = spec and spec.loader
        return loader.get_code(spec.name) if spec and isinstance(loader, InspectLoader) else None


def _is_ours(top: str, places: Iterable[str] | None) -> bool:
    """Whether a package that lies in these folders is this checkout's, and not a user's of that name."""
    return [Path(place).resolve() for place in places or ()] == [ROOT / top]


def alias() -> None:
    """In a checkout, let the packages at its top be the modules of `stepscope`; elsewhere nothing.

    One that is being imported, and so imports `stepscope`, is replaced: the import system returns what
    stands in `sys.modules` at its end.
    """
    if not (ROOT / "stepscope" / "hooks").is_symlink():
        return
    if not any(isinstance(finder, _Same) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Same())
    for top in PACKAGES:
        if top in sys.modules and _is_ours(top, getattr(sys.modules[top], "__path__", None)):
            sys.modules[top] = import_module(f"stepscope.{top}")
