"""A hub leads us no further into a network than it lies itself."""
# ruff: noqa: SIM117 - the outer block is what is given, the inner one what is tested

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from distributed_downloader import connection, reach
from distributed_downloader.cancel import Cancel
from distributed_downloader.cli.app import App
from distributed_downloader.config import AppConfig, HuggingFaceConfig
from distributed_downloader.errors import NetworkError, RefusedError, ServerError, TransferError
from distributed_downloader.hub.xet_token import XetTokens
from distributed_downloader.models import JobSpec, RepoType
from distributed_downloader.reach import Depth, InnerHosts, depth_of, resolved_depth, spelled_depth
from distributed_downloader.ssl_config import HttpClient
from distributed_downloader.transfer import hub_client
from distributed_downloader.transfer.downloader import Downloader
from distributed_downloader.transfer.hub import HubEngine
from tests.hub.proxy import ForwardProxy
from tests.net.kit import Bench, RawServer, Say, reply

HERE, PRIVATE, PUBLIC = Depth.HERE, Depth.PRIVATE, Depth.PUBLIC
COMMIT = "a" * 40

#: What an address is written as, and how far in it lies.
ADDRESSES = [
    ("127.0.0.1", HERE),
    ("127.255.255.254", HERE),
    ("0.0.0.0", HERE),
    ("169.254.169.254", HERE),
    ("169.254.170.2", HERE),
    ("100.100.100.200", HERE),
    ("168.63.129.16", HERE),
    ("192.0.0.192", HERE),
    ("224.0.0.1", HERE),
    ("255.255.255.255", HERE),
    ("::", HERE),
    ("::1", HERE),
    ("0:0:0:0:0:0:0:1", HERE),
    ("fe80::1", HERE),
    ("fe80::1%eth0", HERE),
    ("ff02::1", HERE),
    ("fd00:ec2::254", HERE),
    ("fd20:ce::254", HERE),
    ("::ffff:127.0.0.1", HERE),
    ("::ffff:a9fe:a9fe", HERE),
    ("::127.0.0.1", HERE),
    ("64:ff9b::169.254.169.254", HERE),
    ("2002:7f00:1::", HERE),
    ("10.0.0.1", PRIVATE),
    ("172.16.0.1", PRIVATE),
    ("172.31.255.255", PRIVATE),
    ("192.168.1.1", PRIVATE),
    ("100.64.0.1", PRIVATE),
    ("fd12::1", PRIVATE),
    ("fec0::1", PRIVATE),
    ("::ffff:10.0.0.1", PRIVATE),
    ("64:ff9b::c0a8:101", PRIVATE),
    ("2002:a00:1::", PRIVATE),
    ("172.32.0.1", PUBLIC),
    ("198.18.0.1", PUBLIC),
    ("8.8.8.8", PUBLIC),
    ("2600:9000::1", PUBLIC),
    ("::ffff:8.8.8.8", PUBLIC),
]
#: Hosts of addresses that by their spelling are inside, though no plain address is.
SPELLINGS = [
    ("localhost", HERE),
    ("LOCALHOST.", HERE),
    ("a.localhost", HERE),
    ("2130706433", HERE),
    ("0x7f000001", HERE),
    ("0x7f.1", HERE),
    ("017700000001", HERE),
    ("0177.0.0.1", HERE),
    ("127.1", HERE),
    ("0", HERE),
    ("2852039166", HERE),
    ("0xa9fea9fe", HERE),
    ("127.0.0.1.", HERE),
    ("\uff11\uff12\uff17.0.0.1", HERE),
    ("[::1]", HERE),
    ("[::ffff:7f00:1]", HERE),
    ("10.1", PRIVATE),
    ("3232235777", PRIVATE),
    ("0xC0.0xA8.1.1", PRIVATE),
    ("[fd00::1]", PRIVATE),
    ("huggingface.co", PUBLIC),
    ("localhost.example", PUBLIC),
    ("127.0.0.1.nip.io", PUBLIC),
    ("999999999999", PUBLIC),
]
INSIDE = [host for host, depth in SPELLINGS if depth > PUBLIC]


@pytest.mark.parametrize(("address", "depth"), ADDRESSES)
def test_addresses(address: str, depth: Depth) -> None:
    assert depth_of(address) is depth


@pytest.mark.parametrize(("host", "depth"), SPELLINGS)
def test_spellings(host: str, depth: Depth) -> None:
    assert spelled_depth(f"http://{host}:80/x") is depth
    assert spelled_depth(f"https://user@{host}/") is depth


