"""The queue of split files: parts come into being, lose their tails to idle workers, and make a whole again.

As in redis_client.py, every call may be repeated after a lost reply, and raises RedisUnavailableError only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from distributed_downloader.checks import number_or
from distributed_downloader.models import JobState
from distributed_downloader.outcome import Range
from distributed_downloader.queue_terms import Blind, FileParts, Member, Split, Tail
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_connection import Answer, translated

#: Reports of finished parts that one answer holds.
_REPORTS = 200


class RedisParts:
    """What workers say and ask about the parts of split files."""

    def __init__(self, client: RedisClient) -> None:
        self._client, self._scripts, self._limits = client, client.scripts, client.limits

    def split(
        self,
        worker_id: str,
        token: str,
        place: str,
        parts: Sequence[Range],
        *,
        written: Sequence[Range] = (),
        file: str = "",
    ) -> Split:
        """Turn a claimed file into parts, which are put together in the folder of that id.

        What no part covers is `written` already. While another job puts together the same `file` (a name
        for file and folder; "" = nobody else can), the task waits.
        """
        if len(parts) > self._limits.parts:
            raise ValueError(f"a file has {self._limits.parts} parts at most, not {len(parts)}")
        numbers = [number for part in parts for number in part]
        there = " ".join(map(str, written))
        return Split(self._scripts.run("split", worker_id, token, place, there, file, *numbers))

    def fleet(self) -> list[Member]:
        """Return the living workers."""
        commands = self._client.commands
        with translated(self._client.address):
            about: Answer = commands.hgetall(self._client.key("fleet"))
            living: Answer = commands.zrange(self._client.key("workers"), 0, -1)
        words = {worker: [*about.get(worker, "").split(" ", 3), "", "", ""] for worker in living}
        return [
            Member(worker, number_or(slots, 1), folder.strip("-"), nas.strip("-"))
            for worker, (slots, folder, nas, *_) in words.items()
        ]

    def blind(self, worker_id: str, token: str, reason: str) -> Blind:
        """Give a task back that is none for this worker, which does not see its folder, say."""
        return Blind(self._scripts.run("blind", worker_id, token, reason))

    def steal(self, worker_id: str, bytes_per_second: float) -> Tail:
        """Take the tail of the part that has the most left, if nothing else is there to do.

        From a worker that was silent for `Limits.silence` seconds, the part is taken as a whole.
        """
        with translated(self._client.address):  # all that an idle fleet asks: a script costs more
            if not self._client.commands.zcard(self._client.key("tails")):
                return Tail(None, under_way=False)
        limits = self._limits
        silence = round(limits.silence * 1000)
        answer = self._scripts.run("steal", worker_id, int(bytes_per_second), silence, limits.least_tail)
        return Tail(answer[0] or None, int(answer[1]) > 0)

    def progress(self, worker_id: str, parts: Mapping[str, tuple[int, float]]) -> dict[str, int]:
        """Say how far each token's part is: bytes, bytes a second. Returns the present length of each.

        One that is missing in the answer is not the worker's any more.
        """
        words = [word for token, (done, rate) in parts.items() for word in (token, int(done), int(rate))]
        answer = self._scripts.run("progress", worker_id, *words)
        return dict(zip(answer[::2], map(int, answer[1::2]), strict=True))

    def is_dry(self) -> bool:
        """Return whether nothing is left to claim, so that only tails of parts are."""
        with translated(self._client.address), self._client.commands.pipeline(transaction=False) as pipe:
            pipe.llen(self._client.key("ready"))
            pipe.zcard(self._client.key("fair"))
            return not any(pipe.execute())

    def of_file(self, worker_id: str, job: int, seal: int, first: int) -> FileParts | None:
        """Return what is written of a split file, from its `first`-th report on; None if it is settled."""
        answer = self._scripts.run("parts", worker_id, job, seal, first, _REPORTS)
        if answer is None:
            return None
        state, missing, token, *reports = answer
        written = [found for report in reports for found in _ranges(report)]
        states = {state.value: state for state in JobState}
        return FileParts(states.get(state, JobState.FAILED), int(missing), token, written, len(reports))


def _ranges(report: str) -> list[Range]:
    """Read one report; what cannot be read counts as never written, and the seal fetches it again."""
    found = []
    for text in report.split():
        try:
            found.append(Range.parse(text))
        except ValueError:
            continue
    return found
