"""DuckDB reads the site's files: local ones only, one SELECT, in the order of the file.

Room: node. Law: DuckDB may open the files that the operator named and nothing else: no extension is
installed or loaded, so no network; no other directory; no statement but SELECT. Its messages quote
lines of the file, so they are never passed on.
"""

import csv
import gzip
import re
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from os import SEEK_END
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ledger.errors import ConfigError
from node.data_config import DataConfig
from swarm.learning.moments import Floats

if TYPE_CHECKING:
    import duckdb

MISSING: Final = ("", "?", "na", "n/a", "nan", "null", ".")
"""Cells that mean "not observed", in any case and with spaces around them."""

TABLE, DATA = "site_rows", "data"
CSV_SUFFIXES: Final = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz")
SUFFIXES: Final = (*CSV_SUFFIXES, ".parquet", ".pq")
DELIMITERS: Final = (",", ";", "\t", "|")
PARQUET_MAGIC: Final = b"PAR1"
"""First and last four bytes; the index stands at the end, so a copy cut short has no end."""
HEADER_BYTES_MAX: Final = 1 << 20
CONNECTION: Final[dict[str, str | bool | int | float | list[str]]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "threads": 1,  # rows keep the order of the file, also through a GROUP BY
}
_FILE_NAME: Final = re.compile(
    r"(?P<scan>\b(?:FROM|JOIN)\s+)?(?:'(?P<single>(?:[^']|'')*)'|\"(?P<double>[^\"]*)\")",
    re.IGNORECASE,
)
_LINE: Final = re.compile(r"CSV Error on Line: (\d+)")
_CSV_FILE: Final = re.compile(r"^\s*file = (.+)$", re.MULTILINE)
_FILE: Final = re.compile(r'(?:access file|pattern) "([^"]+)"')


class Rows:
    """The site's rows in DuckDB, column by column."""

    def __init__(self, connection: "duckdb.DuckDBPyConnection", source: str) -> None:
        self._connection = connection
        self.source = source
        described = connection.execute(f"SELECT * FROM {TABLE} LIMIT 0").description  # noqa: S608
        self.columns = tuple(str(column[0]) for column in described)
        self.count = self._scalar("count(*)")

    def texts(self, column: str) -> NDArray[np.object_]:
        """Trimmed text of each cell (n,), None where the cell is empty in DuckDB's sense."""
        values = self._column(_text(column))
        result: NDArray[np.object_] = np.ma.filled(values.astype(object), None)
        return result

    def numbers(self, column: str) -> tuple[Floats, int]:
        """Values (n,), NaN where missing, and how many cells are neither number nor missing."""
        text = _text(column)
        # 1_000 is a number to DuckDB and a typing mistake in a table; infinity is no measurement.
        number = (
            f"CASE lower({text}) WHEN 'true' THEN 1.0 WHEN 'false' THEN 0.0 "
            f"ELSE CASE WHEN isfinite(TRY_CAST({text} AS DOUBLE)) AND NOT contains({text}, '_') "
            f"THEN TRY_CAST({text} AS DOUBLE) END END"
        )
        missing = ", ".join(f"'{token}'" for token in MISSING)
        bad = self._scalar(
            f"count(*) FILTER ({text} IS NOT NULL AND lower({text}) NOT IN ({missing}) "
            f"AND ({number}) IS NULL)"
        )
        values = np.ma.filled(np.ma.asarray(self._column(number), dtype=np.float64), np.nan)
        return values, bad

    def _column(self, expression: str) -> Any:
        query = f"SELECT {expression} AS value FROM {TABLE}"  # noqa: S608 - columns are quoted
        return self._connection.execute(query).fetchnumpy()["value"]

    def _scalar(self, expression: str) -> int:
        row = self._connection.execute(f"SELECT {expression} FROM {TABLE}").fetchone()  # noqa: S608
        return int(row[0]) if row else 0