def test_what_a_name_resolves_to() -> None:
    assert resolved_depth("http://localhost/") is HERE
    assert resolved_depth("http://no-such-host.invalid/") is PUBLIC
    assert resolved_depth("http://127.0.0.1./") is HERE


# -- behind a proxy, only the spelling tells ----------------------------------------------------------


def redirected(location: str) -> Say:
    return Say(reply(status="302 Found", Location=location, Connection="close"), "close")


def get(http: HttpClient, url: str) -> bytes:
    with http.open("GET", url, cancel=Cancel()) as response:
        return response.read1(100)


def client(endpoint: str) -> HttpClient:
    return HttpClient(HuggingFaceConfig.model_validate({"endpoint": endpoint}))


def port_of(server: RawServer) -> int:
    return int(server.url.rpartition(":")[2])


@pytest.mark.parametrize("exempt", ["", "*.nowhere,localhost,127.0.0.0/8,169.254.169.254,10.0.0.0/8,::1"])
@pytest.mark.parametrize("host", INSIDE)
def test_a_hub_behind_a_proxy_does_not_lead_inside(
    host: str, exempt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = f"http://{host}/latest/meta-data"
    with RawServer(redirected(location)) as hub, ForwardProxy() as proxy:
        proxy.hosts["hub.test:80"] = ("127.0.0.1", port_of(hub))
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", exempt)
        with pytest.raises(RefusedError, match="and the hub that leads there is not"):
            get(client("http://hub.test"), "http://hub.test/")
        assert proxy.targets() == ["http://hub.test/"]


@pytest.mark.parametrize("host", ["127.0.0.1\\@cdn.test", "127.0.0.1:1\\.cdn.test", "%31%32%37.0.0.1"])
def test_a_host_that_some_read_otherwise_is_none(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is judged and what a proxy connects to could differ."""
    with RawServer(redirected(f"http://{host}/x")) as hub, ForwardProxy() as proxy:
        proxy.hosts["hub.test:80"] = ("127.0.0.1", port_of(hub))
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with pytest.raises(ServerError, match="something that is no address"):
            get(client("http://hub.test"), "http://hub.test/")
        assert proxy.targets() == ["http://hub.test/"]


def test_a_proxy_may_lead_a_name_wherever_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(reply(b"x")) as cdn, RawServer(redirected("http://cdn.test/x")) as hub:
        with ForwardProxy() as proxy:
            proxy.hosts["hub.test:80"] = ("127.0.0.1", port_of(hub))
            proxy.hosts["cdn.test:80"] = ("127.0.0.1", port_of(cdn))
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            assert get(client("http://hub.test"), "http://hub.test/") == b"x"


def test_a_hub_inside_behind_a_proxy_leads_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(reply(b"x")) as cdn, RawServer(redirected("http://10.1.2.3/x")) as hub:
        with ForwardProxy() as proxy:
            proxy.hosts["10.9.9.9:80"] = ("127.0.0.1", port_of(hub))
            proxy.hosts["10.1.2.3:80"] = ("127.0.0.1", port_of(cdn))
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            assert get(client("http://10.9.9.9"), "http://10.9.9.9/") == b"x"


# -- without one, the address that we are connected to does -------------------------------------------


#: What addresses of this machine count as, so that a test may have servers at them.
AS_IF = {"127.0.0.1": PUBLIC, "127.0.0.2": PRIVATE, "127.0.0.3": HERE}


class World:
    """Names that lead to addresses of this machine, which count as public, private or its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        #: Name -> addresses, each for one question, the last for all that follow.
        self.names: dict[str, list[str]] = {}
        self._ask = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)
        for module in (connection, reach, hub_client):
            monkeypatch.setattr(module, "depth_of", AS_IF.__getitem__)
        monkeypatch.setattr(reach, "_depth_of_number", lambda _: PUBLIC)
        monkeypatch.setattr(reach, "depth_of", self._known)

    def _known(self, address: str) -> Depth:
        if address not in AS_IF:
            raise ValueError(address)
        return AS_IF[address]

    def _look_up(self, host: Any, *args: Any, **options: Any) -> list[Any]:  # noqa: ANN401 as the real one
        known = self.names.get(host.decode() if isinstance(host, bytes) else host)
        if known:
            host = known.pop(0) if len(known) > 1 else known[0]
        return self._ask(host, *args, **options)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


class At(RawServer):
    """A server at an address of its own."""

    def __init__(self, address: str, *says: Say | bytes) -> None:
        super().__init__(*says)
        self._listener.close()
        self._listener = socket.create_server((address, 0))
        self.port = self._listener.getsockname()[1]

    def __enter__(self) -> At:
        super().__enter__()
        return self


@pytest.mark.parametrize(
    ("hub", "target", "error"),
    [
        ("127.0.0.1", "127.0.0.2", NetworkError),
        ("127.0.0.1", "127.0.0.3", NetworkError),
        ("127.0.0.2", "127.0.0.3", NetworkError),
        ("127.0.0.1", "127.0.0.1", None),
        ("127.0.0.2", "127.0.0.1", None),
        ("127.0.0.2", "127.0.0.2", None),
        ("127.0.0.3", "127.0.0.1", None),
        ("127.0.0.3", "127.0.0.2", None),
        ("127.0.0.3", "127.0.0.3", None),
    ],
)
def test_a_name_leads_no_further_in_than_the_hub(
    world: World, hub: str, target: str, error: type[TransferError] | None
) -> None:
    world.names = {"hub.test": [hub], "cdn.test": [target]}
    with At(target, reply(b"x")) as cdn, At(hub, redirected(f"http://cdn.test:{cdn.port}/x")) as server:
        url = f"http://hub.test:{server.port}/"
        if error is None:
            assert get(client(url), url) == b"x"
            return
        with pytest.raises(error, match=r"cdn.test: is .*, and the hub that leads there is not"):
            get(client(url), url)
        assert cdn.heads == [], "not a word was said there"


def test_what_is_looked_up_again_is_judged_again(world: World) -> None:
    """What counts is the address that we are connected to, whatever was said of the name before."""
    world.names = {"hub.test": ["127.0.0.1"], "cdn.test": ["127.0.0.1", "127.0.0.3"]}
    with At("127.0.0.3", reply(b"x")) as cdn, At("127.0.0.1", b"") as hub:
        hub.says = [redirected(f"http://cdn.test:{cdn.port}/x")]
        assert resolved_depth("http://cdn.test/") is PUBLIC
        with pytest.raises(NetworkError, match="the hub that leads there is not"):
            get(client(f"http://hub.test:{hub.port}"), f"http://hub.test:{hub.port}/")
        assert cdn.heads == []


def test_a_kept_connection_is_judged_too(world: World) -> None:
    """Another hub, which may lead there, has left a connection behind."""
    world.names = {"near.test": ["127.0.0.3"], "far.test": ["127.0.0.1"], "cdn.test": ["127.0.0.3"]}
    with At("127.0.0.3", reply(b"x")) as cdn:
        way = redirected(f"http://cdn.test:{cdn.port}/x")
        with At("127.0.0.3", way) as near, At("127.0.0.1", way) as far:
            http = client(f"http://near.test:{near.port}")
            assert get(http, f"http://near.test:{near.port}/") == b"x"
            with pytest.raises(NetworkError, match="the hub that leads there is not"):
                get(http, f"http://far.test:{far.port}/")
        assert len(cdn.heads) == 1


def test_a_second_hop_is_measured_by_the_hub(world: World) -> None:
    world.names = {"hub.test": ["127.0.0.1"], "cdn.test": ["127.0.0.1"], "in.test": ["127.0.0.3"]}
    with At("127.0.0.3", reply(b"x")) as inner:
        with At("127.0.0.1", redirected(f"http://in.test:{inner.port}/x")) as cdn:
            with At("127.0.0.1", redirected(f"http://cdn.test:{cdn.port}/x")) as hub:
                with pytest.raises(NetworkError, match=r"in\.test: is on this machine"):
                    get(client(f"http://hub.test:{hub.port}"), f"http://hub.test:{hub.port}/")
        assert inner.heads == []


def test_where_the_token_goes_the_user_has_chosen(world: World) -> None:
    world.names = {"hub.test": ["127.0.0.1"], "own.test": ["127.0.0.3"]}
    with At("127.0.0.3", reply(b"x")) as own:
        with At("127.0.0.1", redirected(f"http://own.test:{own.port}/x")) as other:
            http = client(f"http://own.test:{own.port}")
            assert get(http, f"http://hub.test:{other.port}/") == b"x"


# -- hosts that the user lists ------------------------------------------------------------------------

STORAGE = InnerHosts(["*.Storage.test", "10.1.2.3"])


@pytest.mark.parametrize(
    ("url", "limit"),
    [
        ("https://a.storage.test/x", PRIVATE),
        ("https://A.B.STORAGE.TEST:9000/x?y", PRIVATE),
        ("https://user@a.storage.test./", PRIVATE),
        ("http://10.1.2.3/", PRIVATE),
        ("https://storage.test/", PUBLIC),
        ("https://a.storage.test.evil.test/", PUBLIC),
        ("https://evil.test/a.storage.test", PUBLIC),
        ("https://a.storage.test@evil.test/", PUBLIC),
        ("http://10.1.2.30/", PUBLIC),
        ("", PUBLIC),
    ],
)
def test_listed_hosts_may_lie_in_a_private_network(url: str, limit: Depth) -> None:
    assert STORAGE.limit(url, PUBLIC) is limit
    assert STORAGE.limit(url, HERE) is HERE
    assert InnerHosts().limit(url, PUBLIC) is PUBLIC


@pytest.mark.parametrize(
    ("target", "error", "advice"),
    [("127.0.0.2", None, ""), ("127.0.0.3", NetworkError, r"is right, use an endpoint there")],
)
def test_a_listed_name_leads_into_a_private_network_and_no_further(
    world: World, target: str, error: type[TransferError] | None, advice: str
) -> None:
    world.names = {"hub.test": ["127.0.0.1"], "a.storage.test": [target]}
    with At(target, reply(b"x")) as cdn, At("127.0.0.1", b"") as hub:
        hub.says = [redirected(f"http://a.storage.test:{cdn.port}/x")]
        url = f"http://hub.test:{hub.port}"
        http = HttpClient(HuggingFaceConfig.model_validate({"endpoint": url}), inner=STORAGE)
        if error is None:
            assert get(http, url) == b"x"
            return
        with pytest.raises(error, match=advice):
            get(http, url)
        assert cdn.heads == []


def test_the_switch_is_named_where_it_helps(world: World) -> None:
    world.names = {"hub.test": ["127.0.0.1"], "cdn.test": ["127.0.0.2"]}
    with At("127.0.0.2", reply(b"x")) as cdn, At("127.0.0.1", b"") as hub:
        hub.says = [redirected(f"http://cdn.test:{cdn.port}/x")]
        with pytest.raises(NetworkError, match=r"cdn\.test: .* name it in \[security\] inner_hosts"):
            get(client(f"http://hub.test:{hub.port}"), f"http://hub.test:{hub.port}/")


def test_the_settings_reach_every_engine(world: World, bench: Bench) -> None:
    """A worker and a master, as they are put together from their settings."""
    world.names = {"hub.test": ["127.0.0.1"], "cdn.test": ["127.0.0.2"]}
    file, commit = bench.file("small.json"), bench.spec().commit
    body = reply(bench.content("small.json"))
    with At("127.0.0.2", body, body, body, body) as cdn:
        to = f"http://cdn.test:{cdn.port}/x"
        way = reply(status="302 Found", Location=to, X_Repo_Commit=commit, X_Linked_Etag=str(file.git_sha1))
        with At("127.0.0.1", way, way, way, way) as hub:
            endpoint = f"http://hub.test:{hub.port}"
            for engine in ("http", "hub"):
                folder = bench.out / engine
                config = AppConfig.model_validate(
                    {
                        "huggingface": {"endpoint": endpoint, "engine": engine},
                        "app": {"output_dir": str(folder), "disk_reserve": 0},
                        "security": {"inner_hosts": "cdn.test, *.nowhere"},
                    }
                )
                with closing(Downloader(config)) as downloader:
                    task = bench.task(file.path, spec=bench.spec(endpoint=endpoint))
                    downloader.run(task, Cancel(), lambda _: None)
                assert (folder / "org/name" / file.path).read_bytes() == bench.content(file.path)
            app = App(None, {})
            app.config = config
            with app.hub._api._http.open("GET", f"{endpoint}/") as response:
                assert response.url == to


# -- the other engines --------------------------------------------------------------------------------


@pytest.fixture
def hub_engine(bench: Bench) -> Iterator[Callable[[str], HubEngine]]:
    made = list[HubEngine]()

    def make(endpoint: str) -> HubEngine:
        made.append(HubEngine(bench.settings(endpoint=endpoint)))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.mark.parametrize("spelled", [False, True])
def test_the_library_is_not_led_inside(
    world: World, bench: Bench, hub_engine: Callable[[str], HubEngine], spelled: bool
) -> None:
    world.names = {"hub.test": ["127.0.0.1"], "cdn.test": ["127.0.0.3"]}
    file = bench.file("big.bin")
    commit = bench.spec().commit
    with At("127.0.0.3", reply(bench.content("big.bin"))) as cdn:
        to = f"http://{'127.0.0.3' if spelled else 'cdn.test'}:{cdn.port}/x"
        with At(
            "127.0.0.1", reply(status="302 Found", Location=to, X_Repo_Commit=commit, X_Linked_Etag="a" * 64)
        ) as hub:
            endpoint = f"http://hub.test:{hub.port}"
            fetched = bench.fetch(file, engine=hub_engine(endpoint), spec=bench.spec(endpoint=endpoint))
            assert isinstance(fetched.error, RefusedError if spelled else NetworkError)
            assert "the hub that leads there is not" in str(fetched.error)
        assert cdn.heads == []


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("http://127.0.0.3/", RefusedError),
        ("http://127.0.0.3\\\\@public.test/", RefusedError),
        ("http://%31%32%37.0.0.3/", RefusedError),
        ("http://cas.test/", NetworkError),
        ("http://private.test/", NetworkError),
        ("file:///etc/passwd", RefusedError),
        ("ftp://cas.test/", RefusedError),
        ("gopher://127.0.0.1:6379/_FLUSHALL", RefusedError),
        ("local:///etc", RefusedError),
        ("http://", RefusedError),
        ("http://[::1", RefusedError),
        ("", RefusedError),
    ],
)
def test_xet_storage_is_not_inside(world: World, url: str, error: type[TransferError]) -> None:
    with pytest.raises(error):
        storage(world, url)


