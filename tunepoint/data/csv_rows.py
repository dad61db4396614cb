"""Rows of CSV and TSV files as spreadsheets, databases and pandas write them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunepoint.data.table import NumberedRow, Table, counted
from tunepoint.errors import DataError

DELIMITERS = ",;\t|"
MAX_FIELD_CHARACTERS = 10_000_000
"""Characters in a CSV field; the csv module stops at 131,072, which a long document exceeds."""
MIN_SWALLOWED_LINES = 3
"""Lines inside one quoted field that look like rows, from which on a quote may be open."""
MIN_ROWS_BELOW = 5
"""Rows that show whether the first of them names the columns."""
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[,;\t| ]*', re.IGNORECASE)
"""Excel's first line; it names the delimiter."""


@dataclass(frozen=True, eq=False)
class _Source:
    """The lines of a file, and where and how to read them."""

    path: Path
    lines: Sequence[str]
    """With their line ends."""
    start: int
    """Position of the header among the lines."""
    delimiter: str
    skip_spaces: bool = False
    """Whether spaces between a delimiter and a quote are no part of the field."""


@dataclass(frozen=True)
class _Record:
    """The fields of a row."""

    line: int
    """The line after the row before: blank lines count as the row's, as in the ids of studies on disk."""
    begins: int
    """The line on which it really begins."""
    fields: list[str]


class _OpenQuote(Exception):
    """A record that is not quoted as CSV is."""

    def __init__(self, line: int, fault: str) -> None:
        super().__init__(fault)
        self.line = line


def csv_table(path: Path, text: str) -> Table:
    """Return the rows of a CSV or TSV file, each with its line number.

    Raises:
        DataError: a quote is left open, a row has too few or too many fields, or two columns have one name.

    """
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    lines = list(io.StringIO(text, newline=""))
    start, delimiter = 0, None
    named = _SEPARATOR_LINE.fullmatch(lines[0].rstrip("\r\n")) if lines else None
    if named:
        start, delimiter = 1, named[1]
    start = _next_line(lines, start)
    try:
        table = _read(path, lines, start, delimiter)
    except DataError:
        header = _header_below(lines, start)
        if header is None:
            raise
    else:
        if not _is_comment(table):
            return table
        header = _next_line(lines, start + 1)
    table = _read(path, lines, header, delimiter)
    note = f"{path.name}: the header is line {header + 1}; the lines above it are left out"
    return Table(table.rows, (note, *table.notes), header=table.header)


def _is_comment(table: Table) -> bool:
    """Whether the header is a comment, because the row below it names the columns.

    Names stand in no row below, and that of the longest texts is shorter than all of them.
    """
    if not (table.header or ("",))[0].startswith("#") or len(table.rows) < MIN_ROWS_BELOW:
        return False
    (_, names), *rows = table.rows
    below = {column: [row[column] for _, row in rows] for column in names}
    longest = max(below, key=lambda column: sum(map(len, below[column])))
    recurs = any(names[column] in values for column, values in below.items())
    return not recurs and len(names[longest]) < min(map(len, below[longest]))


def _next_line(lines: Sequence[str], start: int) -> int:
    """Return the position of the first line from `start` on that is not blank."""
    return next((i for i in range(start, len(lines)) if lines[i].strip()), len(lines))


def _outside_quotes(line: str) -> str:
    return re.sub(r'"[^"]*"', "", line)


def _header_below(lines: Sequence[str], start: int) -> int | None:
    """Return the position of a header under a title or comments; None if nothing looks like that.

    The header is the first line with as many delimiters as the line after it.
    """
    for position in range(start + 1, len(lines)):
        plain = _outside_quotes(lines[position])
        delimiter = max(DELIMITERS, key=plain.count)
        below = _next_line(lines, position + 1)
        if not plain.count(delimiter) or below == len(lines):
            continue
        if plain.count(delimiter) == _outside_quotes(lines[below]).count(delimiter):
            above = [line.strip() for line in lines[start:position]]
            return position if _is_preamble(above, delimiter, plain.count(delimiter)) else None
    return None


