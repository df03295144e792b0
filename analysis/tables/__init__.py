"""One list of tables: each is a file, whose first lines are its caption."""

from stepscope.analysis.exhibit import Exhibit, exhibits
from stepscope.analysis.tables import (
    table1_main,
    table2_per_prompt,
    table_adapters,
    table_causes,
    table_confounders,
    table_guidance,
    table_numbers,
    table_planted,
    table_verdicts,
)
from stepscope.analysis.tables.table import Table

TABLES: dict[str, Exhibit[Table]] = exhibits(
    "build",
    table_verdicts,
    table_confounders,
    table_numbers,
    table1_main,
    table2_per_prompt,
    table_adapters,
    table_causes,
    table_planted,
    table_guidance,
)
