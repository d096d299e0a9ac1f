"""Events of a Redis that loses data: it is what it was some steps ago, or empty; its users are not."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from distributed_downloader.models import Token
from tests.queue.deliveries import Deliveries
from tests.queue.invariants import Snapshot
from tests.queue.saved import Saved, restore, save

#: What of the model lies in Redis; workers, dead or alive, know the rest.
IN_REDIS = (
    "jobs",
    "gone",
    "claimed",
    "done",
    "tries",
    "losses",
    "damages",
    "epochs",
    "on_hold",
    "heard",
    "owed",
    "folders",
    "delivered",
)
#: Ms for which Redis is away at least.
AWAY = 1000


@dataclass
class Lost(Deliveries):
    """The world as far as lost data are concerned."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.remembered: tuple[Saved, dict[str, Any]] | None = None
        self.empty = self.of_redis()
        # In most worlds it keeps what it has, or little would ever come to its end; an imitation always does.
        is_real = "path" in self.redis.connection_pool.connection_kwargs
        self.loses = self.choose.number(0, 2) == 0 and is_real
        #: What each token was ever about: a name, the first byte, and whether it is a seal.
        self.meanings: dict[str, tuple[str, str, int, bool]] = {}

    def of_redis(self) -> dict[str, Any]:
        """Return what the model knows of Redis, by itself."""
        return {name: copy.deepcopy(getattr(self, name)) for name in IN_REDIS}

    def remember(self) -> None:
        """Redis, or a replica of it, has all of this on its disk."""
        if self.loses:
            self.remembered = save(self.redis), self.of_redis()

    def lose_steps(self) -> None:
        """All that happened since is lost."""
        if self.loses and self.remembered:
            saved, known = self.remembered
            restore(self.redis, saved)
            self.take_over(known)

    def lose_all(self) -> None:
        """Redis comes back empty."""
        if not self.loses:
            return
        self.remembered = None
        self.redis.flushall()
        self.take_over(self.empty)

    def lose_tails(self) -> None:
        """Idle workers take the tails of parts, whose owners learn of it, and Redis forgets that."""
        if not self.loses:
            return
        self.share_out()
        self.remember()
        for _ in range(self.choose.of([1, 2, 4])):
            self.steal_as(self.someone())
        for worker in sorted(self.alive):
            self.progress_of(worker)
        self.lose_steps()

    def take_over(self, known: dict[str, Any]) -> None:
        """Let the model know no more of Redis than this."""
        for name, value in copy.deepcopy(known).items():
            setattr(self, name, value)
        # Who had them in hand may have reported them since, and finds them anew.
        self.claimed -= {token for worker in self.look().names("active:") for token in self.holds(worker)}
        self.pass_time(AWAY)

    def check_meanings(self, snapshot: Snapshot) -> None:
        """A token means one thing for ever, whatever Redis forgot: I15."""
        for token in snapshot.tokens:
            id_, task, _ = Token.parse(token)
            if (job := self.jobs.get(id_)) and task < len(job.tasks):
                about = job.tasks[task]
                start = about.part.start if about.part else -1
                meaning = (job.spec.repo_id, about.file.path, start, about.is_seal)
                before = self.meanings.setdefault(token, meaning)
                assert before == meaning, f"I15: {token} was {before}, and is {meaning}"
