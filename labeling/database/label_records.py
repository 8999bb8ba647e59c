"""What a label file holds beside annotations: ratings of whole pictures, and the orders in which samples were shown."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import HandscopeError
from .label_file import LabelFile

if TYPE_CHECKING:
    import pandas as pd

RATINGS = (0.0, 0.5, 1.0)
"""A picture's three levels: malformed, in between, well formed."""


class LabelRecords:
    """Ratings and orders; both are only appended to."""

    _file: LabelFile

    def rate(
        self,
        sample: str,
        image_sha256: str,
        rater: str,
        value: float,
        seconds: float | None,
        uid: str,
        withdrawn: bool = False,
    ) -> int:
        """Append a rating of a whole picture, 0, 0.5 or 1, and return its number.

        A uid repeated returns the first one's number and writes nothing. A rating is taken back by a row of its own,
        the same value `withdrawn`: the rater has then not rated the sample.

        Raises
        ------
        HandscopeError
            The value is none of the three, or the uid is of another sample's rating or another rater's.
        """
        if value not in RATINGS:
            raise HandscopeError(f"Expected a rating of {sample} of 0, 0.5 or 1, found {value}.")
        with self._file.writing() as database:
            known = database.execute("SELECT id, sample, rater FROM ratings WHERE uid = ?", (uid,)).fetchone()
            if known is not None:
                return same_write(uid, known, sample, rater)
            return int(
                database.execute(
                    "INSERT INTO ratings (sample, image_sha256, rater, value, seconds, uid, withdrawn) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (sample, image_sha256, rater, float(value), seconds, uid, withdrawn),
                ).lastrowid
                or 0
            )

    def ratings(self) -> "pd.DataFrame":
        """The newest rating of each sample by each rater, where it was not taken back.

        Columns: id, made, sample, image_sha256, rater, value, seconds (NaN where not known).
        """
        import pandas as pd

        columns = ["id", "made", "sample", "image_sha256", "rater", "value", "seconds"]
        rows = []
        if self._file.path.exists():
            with self._file.reading() as database:
                rows = database.execute(
                    f"SELECT {', '.join(columns)} FROM ratings WHERE id IN (SELECT max(id) FROM ratings "
                    "GROUP BY rater, sample) AND NOT withdrawn ORDER BY sample, rater"
                ).fetchall()
        return pd.DataFrame(rows, columns=columns).astype({"id": int, "value": float, "seconds": float})

    def rated(self, rater: str) -> dict[str, tuple[str, float]]:
        """A rater's newest ratings that were not taken back: the image's hash and the value, by sample."""
        if not self._file.path.exists():
            return {}
        with self._file.reading() as database:
            rows = database.execute(
                "SELECT sample, image_sha256, value, withdrawn, max(id) FROM ratings WHERE rater = ? GROUP BY sample",
                (rater,),
            )
            return {sample: (image, value) for sample, image, value, withdrawn, _ in rows if not withdrawn}

    def record_order(self, method: str, seed: int, samples: Sequence[str], parameters: Mapping[str, Any]) -> int:
        """Append an order of samples and how it was made, and return its number; the newest one, if it is the same."""
        row = (method, seed, json.dumps(list(samples)), json.dumps(parameters, sort_keys=True))
        with self._file.writing() as database:
            newest = database.execute(
                "SELECT id, method, seed, samples, parameters FROM orders WHERE method = ? AND parameters = ? "
                "ORDER BY id DESC LIMIT 1",
                (method, row[3]),
            ).fetchone()
            if newest is not None and newest[1:] == row:
                return int(newest[0])
            insert = "INSERT INTO orders (method, seed, samples, parameters) VALUES (?, ?, ?, ?)"
            return int(database.execute(insert, row).lastrowid or 0)

    def orders(self) -> "pd.DataFrame":
        """Every recorded order, the oldest first.

        Columns: id, made, method, seed, samples (list of str), parameters (dict).
        """
        import pandas as pd

        columns = ["id", "made", "method", "seed", "samples", "parameters"]
        rows = []
        if self._file.path.exists():
            with self._file.reading() as database:
                rows = database.execute(f"SELECT {', '.join(columns)} FROM orders ORDER BY id").fetchall()
        return pd.DataFrame(
            [(*row[:4], json.loads(row[4]), json.loads(row[5])) for row in rows], columns=columns
        ).astype({"id": int, "seed": int})


def same_write(uid: str, known: tuple[int, str, str], sample: str, author: str) -> int:
    """The number of the write that a uid names; HandscopeError where it was another sample's or another's."""
    if known[1:] != (sample, author):
        raise HandscopeError(
            f"The write {uid!r} on {sample} by {author} has the uid of another, on {known[1]} by {known[2]}: every "
            "write needs a uid of its own."
        )
    return int(known[0])