def test_xet_storage_that_is_listed_may_lie_in_a_private_network(world: World) -> None:
    assert storage(world, "http://private.test/", "private.test, cas.test") == "http://private.test/"
    with pytest.raises(NetworkError):
        storage(world, "http://cas.test/", "private.test, cas.test")


def storage(world: World, url: str, listed: str = "") -> str:
    """Return the storage's address, if a public hub that names it is believed."""
    world.names = {
        "hub.test": ["127.0.0.1"],
        "public.test": ["127.0.0.1"],
        "cas.test": ["127.0.0.3"],
        "private.test": ["127.0.0.2"],
    }
    answer = f'{{"casUrl": "{url}", "accessToken": "x", "exp": 99999999999}}'.encode()
    with At("127.0.0.1", reply(answer)) as hub:
        endpoint = f"http://hub.test:{hub.port}"
        config = AppConfig.model_validate(
            {"huggingface": {"endpoint": endpoint}, "security": {"inner_hosts": listed}}
        )
        spec = JobSpec(
            repo_type=RepoType.MODEL, repo_id="org/name", revision="main", commit=COMMIT, endpoint=endpoint
        )
        return XetTokens(HttpClient.of(config)).get(spec, Cancel()).url


# -- other ways to be led astray ----------------------------------------------------------------------

