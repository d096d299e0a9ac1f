"""A folder in which somebody else lays links, pipes and traps: nothing outside is written or removed."""

from __future__ import annotations

import itertools
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import TransferError, TransientError
from distributed_downloader.models import JobSpec, Part, RepoFile, RepoType
from distributed_downloader.storage import RepoFolder
from distributed_downloader.storage.copying import sweep_copies
from distributed_downloader.storage.disk import open_folder
from distributed_downloader.storage.durable import make_durable
from distributed_downloader.storage.leftovers import sweep
from distributed_downloader.storage.nas import NasFolder
from distributed_downloader.storage.place import make_place, read_marker, read_place
from distributed_downloader.storage.split import SplitFile

STATE = ".hf-downloader"
FILE = RepoFile(path="sub/a.bin", size=4)
OLD = time.time() - 30 * 24 * 3600
ROUNDS = 40


def spec() -> JobSpec:
    return JobSpec(
        repo_type=RepoType.MODEL, repo_id="org/name", revision="main", commit="a" * 40, endpoint="http://hub"
    )


@dataclass(frozen=True)
class Site:
    """A folder of ours, and one of somebody else's that nothing of ours may touch."""

    root: Path
    victim: Path

    def state(self, *parts: str) -> Path:
        return self.root.joinpath(STATE, *parts)

    def seen(self) -> dict[str, tuple[int, int, bytes]]:
        """Return all that lies at the victim's: mode, time and content."""
        found: dict[str, tuple[int, int, bytes]] = {}
        for path in sorted(self.victim.rglob("*")):
            info = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
            found[str(path)] = (info.st_mode, info.st_mtime_ns, content)
        return found


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """The victim has all the names that we use, and all is old, so that a sweep would take it."""
    root, victim = tmp_path / "out", tmp_path / "victim"
    root.mkdir()
    for folder in ("partial", "repos", "org/name/sub", "name/sub", "sub", STATE, "x.staging/y", "alone"):
        (victim / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("", "partial", "repos", "sub", "name/sub", "x.staging", "x.staging/y", "alone", STATE):
        for name in (
            "a.bin",
            "old.part",
            "~0123456789ab",
            "place",
            "org--name",
            f"{'0' * 32}.{'0' * 12}.copy",
        ):
            (victim / folder / name).write_bytes(b"precious")
            os.utime(victim / folder / name, (OLD, OLD))
    return Site(root, victim)


# -- what is done in a folder -------------------------------------------------------------------------


def whole(site: Site) -> None:
    folder = RepoFolder(site.root, spec())
    folder.claim_folder()
    with folder.partial(FILE, Cancel()) as partial:
        partial.write(b"mine")
        partial.make_staging()
        partial.remove_staging()
        folder.publish(partial, FILE)


def kept(site: Site) -> None:
    """As a worker does: the folders stay open from the first look to the last."""
    with RepoFolder(site.root, spec(), place=read_place(site.root)) as folder:
        folder.is_place()
        folder.claim_folder()
        folder.has(FILE, Cancel())
        with folder.partial(FILE, Cancel()) as partial:
            partial.write(b"mine")
            folder.publish(partial, FILE, sync=False)
    make_durable(folder.published(FILE))


def look(site: Site) -> None:
    assert not RepoFolder(site.root, spec()).has(
        RepoFile(path="sub/a.bin", size=8, git_sha1="0" * 40), Cancel()
    )


def alone(site: Site) -> None:
    with RepoFolder(site.root, spec()).alone():
        pass


def split(site: Site) -> None:
    make_place(site.root, create_root=False)
    file = SplitFile(site.root, spec(), FILE, Cancel())
    file.prepare()
    with file.part(Part(start=0, length=4, seal=0)) as sink:
        sink.write(b"mine")
    file.records()
    file.publish()
    file.discard()


def deliver(site: Site) -> None:
    make_place(site.root, create_root=False)
    source = site.root.parent / "source"
    whole(Site(source, site.victim))
    nas = NasFolder(site.root, spec())
    delivery = nas.deliver(source, FILE, Cancel(), read_back=True)
    nas.look(FILE, Cancel())
    nas.remove_source(source, FILE, delivery, Cancel())


def bring(site: Site) -> None:
    """From the folder to a NAS, and removed then."""
    nas = site.root.parent / "nas"
    nas.mkdir(exist_ok=True)
    make_place(nas, create_root=False)
    there = NasFolder(nas, spec())
    delivery = there.deliver(site.root, FILE, Cancel())
    there.remove_source(site.root, FILE, delivery, Cancel())


def sweeping(site: Site) -> None:
    sweep(site.root, older_than=0)
    sweep_copies(site.root, older_than=0)


def mark(site: Site) -> None:
    read_place(site.root)
    make_place(site.root, create_root=False)


DEEDS: dict[str, Callable[[Site], None]] = {
    deed.__name__: deed for deed in (whole, kept, look, alone, split, deliver, bring, sweeping, mark)
}
#: Where a link lies, and where it leads at the victim's.
PLACES = [
    (STATE, ""),
    (STATE, STATE),
    (f"{STATE}/partial", "partial"),
    (f"{STATE}/repos", "repos"),
    (f"{STATE}/alone", "alone"),
    (f"{STATE}/place", "place"),
    (f"{STATE}/repos/org--name", "org--name"),
    (f"{STATE}/alone/org--name", "a.bin"),
    ("org", ""),
    ("org", "org"),
    ("org/name", ""),
    ("org/name/sub", "sub"),
    ("org/name/sub/a.bin", "a.bin"),
]


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize(("where", "to"), PLACES)
@pytest.mark.parametrize("relative", [False, True])
def test_no_link_is_followed(site: Site, deed: str, where: str, to: str, relative: bool) -> None:
    link, goal = site.root / where, site.victim / to
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(goal, link.parent) if relative else goal)
    before = site.seen()
    with suppress(TransferError):
        DEEDS[deed](site)
    assert site.seen() == before
    assert link.is_symlink()


