"""NASAggregator: brings what is owed to the NAS there, a few files at a time, beside the downloads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from distributed_downloader.config import AppConfig
from distributed_downloader.errors import RedisUnavailableError, TransferError
from distributed_downloader.models import Token
from distributed_downloader.nas_copiers import Copiers, Copy, Deliveries
from distributed_downloader.nas_trouble import Troubles
from distributed_downloader.outage import Outage
from distributed_downloader.patience import Inquiry
from distributed_downloader.queue_terms import Owed
from distributed_downloader.rules import Rules
from distributed_downloader.storage.copying import sweep_copies
from distributed_downloader.storage.leftovers import sweep
from distributed_downloader.storage.place import read_place
from distributed_downloader.unexpected import tell

log = logging.getLogger(__name__)

#: Seconds between two looks at what is owed, if nobody rings.
_LOOK = 5.0
#: Seconds for which a file is ours alone, and after which we say that we still have it.
_BUSY, _KEEP = 60.0, 20.0
#: Seconds after which a disk that does not answer is a trouble.
_SILENT = 60.0
#: Seconds after which one that has not answered yet is not worth a wait.
_SLOW = 10.0
#: Seconds for which all are held up by a folder that does not answer; after that, it is looked at beside.
_MOMENT = 1.0
#: Files of jobs that are not for this machine which one look passes over, on its way to others.
_PASSED_OVER = 1000
#: Files that it asks for at once, where some are of such jobs.
_LOOKED_AT = 100
#: Seconds between two searches for what killed workers left on the NAS.
_SWEEP = 24 * 3600.0


class NASAggregator:
    """Copies files to the NAS in threads of its own; no method waits for a disk.

    What is owed lies in Redis, so nothing is lost when this process ends, however that happens.
    `own_folder` returns the id of the worker's own output folder, "" while it has none.
    """

    def __init__(
        self, config: AppConfig, owed: Deliveries, own_folder: Callable[[], str], outage: Outage
    ) -> None:
        self._settings, self._owed, self._rules = config.nas, owed, Rules(config)
        self._nas = Path(config.nas.path)
        self._own, self._own_folder = Path(config.app.output_dir).expanduser().absolute(), own_folder
        self._outage = outage
        self._troubles = Troubles()
        self._copiers = Copiers(config.nas, owed, self._troubles, outage, self._copied)
        self._stopping = threading.Event()
        self._bell = threading.Event()
        # Guards what is known of the feeder's rounds, and tells of news.
        self._news = threading.Condition()
        self._begun = self._finished = 0
        self._owing = self._took = True
        #: Since when the feeder waits for the NAS, or None.
        self._looking: float | None = None
        #: The looks at the folders that owe files, any of which may hang.
        self._looks = Inquiry(_id_at)
        self._silent = False
        #: Why files are left to others, as far as that was said.
        self._told: set[str] = set()
        #: Those files, since one was for this machine: a look that meets no others has seen all there are.
        self._passed: set[Token] = set()
        self._swept: float | None = None
        self._sweeper: threading.Thread | None = None
        #: Id of the NAS as it was last seen; "" if it is not there.
        self.nas = ""

    # -- for the worker: any thread, any time -----------------------------------------------------

    def start(self) -> None:
        """Begin; returns at once."""
        self._copiers.start()
        for target in (self._feed, self._keep):
            threading.Thread(target=target, name="nas", daemon=True).start()

    def stop(self) -> None:
        """Stop copying; returns at once. What is half copied begins anew, on whatever worker comes first."""
        self._stopping.set()
        self._bell.set()
        self._copiers.stop()

    def join(self, seconds: float) -> bool:
        """After `stop`, wait so long at most until all is handed back; return whether it is."""
        return self._copiers.join(seconds)

    def bell(self) -> None:
        """Something new is owed: look at once."""
        self._passed.clear()  # it lies behind them
        self._bell.set()

    @property
    def trouble(self) -> str:
        """Why files do not get to the NAS at the moment, or ""."""
        return self._troubles.with_nas or self._standstill() or self._hanging() or self._troubles.text

    @property
    def answers(self) -> bool:
        """Whether the NAS was there at the last look, and neither a look at it nor a copy to it hangs now."""
        looking = self._looking
        slow = looking is not None and time.monotonic() - looking > _SLOW
        return bool(self.nas) and not slow and not self._copy_stands_still()

    @property
    def idle(self) -> bool:
        """Whether nothing is being copied, nor waits for a thread."""
        return not self._copiers.held

    @property
    def busy_copies(self) -> int:
        """How many files are being copied now."""
        return sum(copy.moved is not None for copy in self._copiers.held)

    def wait_done(self, seconds: float) -> bool:
        """Wait, so long at most, until nothing is left that this worker could bring to the NAS now.

        True too when the NAS is in trouble: nobody knows how long that takes.
        """
        with self._news:
            goal = self._begun + 1  # what the round before did not see counts too
            self._bell.set()
            return self._news.wait_for(lambda: self._is_done(goal), seconds)

    def _is_done(self, goal: int) -> bool:
        if self._troubles.with_nas or self._standstill():
            return True
        # Files that cannot be delivered stay owed, and so do those of jobs that have to end first.
        stuck = self._hanging() or self._troubles.text
        left = self._owing and not stuck and self._settings.copy_after_download
        return self._finished >= goal and not (self._took or left) and not self._copiers.moving

    def _standstill(self) -> str:
        """Say since when the NAS has not answered, if that is too long, or ""."""
        now, looking = time.monotonic(), self._looking
        if looking is not None and now - looking > _SILENT:
            return f"{self._nas}: no answer for {now - looking:.0f} s"
        return self._copy_stands_still()

    def _copy_stands_still(self) -> str:
        return self._copiers.standstill(self._looks.silent(_SLOW).keys() - {self._nas})

    def _hanging(self) -> str:
        """Say which folder hangs from which files have to get to the NAS, or ""."""
        waits = self._looks.silent(_SLOW)
        if not waits:
            return ""
        root = max(waits, key=lambda root: waits[root])
        others = f", nor for {len(waits) - 1:,} more" if len(waits) > 1 else ""
        return f"{root}, from which files are copied: no answer for {waits[root]:.0f} s{others}"

    def _copied(self) -> None:
        with self._news:
            self._news.notify_all()
        self._bell.set()

    # -- the feeder: finds what is owed -----------------------------------------------------------

    def _feed(self) -> None:
        while not self._stopping.is_set():
            self._bell.clear()
            self._guarded(self._look_around)
            self._bell.wait(_LOOK)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except RedisUnavailableError as error:
            self._outage.note(error)
        except Exception as error:  # noqa: BLE001 - the edge of a thread, which goes on
            tell(log, "NAS", error)

    def _look_around(self) -> None:
        with self._news:
            self._begun += 1
            number = self._begun
        there = self._is_there()
        if there:
            self._sweep_now_and_then()
        roots = list(self._roots(self._owed.folders())) if there else []
        seen, slow = self._look_at(roots)
        if there and not (seen or slow) and self.idle:
            self._troubles.nas_works()  # nobody is troubled any more
        if there and not roots:
            self._troubles.nothing_is_owed()
        first = number % len(seen) if seen else 0  # a folder that owes much must not hide the others
        took = [self._take(folder, root) for folder, root in seen[first:] + seen[:first]]
        if there:
            self._outage.over()
        with self._news:
            self._finished, self._took = number, True in took
            self._owing = slow or took.count(None) < len(took)
            self._news.notify_all()

    def _look_at(self, roots: Sequence[tuple[str, Path]]) -> tuple[list[tuple[str, Path]], bool]:
        """Return the folders that are seen here, and whether the next round may know more of others.

        Redis says where a folder is on some machine, and it may be of no use on this one, or hang.
        """
        # Those that we copy from too, so that a copy that hangs there is not held against the NAS.
        asked = {root for _, root in roots} | {copy.root for copy in self._copiers.held}
        ids = self._looks.ask(asked, _MOMENT)
        seen = [(folder, root) for folder, root in roots if ids.get(root) == folder]
        return seen, len(self._looks.silent(0)) > len(self._looks.silent(_SLOW))

    @contextmanager
    def _looking_at_nas(self) -> Iterator[None]:
        self._looking = time.monotonic()
        try:
            yield
        finally:
            self._looking = None

    def _is_there(self) -> bool:
        """Look whether the NAS is mounted; that costs little, so it is done every time."""
        with self._looking_at_nas():
            self.nas = read_place(self._nas)
        if not self.nas:
            self._troubles.nas_is_away(
                f"{self._nas} is not there, or is not marked as the NAS: mount it, or see `init-nas --help`"
            )
            return False
        self._troubles.nas_is_back()
        return True

    def _sweep_now_and_then(self) -> None:
        """Begin a sweep if it is time, and the last one is over; it may take long, so nobody waits for it."""
        now = time.monotonic()
        if self._swept is not None and now - self._swept <= _SWEEP:
            return
        if self._sweeper is None or not self._sweeper.is_alive():
            self._swept = now
            guarded = partial(self._guarded, self._sweep)
            self._sweeper = threading.Thread(target=guarded, name="nas-sweep", daemon=True)
            self._sweeper.start()

    def _sweep(self) -> None:
        try:
            sweep_copies(self._nas)
            sweep(self._nas)  # of large files that were put together there
        except TransferError as error:
            log.warning("old leftovers stay on the NAS: %s", error)

    def _roots(self, folders: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
        """Yield the folders with their paths on this machine; others may have mounted them elsewhere.

        Where the NAS has our own folder's id, that may be a copied one: what is owed lies in our own.
        """
        here = {self.nas: self._nas, self._own_folder(): self._own}
        return ((folder, here.get(folder, Path(path))) for folder, path in folders.items())

    def _take(self, folder: str, root: Path) -> bool | None:
        """Take what is owed, as much as the threads can soon copy; while there is trouble, one to try.

        Returns whether there may be more; None if all that could be had is not for this machine.
        """
        limit = 1 if self._troubles.with_nas else 2 * self._settings.copy_threads
        room = limit - len(self._copiers.held)
        if room <= 0 or self._troubles.resting or self._standstill() or self._stopping.is_set():
            return False
        taken, others = self._allowed(folder, room)
        for owed in taken:
            self._copiers.add(Copy(owed, folder, root))
        return bool(taken) or others

    def _allowed(self, folder: str, room: int) -> tuple[list[Owed], bool | None]:
        """Take up to `room` files of jobs that are for this machine; others go to the end of the line.

        There, a machine that may have them finds them at once. Also returns whether there may be more for
        this machine; None if there are only such others.
        """
        ended_only, taken = not self._settings.copy_after_download, list[Owed]()
        passed_over = dict[Token, str]()
        while len(taken) < room and len(passed_over) < _PASSED_OVER:
            # Where there are some that are not for us, there are many, and each look takes its time.
            limit = max(room, _LOOKED_AT) if passed_over else room
            found = self._owed.take_owed(folder, limit, _BUSY, ended_only=ended_only)
            objections = {owed.token: self._rules.objection(owed.spec) for owed in found}
            taken += [owed for owed in found if not objections[owed.token]]
            forbidden = {token: text for token, text in objections.items() if text}
            self._owed.keep_owed(folder, forbidden, 0)
            if not forbidden.keys() - passed_over.keys():
                break  # there are none, or we have been all around
            passed_over |= forbidden
        self._owed.keep_owed(folder, [owed.token for owed in taken[room:]], 0)
        self._tell_of(passed_over)
        return taken[:room], self._may_be_more(passed_over.keys(), bool(taken))

    def _may_be_more(self, passed_over: Set[Token], took: bool) -> bool | None:
        """Say whether there may be more for this machine behind what a look passed over; None if not."""
        seen_all = passed_over <= self._passed or len(passed_over) < _PASSED_OVER
        self._passed = set() if took else self._passed | passed_over
        return None if passed_over and seen_all and not took else bool(passed_over)

    def _tell_of(self, passed_over: Mapping[Token, str]) -> None:
        """Say why files are left to others, each reason once."""
        for reason in sorted(set(passed_over.values()) - self._told):
            log.warning("NAS: %s on this machine, so the job's files are left to others", reason)
            self._told.add(reason)

    # -- the keeper: says that we still have what we took -----------------------------------------

    def _keep(self) -> None:
        while not self._stopping.wait(_KEEP):
            self._guarded(self._keep_ours)

    def _keep_ours(self) -> None:
        silence = self._standstill() or self._hanging()
        if bool(silence) is not self._silent:
            self._silent = bool(silence)
            log.warning("NAS: %s", silence) if silence else log.info("NAS: it answers again")
        living = self._copiers.living()
        for folder in {copy.folder for copy in living}:
            self._owed.keep_owed(folder, [copy.key for copy in living if copy.folder == folder], _BUSY)
        if living:
            self._outage.over()


def _id_at(root: Path) -> str | None:
    """Return the id of the folder at `root`, "" or None if there is none: Redis tells of other machines."""
    try:
        return read_place(root) if root.is_absolute() else None
    except ValueError:  # no path at all
        return None