#: What a `Location` may say, and what comes of it.
LOCATIONS = [
    ("file:///etc/passwd", RefusedError),
    ("ftp://huggingface.co/x", RefusedError),
    ("gopher://huggingface.co:6379/_FLUSHALL", RefusedError),
    ("data:text/plain,x", RefusedError),
    ("javascript:alert(1)", RefusedError),
    ("unix:///run/docker.sock", RefusedError),
    ("http+unix://%2Frun%2Fdocker.sock/x", RefusedError),
    ("local:///etc", RefusedError),
    ("ldap://huggingface.co/x", RefusedError),
    ("http://", TransferError),
    ("http://:80/", TransferError),
    ("http://[::1", TransferError),
    ("http://[::1]x/", TransferError),
    ("http://huggingface.co:99999/", TransferError),
    ("http://huggingface.co:0/", TransferError),
    ("http://huggingface.co:x/", TransferError),
    ("http://a b/", TransferError),
    ("http://a%00b.invalid/", TransferError),
    ("http://" + "a" * 64 + ".invalid/", TransferError),
    ("http://" + "a." * 200 + "invalid/", TransferError),
    ("http://\u00fc\u00df.invalid/", TransferError),
    ("//no-such-host.invalid/x", TransferError),
    ("http://user:pass@no-such-host.invalid/", TransferError),
    ("http://127.0.0.1:1\\@no-such-host.invalid/", TransferError),
    ("\\\\no-such-host.invalid\\x", TransferError),
    ("///x", TransferError),
    ("?", TransferError),
    ("#", TransferError),
    (".", TransferError),
    ("http:x", TransferError),
    ("x" * 60_000, TransferError),
]


@pytest.mark.parametrize(("location", "error"), LOCATIONS, ids=[location[:40] for location, _ in LOCATIONS])
def test_redirects_that_lead_nowhere(location: str, error: type[TransferError]) -> None:
    with RawServer(redirected(location)) as server:
        with pytest.raises(error):
            get(client(server.url), f"{server.url}/")
