"""One list of tables: each is a file, whose first lines are its caption."""

from analysis.exhibit import Exhibit, exhibits
from analysis.tables import table1_main, table2_per_prompt, table_guidance
from analysis.tables.table import Table

TABLES: dict[str, Exhibit[Table]] = exhibits(
    "build", table1_main, table2_per_prompt, table_guidance
)