def _is_preamble(above: Sequence[str], delimiter: str, count: int) -> bool:
    """Whether lines above a header of so many delimiters are a title or comments, and no header."""
    comments = [line.startswith("#") for line in above]
    if any(
        not comment and _outside_quotes(line).count(delimiter) == count
        for line, comment in zip(above, comments, strict=True)
    ):
        return False
    return "" in above or all(
        comment or (" " in line and not any(sign in line for sign in DELIMITERS))
        for line, comment in zip(above, comments, strict=True)
    )


def _read(path: Path, lines: Sequence[str], start: int, delimiter: str | None) -> Table:
    """Return the table whose header stands at a position, quoted in the way that fits all its lines."""
    if delimiter is None:
        header = _outside_quotes(lines[start]) if start < len(lines) else ""
        delimiter = max(DELIMITERS, key=header.count)
    source = _Source(path, lines, start, delimiter)
    if delimiter == "\t":
        return _tab_separated(source)
    faults: dict[_Source, _OpenQuote | DataError] = {}
    for way in _ways_to_quote(source):
        try:
            return _quoted(way)
        except (_OpenQuote, DataError) as fault:
            faults[way] = fault
    raise _named(source, faults[source]) from None


def _ways_to_quote(source: _Source) -> Iterator[_Source]:
    """Yield the source as the kinds of CSV that it may be; the first that fits is right."""
    text = "".join(source.lines)
    spaced = re.search(re.escape(source.delimiter) + r' +"', text) is not None
    if spaced:
        yield _Source(source.path, source.lines, source.start, source.delimiter, skip_spaces=True)
    yield source
    if '\\"' in text:
        doubled = [_doubled_quotes(line) for line in source.lines]
        yield _Source(source.path, doubled, source.start, source.delimiter, skip_spaces=spaced)


def _doubled_quotes(line: str) -> str:
    r"""Return a line whose quotes are escaped as `\"` with doubled ones."""
    return re.sub(r'\\(["\\])', lambda match: '""' if match[1] == '"' else "\\", line)


def _named(source: _Source, fault: _OpenQuote | DataError) -> DataError:
    if isinstance(fault, DataError):
        return fault
    return DataError(
        f"{source.path}:{fault.line}: {fault}; is a quote left open in the row that begins on this line? "
        "Close it, or double quotes that belong to the text"
    )


def _records(source: _Source) -> Iterator[_Record]:
    """Yield the rows that are not blank, the header first."""
    reader = csv.reader(
        source.lines[source.start :],
        delimiter=source.delimiter,
        skipinitialspace=source.skip_spaces,
        strict=True,
    )
    line = begins = source.start + 1
    try:
        for fields in reader:
            after = source.start + reader.line_num + 1  # a quoted field may span several lines
            if fields:
                yield _Record(line, begins, fields)
                line = after
            begins = after
    except csv.Error as error:
        raise _OpenQuote(begins, str(error)) from None


def _quoted(source: _Source) -> Table:
    """Return a table whose fields may be quoted."""
    records = _records(source)
    top = next(records, _Record(source.start + 1, source.start + 1, []))
    header = _header(source.path, top.begins, top.fields)
    rows: list[NumberedRow] = []
    for record in records:
        fields = _fitted(record.fields, len(header))
        if fields is None:
            doubt = "" if rows else f", or is line {top.begins} not the header?"
            few = len(record.fields) < len(header)
            remedy = "add the missing ones" if few else f"quote fields that contain {source.delimiter!r}"
            raise DataError(
                f"{source.path}:{record.begins}: {counted(len(record.fields), 'field')} where the header has "
                f"{len(header)}; {remedy}{doubt}"
            )
        if fields:
            rows.append((record.line, dict(zip(header, fields, strict=True))))
    notes = _doubtful_header(source, header) + _swallowed_lines(source, rows, len(header))
    return Table(tuple(rows), tuple(notes), header=tuple(header))


