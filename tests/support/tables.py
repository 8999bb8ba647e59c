"""Tables as they are written, held against what the table of stages says of them."""

import pandas as pd


def check_columns(run, stage) -> None:
    """Every table that is there has the columns that the stage says, none besides, and none is said in vain."""
    found = [table for table in stage.tables if (run.path / table.path).exists()]
    assert {table.name for table in stage.tables if not table.optional} <= {table.name for table in found}
    for table in found:
        columns = pd.read_csv(run.path / table.path).columns
        groups = {column: table.group(column) for column in columns}
        assert None not in groups.values(), f"{table.path}: nothing is said of {groups}"
        assert set(groups.values()) == set(table.columns), table.path