@contextmanager
def open_rows(config: DataConfig, directory: Path) -> Iterator[Rows]:
    """Read the site's files or query into DuckDB's memory and close it after.

    Raises ConfigError in one line: missing or unreadable file, malformed query, no rows.
    """
    import duckdb

    directory = directory.resolve()
    files = [path for source in config.sources for path in _files(source, directory)]
    query = None if config.query is None else _Query(config.query, directory)
    named = query.files if query is not None else []
    connection = duckdb.connect(":memory:", config=CONNECTION)
    try:
        directories = sorted({directory, *(path.parent for path in [*files, *named])})
        allowed = ", ".join(_quoted(f"{path}/") for path in directories)
        connection.execute(f"SET allowed_directories = [{allowed}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        if query is not None:
            _check_query(connection, query.text)
        try:
            if query is None:
                _make(connection, TABLE, " UNION ALL BY NAME ".join(map(_text_of, files)))
            else:
                tables = {DATA: files, **query.tables} if files else query.tables
                for table, parts in tables.items():
                    for part in parts:  # a torn line is told by its number here, not below
                        connection.execute(f"SELECT count(*) FROM ({_text_of(part)})")  # noqa: S608 - see there
                    _make(connection, table, " UNION ALL BY NAME ".join(map(_typed, parts)))
                _make(connection, TABLE, query.text)
        except duckdb.Error as error:
            raise ConfigError(_explain(error, config)) from None
        rows = Rows(connection, config.described)
        if rows.count == 0:
            raise ConfigError(f"{config.described}: no rows, so there is nothing to learn from")
        yield rows
    finally:
        connection.close()


def _make(connection: "duckdb.DuckDBPyConnection", table: str, select: str) -> None:
    connection.execute(f'CREATE TEMP TABLE "{table}" AS {select}')


def _files(source: str, directory: Path) -> list[Path]:
    """Expand one name or glob, sorted, so that every machine reads the files in one order."""
    paths = _expand(source, directory)
    if not paths:
        where = "" if Path(source).expanduser().is_absolute() else f" in {directory}"
        raise ConfigError(f"data.source: no file {source}{where}")
    for path in paths:
        if not path.is_file():
            raise ConfigError(f"data.source: {path.name} is not a file; write {path.name}/*.csv")
        if not path.name.lower().endswith(SUFFIXES):
            raise ConfigError(
                f"data.source: {path.name} is none of {', '.join(SUFFIXES)}; export it as one"
            )
        if path.stat().st_size == 0:
            raise ConfigError(f"{path.name}: the file is empty")
        if not path.name.lower().endswith(CSV_SUFFIXES):
            _check_parquet(path)
    return paths


def _check_parquet(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(len(PARQUET_MAGIC))
        file.seek(-min(len(PARQUET_MAGIC), path.stat().st_size), SEEK_END)
        end = file.read()
    if start != PARQUET_MAGIC or end != PARQUET_MAGIC:
        raise ConfigError(
            f"{path.name}: not a Parquet file, or only a part of one; export it again"
        )


def _expand(name: str, directory: Path) -> list[Path]:
    pattern = directory / Path(name).expanduser()
    if pattern.exists():
        return [pattern]
    return sorted(Path(path) for path in glob(str(pattern), recursive=True))  # noqa: PTH207 - may be absolute


class _Query:
    """The operator's SELECT with its files put in place, and the tables to make before it runs.

    `FROM 'a.csv'` reads a table in memory, so that `?` and `NA` are missing there too and columns
    get their type from the whole file. (DuckDB 2.0 also turns TRY_CAST over a CSV scan into CAST.)
    Any other literal that names files, such as `read_csv('a.csv', …)`, becomes an absolute path.
    """

    def __init__(self, text: str, directory: Path) -> None:
        self._directory = directory
        self.tables: dict[str, list[Path]] = {}
        self.files: list[Path] = []
        self.text = _FILE_NAME.sub(self._replace, text.strip().rstrip(";"))

    def _replace(self, match: re.Match[str]) -> str:
        name = (match["single"] or match["double"] or "").replace("''", "'")
        if "." not in name or "\n" in name:
            return match[0]
        files = [path for path in _expand(name, self._directory) if path.is_file()]
        if not files:
            return match[0]
        self.files += files
        if match["scan"] is None or not all(p.name.lower().endswith(SUFFIXES) for p in files):
            return (match["scan"] or "") + _quoted(str(self._directory / name))
        return f'{match["scan"]}"{self._table(name, files)}"'

    def _table(self, name: str, files: list[Path]) -> str:
        """Name it as DuckDB would, after the file, so that `SELECT a.age FROM 'a.csv'` works."""
        stem = Path(name).name.partition(".")[0].replace('"', "").lower() or "file"
        table, number = stem, 1
        while table in (DATA, TABLE) or self.tables.get(table, files) != files:
            number += 1
            table = f"{stem}_{number}"
        self.tables[table] = files
        return table


def _text_of(path: Path) -> str:
    """Read one file as it is written. For CSV nothing is guessed but the header's delimiter.

    DuckDB's own guess takes one torn line as proof that there is one column only, and may skip lines
    or take them for comments: patients must not vanish.
    """
    if not path.name.lower().endswith(CSV_SUFFIXES):
        return f"SELECT * FROM read_parquet({_quoted(str(path))})"  # noqa: S608 - the path is quoted
    delimiter, names = _header(path)
    columns = ", ".join(f"{_quoted(name)}: 'VARCHAR'" for name in names)
    return (
        f"SELECT * FROM read_csv({_quoted(str(path))}, auto_detect = false, header = true, "  # noqa: S608 - all parts are quoted
        f"delim = {_quoted(delimiter)}, quote = '\"', escape = '\"', columns = {{{columns}}})"
    )


def _typed(path: Path) -> str:
    """Read one file with types found over all its rows, for queries that compute.

    No BOOLEAN among them: it would turn the words yes and no into true and false.
    """
    if not path.name.lower().endswith(CSV_SUFFIXES):
        return _text_of(path)
    tokens = dict.fromkeys([*MISSING, *(token.upper() for token in MISSING), "NaN"])
    return (
        f"SELECT * FROM read_csv({_quoted(str(path))}, header = true, skip = 0, comment = '', "  # noqa: S608 - all parts are quoted
        f"delim = {_quoted(_header(path)[0])}, quote = '\"', escape = '\"', sample_size = -1, "
        "auto_type_candidates = ['BIGINT', 'DOUBLE', 'DATE', 'TIMESTAMP', 'VARCHAR'], "
        f"nullstr = [{', '.join(map(_quoted, tokens))}])"
    )


def _header(path: Path) -> tuple[str, list[str]]:
    """Delimiter and column names of a CSV file."""
    try:
        if path.name.lower().endswith(".gz"):
            with gzip.open(path, "rb") as packed:
                start = packed.readline(HEADER_BYTES_MAX)
        else:
            with path.open("rb") as file:
                start = file.readline(HEADER_BYTES_MAX)
        line = (start.decode("utf-8-sig").splitlines() or [""])[0]
    except (UnicodeDecodeError, OSError, EOFError):
        raise ConfigError(f"{path.name}: the header cannot be read; save it as UTF-8") from None
    delimiter = max(DELIMITERS, key=line.count)
    names = [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]
    for name in names:
        if not name or names.count(name) > 1:
            what = f'column "{name}" twice' if name else "a column without a name"
            raise ConfigError(f"{path.name}: the header has {what}")
    return delimiter, names


def _check_query(connection: "duckdb.DuckDBPyConnection", query: str) -> None:
    import duckdb

    try:
        statements = connection.extract_statements(query)
    except duckdb.Error as error:
        raise ConfigError(f"data.query: {_first_line(error)}") from None
    if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
        raise ConfigError("data.query: need exactly one SELECT")


def _explain(error: Exception, config: DataConfig) -> str:
    """One line without the data that DuckDB quotes: only errors about the SQL text speak freely."""
    import duckdb

    where = "data.query" if config.query is not None else config.described
    text = str(error)
    if isinstance(error, duckdb.PermissionException | duckdb.IOException):
        named = _FILE.search(text)
        file = f'"{named[1]}"' if named else "one of its files"
        return f"{where}: cannot read {file}; paths start at the site's directory"
    if isinstance(error, duckdb.BinderException | duckdb.ParserException | duckdb.CatalogException):
        return f"{where}: {_first_line(error)}"
    if "utf-8" in text.lower() or "unicode" in text.lower():
        return f"{where}: the file is not UTF-8 text; save it as UTF-8"
    line, table = _LINE.search(text), _CSV_FILE.search(text)
    at = f"line {line[1]} " if line else "a value or line "
    at += f"of {Path(table[1]).name} " if table else ""
    return f"{where}: {at}cannot be read ({type(error).__name__}); look for stray quotes or commas"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _text(column: str) -> str:
    name = column.replace('"', '""')
    return f'trim(CAST("{name}" AS VARCHAR))'
