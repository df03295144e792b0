"""One list of tables: each is a file, whose first lines are its caption."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from analysis.evidence import Evidence
from analysis.tables import table1_main, table2_per_prompt, table_guidance
from analysis.tables.table import Table


@dataclass(frozen=True)
class Sheet:
    """A table: its name, its caption, the experiments that it needs, and what builds it."""

    name: str
    caption: str
    experiments: tuple[str, ...]
    build: Callable[[Evidence], Table]

    @classmethod
    def of(cls, module: ModuleType) -> "Sheet":
        """The table of a file."""
        name = module.__name__.rpartition(".")[2]
        return cls(name, (module.__doc__ or "").strip(), module.EXPERIMENTS, module.build)


TABLES: dict[str, Sheet] = {
    sheet.name: sheet for sheet in map(Sheet.of, (table1_main, table2_per_prompt, table_guidance))
}
