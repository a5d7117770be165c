"""What is wrong with manifests: every problem with its file, line and column."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_PROBLEMS_MAX = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """One problem. `line` and `column` count from 1; 0: it concerns the file as a whole."""

    source: str
    line: int = 0
    column: int = 0
    subject: str = ""  # Kind/name, e.g. Deployment/web.
    path: str = ""
    message: str

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}:{self.column}" if self.line else self.source
        what = " ".join(part for part in (self.subject, self.path) if part)
        return f"{where}  {what}".rstrip() + f"\n    {self.message}"


class ManifestError(ValueError):
    """Manifests are refused; `problems` are all that was found, file by file, line by line."""

    def __init__(self, problems: Iterable[Located]) -> None:
        found = list(problems)
        self.problems = tuple(found[:_PROBLEMS_MAX])
        self.left_out = len(found) - len(self.problems)
        super().__init__("\n".join(str(problem) for problem in self.problems) + self._more())

    def _more(self) -> str:
        return f"\nand {self.left_out} more" if self.left_out else ""