def _doubtful_header(source: _Source, header: Sequence[str]) -> list[str]:
    """Return a note if the names begin as a comment does; some programs begin a line of names like that."""
    if not header or not header[0].startswith("# "):
        return []
    return [
        f"{source.path.name}:{source.start + 1}: read as the names of the columns; remove the line if it is "
        "a comment"
    ]


def _header(path: Path, line: int, names: Sequence[str]) -> list[str]:
    """Return the names of the columns; empty ones at the end, as spreadsheets leave them, are no columns."""
    bare = [name.strip() for name in names]
    while bare and not bare[-1]:
        bare.pop()
    nameless = bare.count("") > 1
    bare = [name or (f"column {i}" if nameless else "") for i, name in enumerate(bare, start=1)]
    repeated = [name for name in bare if bare.count(name) > 1]
    if repeated:
        numbers = [number for number, name in enumerate(bare, start=1) if name == repeated[0]]
        raise DataError(
            f"{path}:{line}: the columns {' and '.join(map(str, numbers))} of {len(bare)} are both named "
            f"{repeated[0]!r}; rename one of them"
        )
    return bare


def _fitted(fields: list[str], width: int) -> list[str] | None:
    """Return the fields that the header names: [] for an empty row, None if there are others or too few."""
    if len(fields) != width and not any(field.strip() for field in fields):
        return []
    if len(fields) < width or any(field.strip() for field in fields[width:]):
        return None
    return fields[:width]


def _swallowed_lines(source: _Source, rows: Sequence[NumberedRow], width: int) -> list[str]:
    """Return a warning of fields that hold lines which look like rows of their own."""
    starts = [line for line, _ in rows]
    suspects = []
    for line, end in zip(starts, [*starts[1:], len(source.lines) + 1], strict=False):
        inner = source.lines[line : end - 1]
        alike = sum(len(text.split(source.delimiter)) == width for text in inner)
        if width > 1 and alike >= max(MIN_SWALLOWED_LINES, 0.8 * len(inner)):
            suspects.append((line, len(inner)))
    if not suspects:
        return []
    line, count = suspects[0]
    return [
        f"{source.path.name}:{line}: a quoted field holds {counted(count, 'line')} that look like rows "
        f"({counted(len(suspects), 'field')} like that); is its quote left open?"
    ]


def _tab_separated(source: _Source) -> Table:
    """Return a table whose fields are separated by tabs; its quotes may enclose fields or be plain text.

    Quotes enclose fields unless that fails, or makes one field of lines that are all rows by themselves.
    """
    literal = _literal(source)
    try:
        quoted = _quoted(source)
    except (_OpenQuote, DataError) as fault:
        if literal is None:
            raise _named(source, fault) from None
        return literal
    return literal if literal is not None and len(literal.rows) > len(quoted.rows) else quoted


def _literal(source: _Source) -> Table | None:
    """Return a table with a row on each line, whose stray quotes are text; None if a line does not fit."""
    lines = [
        (number, [_unquoted(field) for field in text.rstrip("\r\n").split(source.delimiter)], text)
        for number, text in enumerate(source.lines[source.start :], start=source.start + 1)
        if text.strip()
    ]
    if not lines:
        return None
    header = _header(source.path, lines[0][0], lines[0][1])
    rows: list[NumberedRow] = []
    for number, fields, _ in lines[1:]:
        fitting = _fitted(fields, len(header))
        if fitting is None:
            return None
        if fitting:
            rows.append((number, dict(zip(header, fitting, strict=True))))
    stray = [number for number, fields, _ in lines if any(field.startswith('"') for field in fields)]
    note = (
        f"{source.path.name}:{stray[0] if stray else source.start + 1}: quotes that do not enclose a field "
        f"are read as text ({counted(len(stray), 'line')} begin with one)"
    )
    return Table(tuple(rows), (note,), header=tuple(header))


def _unquoted(field: str) -> str:
    """Return what a field holds that is quoted as a whole; any other field as it is."""
    if len(field) > 1 and re.fullmatch(r'"(?:[^"]|"")*"', field):
        return field[1:-1].replace('""', '"')
    return field
