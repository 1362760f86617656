"""Names that stand for classes in a configuration: this package's own, an installed package's, or a dotted path.

    model.position=rotary              one of this package, in the table that its room keeps
    model.position=cope                declared by an installed package, as an entry point
    model.position=my_lab.cope.CoPE    any class that can be imported, from the folder that the command runs in, too

    # pyproject.toml of another package
    [project.entry-points."lightning_metatok.positions"]
    cope = "my_lab.cope:CoPE"

Each room that has such names keeps one `Registry`, a mapping from name to class; whoever resolves a name goes through
it, so that a class from outside works wherever one of this package does. `REGISTRIES` has all of them by their keys:
who obeys a configuration of somebody else asks there which names would have code imported.
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from lightning_metatok.errors import UserError, nearest

T = TypeVar("T")
REGISTRIES: "dict[str, Registry[Any]]" = {}
"""By key; each registers itself when its room is imported."""


def has_dot(name: str) -> bool:
    """Whether a name is a dotted path, where names of this package have no dot."""
    return "." in name


class Registry(Mapping[str, type[T]], Generic[T]):
    """The classes that a key may name.

    Iteration gives the names of this package and then those of entry points; dotted paths are resolved, not listed.
    """

    def __init__(
        self,
        key: str,
        base: type[T],
        classes: Mapping[str, type[T]],
        *,
        group: str,
        is_path: Callable[[str], bool] = has_dot,
    ) -> None:
        """Keep `classes` by name.

        Args:
            key: what the user sets, such as `model.position`; stands in messages.
            base: what every class must derive from.
            classes: this package's own; what is added to it later is found, too.
            group: of entry points, behind `lightning_metatok.`.
            is_path: tells a dotted path from what else the key takes, such as names of files.
        """
        self.key, self.base, self.group, self.is_path = key, base, f"lightning_metatok.{group}", is_path
        self._classes = classes
        REGISTRIES[key] = self

    def __getitem__(self, name: str) -> type[T]:
        """Return the class; `KeyError` where no class of this package or of an entry point has that name."""
        if name in self._classes:
            return self._classes[name]
        return self._checked(name, self._installed[name].load())

    def __iter__(self) -> Iterator[str]:
        """Names, this package's own first."""
        yield from self._classes
        yield from (name for name in self._installed if name not in self._classes)

    def __len__(self) -> int:
        """How many names there are."""
        return len(set(self._classes) | set(self._installed))

    @property
    def own(self) -> Mapping[str, type[T]]:
        """This package's own classes."""
        return self._classes

    def resolve(self, name: str) -> type[T]:
        """Return the class that a name or a dotted path stands for.

        Raises:
            UserError: nobody has that name, it cannot be imported, or it is no such class.
        """
        if not isinstance(name, str):
            raise UserError(f"{self.key}={name!r}: expected one of {', '.join(self)}")
        if name in self._classes:
            return self._classes[name]
        if name in self._installed:
            try:
                found = self._installed[name].load()
            except (Exception, SystemExit) as error:
                value = self._installed[name].value
                raise UserError(
                    f"{self.key}={name}: its entry point {value} cannot be imported: {_short(error)}"
                ) from error
            return self._checked(name, found)
        if self.is_path(name):
            return self._checked(name, self._imported(name))
        raise UserError(f"{self.key}={name!r}: expected one of {', '.join(self)}{nearest(name, self)}")

    def name_of(self, kind: type) -> str:
        """Return the name or the dotted path by which `resolve` finds a class."""
        own = next((name for name, known in self._classes.items() if known is kind), None)
        return own or f"{kind.__module__}.{kind.__qualname__}"

    @cached_property
    def _installed(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}

    def _imported(self, path: str) -> object:
        module_name, _, name = path.rpartition(".")
        here = str(Path.cwd())
        appended = here not in sys.path
        if appended:  # a console script, unlike `python -m`, does not look there; last, so that it shadows nothing
            sys.path.append(here)
        try:
            module = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:  # whatever the code there raises is about that code
            raise UserError(f"{self.key}={path}: {module_name} cannot be imported: {_short(error)}") from error
        finally:
            if appended:
                sys.path.remove(here)
        if not hasattr(module, name):
            public = [other for other in vars(module) if not other.startswith("_")]
            raise UserError(f"{self.key}={path}: {module_name} has no {name}{nearest(name, public)}")
        return getattr(module, name)

    def _checked(self, name: str, found: object) -> type[T]:
        if not (isinstance(found, type) and issubclass(found, self.base)):
            what = f"the class {found.__qualname__}" if isinstance(found, type) else f"of type {type(found).__name__}"
            base = f"{self.base.__module__}.{self.base.__qualname__}"
            raise UserError(f"{self.key}={name}: expected a class that derives from {base}; it is {what}")
        return found


def is_foreign(name: str) -> bool:
    """Whether a name is a dotted path to code outside this package and PyTorch, which a run folder may not choose."""
    return has_dot(name) and not name.startswith(("lightning_metatok.", "torch."))


def foreign_names(key: str, value: Any) -> Iterator[str]:
    """Names of code outside this package in a value of an option; none where no registry has its key.

    `key`: dotted, such as `model.position`. Below a list of mappings, such as phases of a curriculum, their keys count.
    """
    if isinstance(value, Mapping):
        if key in REGISTRIES:  # a mixture: names and their weights
            yield from foreign_names(key, list(value))
        for name, one in value.items():
            yield from foreign_names(f"{key.partition('.')[0]}.{name}", one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from foreign_names(key, one)
    elif key in REGISTRIES and isinstance(value, str) and is_foreign(value) and REGISTRIES[key].is_path(value):
        yield value


def _short(error: BaseException) -> str:
    """The kind of an error and its first line."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
