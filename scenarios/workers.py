"""Jobs on several processes: results in order, notes on the way, and no process that outlives the run.

Room: scenarios. Each worker has a pipe of its own and no lock is shared, so one that is ended in the middle
of anything cannot keep the others. A worker whose parent has gone reads the end of its pipe, and ends.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Final, TypeVar

from ledger.errors import SwarmError
from scenarios.commands import ScenarioError
from scenarios.interrupts import end_quietly_on_request

END_WAIT_S: Final = 5.0
"""How long a worker has to end when it is asked; then it is killed."""

Say = Callable[[str], None]
"""How a job tells how far it is."""

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Note:
    text: str


@dataclass(frozen=True, slots=True)
class _Done:
    result: Any


@dataclass(frozen=True, slots=True)
class _Failed:
    error: SwarmError


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    pipe: "Connection[Any, Any]"
    job: int = -1


def each(
    work: Callable[[Job, Say], Result],
    jobs: Sequence[Job],
    *,
    workers: int,
    note: Callable[[Job, str], None] | None = None,
) -> Iterator[Result]:
    """Yield ``work(job, say)`` of each job, in their order, from at most ``workers`` fresh processes.

    ``note`` hears at once what a job says. Jobs, results and ``work`` itself have to be picklable.
    Raises the SwarmError that a job raises, or ScenarioError if a process ends without an answer.
    """
    crew: list[_Worker] = []
    try:
        crew.extend(_hire(work) for _ in range(min(workers, len(jobs))))
        yield from _in_order(_heard(crew, jobs, note))
    except BaseException:
        for worker in crew:
            worker.process.terminate()
        raise
    finally:
        for worker in crew:
            worker.pipe.close()
        for worker in crew:
            _end(worker.process)


def _hire(work: Callable[..., Any]) -> _Worker:
    # Fresh processes: a forked one would inherit trio's, torch's and SQLite's state.
    context = get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_work, args=(work, theirs), daemon=True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()  # with SIGINT blocked: Ctrl-C is this process's, who ends its workers
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()  # so that the end of its process is the end of the pipe
    return _Worker(process, mine)


def _heard(
    crew: list[_Worker], jobs: Sequence[Any], note: Callable[[Any, str], None] | None
) -> Iterator[tuple[int, Any]]:
    """Hand out jobs and yield (index, result) as they come."""
    todo = iter(range(len(jobs)))
    busy = {worker.pipe: worker for worker in crew if _give(worker, todo, jobs)}
    while busy:
        for pipe in wait(list(busy)):
            worker = busy[pipe]  # type: ignore[index] # wait() was given these very objects
            match _receive(worker):
                case _Note(text):
                    if note is not None:
                        note(jobs[worker.job], text)
                case _Failed(error):
                    raise error
                case _Done(result):
                    yield worker.job, result
                    if not _give(worker, todo, jobs):
                        del busy[worker.pipe]


def _give(worker: _Worker, todo: Iterator[int], jobs: Sequence[Any]) -> bool:
    at = next(todo, None)
    if at is None:
        return False
    worker.job = at
    worker.pipe.send(jobs[at])
    return True


def _receive(worker: _Worker) -> _Note | _Done | _Failed:
    try:
        said: _Note | _Done | _Failed = worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join(END_WAIT_S)
        raise ScenarioError(
            f"a process of this run ended early (exit status {worker.process.exitcode})"
        ) from None
    return said


def _in_order(results: Iterator[tuple[int, Any]]) -> Iterator[Any]:
    early: dict[int, Any] = {}
    due = 0
    for at, result in results:
        early[at] = result
        while due in early:
            yield early.pop(due)
            due += 1


def _end(process: SpawnProcess) -> None:
    process.join(END_WAIT_S)
    if process.is_alive():
        process.terminate()
        process.join(END_WAIT_S)
    if process.is_alive():
        process.kill()
        process.join()


def _work(work: Callable[..., Any], pipe: "Connection[Any, Any]") -> None:
    """Do jobs until there are no more (in a process of its own)."""
    end_quietly_on_request()  # and SIGINT is blocked

    def say(text: str) -> None:
        pipe.send(_Note(text))

    try:
        while True:
            job = pipe.recv()
            try:
                answer: _Done | _Failed = _Done(work(job, say))
            except SwarmError as error:
                answer = _Failed(error)
            pipe.send(answer)
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return  # no more jobs, nobody who would hear, or asked to end
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # all is cleaned up; the interpreter ends
