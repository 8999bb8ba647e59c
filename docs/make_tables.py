"""Write docs/tables.md, every table of a run with its columns, from the one table of stages.

    python docs/make_tables.py
"""

from pathlib import Path

from handscope.stages import STAGES

PAGE = Path(__file__).with_name("tables.md")
BEGIN = """# Tables

Every table that a run holds, made by `python docs/make_tables.py` from the table of stages. All are CSV in UTF-8, a row
for each thing that the first columns name; a number that could not be computed is empty. AUCs, shares and p values are
from 0 to 1, distances in nats, steps counted as steps that remain, sigma from 1 (pure noise) to 0. `name_*` is a group
of columns whose names begin so; a table marked *optional* may be missing, where there was nothing to write.

```python
import pandas as pd

from handscope import figures

table = pd.read_csv("runs/demo/analysis/probes.csv")
with figures.paper("icml", height=2.2) as ax:        # 3.25 inches wide; or neurips, cvpr; wide=True for the page
    figures.grid(table, "within_auc", "within_q", ax=ax, label="AUC within prompts")
    figures.save(ax.figure, "figures", "map")        # PNG, SVG, and PDF with its fonts in it
```
"""


def page() -> str:
    """The text of the page."""
    parts = [BEGIN]
    for stage in STAGES:
        if not stage.tables:
            continue
        parts.append(f"## {stage.name}\n\n`handscope {stage.command}`: {stage.help}.\n")
        for table in stage.tables:
            optional = ", *optional*" if table.optional else ""
            rows = [f"| `{column}` | {meaning} |" for column, meaning in table.columns.items()]
            head = [f"### `{table.path}`{optional}", "", "| column | what it is |", "|---|---|"]
            parts.append("\n".join([*head, *rows, ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
