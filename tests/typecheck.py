"""beartype as type checkers read annotations: an int is a float (PEP 484, the numeric tower)."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
