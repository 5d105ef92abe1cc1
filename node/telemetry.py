"""What a node says of itself: JSON lines in node.log, short lines on the terminal.

Room: node. Law: events have names and fields; a field is a number, a word or a short list of them.
Arrays, tables and mappings are cut down to their size, so no patient's values can slip into a log.
Nothing here is global but the standard library's own loggers, and they are put back afterwards.
"""

import logging
import logging.handlers
import os
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final, TextIO, final

import structlog
from structlog.stdlib import BoundLogger, ProcessorFormatter

LOGGER: Final = "swarm"
LOG_BYTES_MAX: Final = 10_000_000
LOG_FILES_KEPT: Final = 5
TEXT_CHARACTERS_MAX: Final = 300
TRACE_CHARACTERS_MAX: Final = 8_000
ITEMS_MAX: Final = 32
BYTES_SHOWN: Final = 8
"""A digest's first bytes are enough to find it again in the ledger."""

_INTERNAL = ("event", "level", "time", "logger", "exception")

logging.getLogger(LOGGER).addHandler(logging.NullHandler())


def get_log(**fields: object) -> BoundLogger:
    """Return a logger whose every event carries ``fields``. Silent until ``logging_to``."""
    log: BoundLogger = structlog.wrap_logger(
        logging.getLogger(LOGGER),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            structlog.processors.format_exc_info,
            only_plain_fields,
            ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=BoundLogger,
        cache_logger_on_first_use=False,
    )
    return log.bind(**fields)


@contextmanager
def logging_to(path: Path, level: str = "info", terminal: TextIO | None = None) -> Iterator[None]:
    """Send events to ``path`` (JSON lines, rotating) and ``terminal`` (stderr) while inside.

    What other libraries log goes to the file from WARNING on, never to the terminal.
    """
    own, root = logging.getLogger(LOGGER), logging.getLogger()
    file = _RotatingFile(path, maxBytes=LOG_BYTES_MAX, backupCount=LOG_FILES_KEPT, encoding="utf-8")
    file.setFormatter(_formatter(structlog.processors.JSONRenderer(ensure_ascii=False)))
    screen = logging.StreamHandler(terminal or sys.stderr)
    screen.setFormatter(_formatter(_short_line))
    before = (own.level, own.propagate)
    own.setLevel(level.upper())
    own.propagate = False
    for logger, handler in ((own, file), (own, screen), (root, file)):
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, handler in ((own, file), (own, screen), (root, file)):
            logger.removeHandler(handler)
        own.level, own.propagate = before
        file.close()


def only_plain_fields(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Cut every field down to what may stand in a log."""
    for key, value in event.items():
        if key.startswith("_"):
            continue  # structlog's own; taken out before anything is written
        limit = TRACE_CHARACTERS_MAX if key == "exception" else TEXT_CHARACTERS_MAX
        event[key] = _plain(value, limit)
    return event


def _plain(value: object, limit: int) -> object:
    text: object
    match value:
        case None | bool() | int() | float():
            text = value
        case str() | Path():
            text = str(value) if len(str(value)) <= limit else str(value)[:limit] + "…"
        case bytes():
            text = value[:BYTES_SHOWN].hex()
        case BaseException():
            text = f"{type(value).__name__}: {str(value).partition(chr(10))[0][:limit]}"
        case list() | tuple() | set() | frozenset() if len(value) <= ITEMS_MAX and all(
            isinstance(item, int | str | bytes) for item in value
        ):
            items = sorted(value) if isinstance(value, set | frozenset) else value
            text = [_plain(item, limit) for item in items]
        case _:
            size = f" of {len(value)}" if hasattr(value, "__len__") else ""
            text = f"<{type(value).__name__}{size}>"
    return text


def _formatter(renderer: Any) -> ProcessorFormatter:
    return ProcessorFormatter(
        processors=[_stamp, ProcessorFormatter.remove_processors_meta, renderer],
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(allow=()),
            structlog.processors.format_exc_info,
            only_plain_fields,
        ],
    )


def _stamp(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Put the record's own time first."""
    seconds = event["_record"].created
    time = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    first = {key: event[key] for key in ("level", "event") if key in event}
    return {"time": time.replace("+00:00", "Z"), **first, **event}


def _short_line(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    """Write ``14:02:07 round agreed  round=7 members=4``."""
    clock = datetime.fromisoformat(event["time"]).astimezone().strftime("%H:%M:%S")
    level = event.get("level", "info")
    mark = "" if level in ("info", "debug") else f"{level}: "
    fields = " ".join(f"{k}={_word(v)}" for k, v in event.items() if k not in _INTERNAL)
    head = f"{clock} {mark}{str(event['event']).replace('_', ' ')}"
    return f"{head}  {fields}" if fields else head


def _word(value: object) -> str:
    if isinstance(value, list):
        return ",".join(_word(item) for item in value) or "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = " ".join(str(value).split())
    return f'"{text}"' if " " in text else text


@final
class _RotatingFile(logging.handlers.RotatingFileHandler):
    """Readable by the owner alone; a full disk costs log lines, not the node."""

    def _open(self) -> TextIOWrapper:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self.baseFilename, flags, 0o600)
        return os.fdopen(descriptor, "a", encoding=self.encoding)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        with suppress(OSError, ValueError):
            sys.stderr.write(f"swarm-node: cannot write {self.baseFilename}: {record.msg!s:.80}\n")