def fifo(path: Path) -> None:
    os.mkfifo(path)


def bound(path: Path) -> None:
    """A socket; its path is short, for there is a limit."""
    with opened(path.parent) as here, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{here}/{path.name}")


def device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero
    except PermissionError:  # only root makes them
        os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()
    (path / "precious").write_bytes(b"precious")


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def circle(path: Path) -> None:
    path.symlink_to(path.name)


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


def binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 8)


def closed(path: Path) -> None:
    path.write_bytes(b"precious")
    path.chmod(0)


KINDS: dict[str, Callable[[Path], None]] = {
    kind.__name__: kind for kind in (fifo, bound, device, folder, dangling, circle, huge, binary, closed)
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", [where for where, _ in PLACES if where != f"{STATE}/alone"])
def test_nothing_odd_holds_us_or_crashes_us(site: Site, kind: str, where: str) -> None:
    """Each deed ends, well or with an error of ours; a pipe would hold for ever whoever opens it plainly."""
    path = site.root / where
    path.parent.mkdir(parents=True, exist_ok=True)
    KINDS[kind](path)
    before = site.seen()
    for deed in DEEDS.values():
        with suppress(TransferError):
            deed(site)
    assert site.seen() == before


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_odd_among_leftovers_holds_a_sweep(site: Site, kind: str) -> None:
    """A sweep ends, takes what is old and ours, and leaves what we never made."""
    names = {"x.part", "x.part.staging", "x.split", "x.records", "~0123456789ab"}
    for parts in (("partial",), ("repos",), ()):
        site.state(*parts).mkdir(parents=True, exist_ok=True)
        for name in names:
            KINDS[kind](site.state(*parts, name))
            os.utime(site.state(*parts, name), (OLD, OLD), follow_symlinks=False)
    before, is_file = site.seen(), site.state("x.part").is_file()
    for _ in range(2):  # for a staging folder goes when its partial has gone
        sweep(site.root)
    assert site.seen() == before
    stays = set() if is_file else {"x.part", "x.part.staging", "~0123456789ab"}
    assert {path.name for path in site.state("partial").iterdir()} == stays
    for parts in (("repos",), ()):
        left = {path.name for path in site.state(*parts).iterdir()} - {"partial", "repos"}
        assert left == (names - {"~0123456789ab"} if is_file else names)


# -- a link that comes at the worst moment ------------------------------------------------------------


@contextmanager
def swapping(path: Path, goal: Path) -> Iterator[Callable[[], int]]:
    """Swap a folder for a link to `goal` and back, as fast as it goes; yields how often it did so far."""
    over, count = threading.Event(), [0]
    link = path.with_name(f"{path.name}-link")

    def run() -> None:
        for number in itertools.count():
            if over.is_set():
                return
            # Another name each time: where what is tried makes the folder anew, it cannot come back.
            aside = path.with_name(f"{path.name}-aside-{number}")
            with suppress(OSError):
                if not link.is_symlink():
                    link.symlink_to(goal)
                path.rename(aside)
                link.rename(path)
                count[0] += 1
                path.rename(link)
                aside.rename(path)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield lambda: count[0]
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("deed", ["whole", "kept", "split", "deliver", "sweeping", "alone", "mark"])
@pytest.mark.parametrize(
    ("where", "to"), [(STATE, ""), (f"{STATE}/partial", "partial"), ("org/name", ""), ("org/name/sub", "sub")]
)
def test_a_folder_that_becomes_a_link_in_between(site: Site, deed: str, where: str, to: str) -> None:
    (site.root / where).mkdir(parents=True)
    site.state("partial").mkdir(parents=True, exist_ok=True)
    before = site.seen()
    with opened(site.state("partial")) as leftovers, swapping(site.root / where, site.victim / to) as swaps:
        done = 0
        while done < ROUNDS or not swaps():
            os.close(os.open("left.part", os.O_CREAT | os.O_RDWR, dir_fd=leftovers))  # for the sweep
            with suppress(TransferError):
                DEEDS[deed](site)
            done += 1
    assert site.seen() == before


@contextmanager
def opened(folder: Path) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.mark.parametrize("part", ["partial", "repos", ""])
def test_a_sweep_whose_folder_becomes_a_link_between_look_and_removal(
    site: Site, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.state(part).mkdir(parents=True)
    site.state("partial").mkdir(exist_ok=True)
    for name in ("old.part", "~0123456789ab"):
        site.state(part, name).write_bytes(b"x")
        os.utime(site.state(part, name), (OLD, OLD))
    before, really = site.seen(), open_folder

    @contextmanager
    def swapped(root: Path, parts: Sequence[bytes], *, create: bool = True) -> Iterator[int]:
        with really(root, parts, create=create) as fd:
            if parts[1:] == [part.encode()] * bool(part):
                site.state(part).rename(site.root / "aside")
                site.state(part).symlink_to(site.victim / part)
            yield fd

    monkeypatch.setattr("distributed_downloader.storage.open_folder", swapped)
    with suppress(TransferError):
        sweep(site.root)
    assert site.seen() == before
    assert not (site.root / "aside" / "~0123456789ab").exists(), "what was looked at is what was swept"


# -- files of other people ----------------------------------------------------------------------------


def test_a_hard_link_to_somebody_elses_file_is_not_written(site: Site) -> None:
    repo = RepoFolder(site.root, spec())
    with repo.partial(FILE, Cancel()) as partial:
        partial.write(b"x")
    [path] = site.state("partial").iterdir()
    path.unlink()
    os.link(site.victim / "a.bin", path)
    before = (site.victim / "a.bin").read_bytes()
    whole(site)
    assert (site.victim / "a.bin").read_bytes() == before


def test_a_split_file_with_a_second_name_is_not_written(site: Site) -> None:
    make_place(site.root, create_root=False)
    file = SplitFile(site.root, spec(), FILE, Cancel())
    site.state("partial").mkdir(exist_ok=True)
    os.link(site.victim / "a.bin", file.path)
    with pytest.raises(TransferError):
        file.prepare()
    assert (site.victim / "a.bin").read_bytes() == b"precious"


def test_a_published_file_that_is_a_hard_link_is_replaced_and_not_written(site: Site) -> None:
    (site.root / "org/name/sub").mkdir(parents=True)
    os.link(site.victim / "a.bin", site.root / "org/name/sub/a.bin")
    whole(site)
    assert (site.root / "org/name/sub/a.bin").read_bytes() == b"mine"
    assert (site.victim / "a.bin").read_bytes() == b"precious"


def test_a_partial_that_was_swapped_is_not_published(site: Site) -> None:
    """Whoever may write there could else have another content published as ours."""
    repo = RepoFolder(site.root, spec())
    with repo.partial(FILE, Cancel()) as partial:
        partial.write(b"mine")
        [path] = site.state("partial").iterdir()
        path.unlink()
        path.write_bytes(b"evil")
        with pytest.raises(TransientError, match="was removed while it was in use"):
            repo.publish(partial, FILE)
    assert not (site.root / "org/name/sub/a.bin").exists()


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_what_is_not_complete_is_ours_alone(site: Site, umask: int) -> None:
    before = os.umask(umask)
    try:
        repo = RepoFolder(site.root, spec())
        with ExitStack() as stack:
            stack.enter_context(repo.partial(FILE, Cancel())).write(b"x")
            second = stack.enter_context(repo.partial(FILE, Cancel()))  # a private one, for the first is held
            second.write(b"y")
            second.make_staging()
            make_place(site.root, create_root=False)
            SplitFile(site.root, spec(), FILE, Cancel()).prepare()
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in site.state("partial").iterdir()}
            assert len(modes) == 4
            assert {mode & 0o077 for mode in modes.values()} == {0}
            second.remove_staging()
    finally:
        os.umask(before)


def test_a_staging_folder_that_is_a_link_is_not_emptied(site: Site) -> None:
    repo, before = RepoFolder(site.root, spec()), site.seen()
    with repo.partial(FILE, Cancel()) as partial:
        partial.staging.symlink_to(site.victim)
        made = partial.make_staging()
        assert not made.is_symlink()
        (made / "link").symlink_to(site.victim)
        (made / "deep").mkdir()
        (made / "deep" / "link").symlink_to(site.victim / "sub")
        partial.remove_staging()
        assert not made.exists()
    assert site.seen() == before


@pytest.mark.parametrize(
    "text",
    [b"", b"\0" * 5000, b"\xff" * 33, b"a" * 33, b"a" * 32, b"A" * 32 + b"\n", b"../" * 11, b"a" * 10**6],
)
def test_a_marker_that_is_none(site: Site, text: bytes) -> None:
    site.state().mkdir()
    site.state("place").write_bytes(text)
    assert read_place(site.root) == ""
    with pytest.raises(TransferError):
        make_place(site.root, create_root=False)


def test_a_marker_is_read_up_to_its_beginning_only(site: Site) -> None:
    huge(site.root / "marker")
    with opened(site.root) as here:
        assert len(read_marker(here, "marker")) == 1024


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to others")
def test_what_others_left_is_not_swept(site: Site) -> None:
    site.state("partial").mkdir(parents=True)
    left = site.state("partial", "old.part")
    left.write_bytes(b"theirs")
    os.chown(left, 12345, 12345)
    os.utime(left, (OLD, OLD))
    assert sweep(site.root) == 0
    assert left.exists()
