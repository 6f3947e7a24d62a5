"""What a user's tests are given by the pytest plugin: each case is a pytest run of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run pytest on some source, in a directory of its own."""

    def run(source: str, *arguments: str, **files: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_it.py").write_text(textwrap.dedent(source))
        (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
        for name, text in files.items():
            (tmp_path / name.replace("_", ".")).write_text(textwrap.dedent(text))
        return pytest_in(tmp_path, *arguments)

    return run


def pytest_in(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    plain = ["-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov", "-p", "pytest_fluence"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--strict-markers", *plain, *arguments],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_example_passes_on_both_backends() -> None:
    done = pytest_in(ROOT, "examples/tests", "-W", "error", "--rootdir", "examples/tests")
    assert done.stdout.splitlines()[-1].startswith("10 passed"), done.stdout


def test_the_readmes_tests_pass_on_both_backends(run: Run) -> None:
    fence = re.compile(r"^```python\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
    blocks = fence.findall((ROOT / "README.md").read_text("utf-8"))
    (tests,) = [block for block in blocks if "def test_" in block]
    done = run(tests)
    assert done.stdout.splitlines()[-1].startswith("4 passed"), done.stdout


def test_nothing_is_loaded_until_a_fixture_is_used(run: Run) -> None:
    done = run(
        """
        import sys

        def loaded():
            names = ("fluence_async", "aiohttp", "anyio", "msgspec", "asyncio")
            return [name for name in names if name in sys.modules]

        def test_before():
            assert loaded() == []

        def test_with(fluence_server):
            assert "aiohttp" in loaded()
        """,
        "-p",
        "no:anyio",
        "-p",
        "no:asyncio",
        "-p",
        "no:hypothesispytest",
    )
    assert done.stdout.splitlines()[-1].startswith("2 passed"), done.stdout


def test_each_test_has_a_server_of_its_own_and_may_say_how_it_is(run: Run) -> None:
    done = run(
        """
        import pytest, urllib.request

        seen = set()

        @pytest.mark.parametrize("turn", range(2))
        def test_fresh(fluence_server, turn):
            fluence_server.script("Hello")
            assert fluence_server.requests == []
            seen.add(id(fluence_server))
            url = fluence_server.base_url + "/models"
            key = {"authorization": "Bearer " + fluence_server.api_key}
            urllib.request.urlopen(urllib.request.Request(url, headers=key)).close()
            assert len(fluence_server.requests) == 1

        @pytest.mark.fluence_server(api_keys=["mine"], limits=None)
        def test_marked(fluence_server):
            assert fluence_server.api_key == "mine"

        @pytest.mark.fluence_session(max_retries=0, limiter="memory")
        def test_marked_session(fluence_session, fluence_server):
            assert fluence_session.limiter is not None
            assert fluence_session.base_url == fluence_server.base_url
            seen.add(fluence_session)

        def test_closed():
            assert [repr(each) for each in seen if "Session" in repr(each)][0].endswith("closed>")
        """
    )
    assert done.stdout.splitlines()[-1].startswith("5 passed"), done.stdout


@pytest.mark.parametrize("name", ["fluence_server", "fluence_session"])
def test_a_marker_with_an_option_that_has_no_name_is_an_error(run: Run, name: str) -> None:
    done = run(
        f"""
        import pytest

        @pytest.mark.{name}(60)
        def test_marked({name}):
            pass
        """
    )
    assert done.returncode == 1
    assert f"TypeError: @pytest.mark.{name}(60): its options go by name" in done.stdout


SYNC = """
    import asyncio

    def test_it(fluence_server, fluence_session):
        fluence_server.script("Hello")

        async def program():
            create = fluence_session.chat.completions.create
            return (await create(model="fluence-chat", messages="hi")).text

        assert asyncio.run(program()) == "Hello"
        fluence_server.assert_requested(1, text="hi")
    """
ANYIO = """
    import pytest

    pytestmark = pytest.mark.anyio

    @pytest.fixture(scope="module")
    def anyio_backend():
        return "{backend}"

    @pytest.fixture(scope="module")
    async def held():  # keeps the loop beyond a test
        yield 1

    @pytest.mark.parametrize("turn", range(2))
    async def test_it(held, fluence_server, fluence_session, turn):
        fluence_server.script("Hello")
        create = fluence_session.chat.completions.create
        assert (await create(model="fluence-chat", messages="hi")).text == "Hello"
        await fluence_server.wait_until_idle(connections=1)
    """
OWN_LOOP = """
    async def test_it(fluence_server, fluence_session):
        fluence_server.script("Hello")
        create = fluence_session.chat.completions.create
        assert (await create(model="fluence-chat", messages="hi")).text == "Hello"
    """
RUNS_COROUTINES = """
    import asyncio, inspect, pytest

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(pyfuncitem):
        if inspect.iscoroutinefunction(pyfuncitem.obj):
            names = pyfuncitem._fixtureinfo.argnames
            asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
            return True
    """


@pytest.mark.parametrize(
    ("source", "conftest", "passed"),
    [
        pytest.param(SYNC, "", 1, id="sync"),
        pytest.param(ANYIO.format(backend="asyncio"), "", 2, id="asyncio"),
        pytest.param(ANYIO.format(backend="trio"), "", 2, id="trio"),
        pytest.param(OWN_LOOP, RUNS_COROUTINES, 1, id="another plugin's loop"),
    ],
)
def test_it_serves_sync_tests_and_async_ones_of_any_plugin(
    run: Run, source: str, conftest: str, passed: int
) -> None:
    done = run(source, conftest_py=conftest)
    assert done.stdout.splitlines()[-1].startswith(f"{passed} passed"), done.stdout
    assert done.stderr == ""


def test_a_failed_test_shows_what_the_server_was_asked(run: Run) -> None:
    done = run(SYNC.replace('text="hi"', 'text="bye"'))
    assert done.returncode == 1
    assert "requests with text='bye': expected exactly 1, and of 1 that came 0 fit:" in done.stdout
    section = done.stdout.partition("requests to fluence_server")[2]
    assert "200  'hi'  model='fluence-chat'" in section
    assert "fluence-test-key" not in done.stdout


DOOR = """
    import socket, pytest
    from fluence_async.testing import NetworkForbidden

    def leave():
        socket.create_connection(("192.0.2.1", 443), timeout=0.01)
    """


def test_the_door_is_closed_by_a_marker(run: Run) -> None:
    done = run(
        DOOR
        + """
    @pytest.fixture
    def leaves():
        with pytest.raises(NetworkForbidden, match="192.0.2.1:443"):
            leave()

    @pytest.mark.forbid_network
    def test_closed(leaves, fluence_server):
        with pytest.raises(NetworkForbidden, match="allow_network"):
            leave()

    @pytest.mark.forbid_network(allow=["192.0.2.1"])
    def test_let_in():
        with pytest.raises(OSError):
            leave()

    def test_open():
        with pytest.raises(OSError):
            leave()
        """
    )
    assert done.stdout.splitlines()[-1].startswith("3 passed"), done.stdout


def test_the_door_is_closed_for_all_by_the_ini_file(run: Run) -> None:
    done = run(
        DOOR
        + """
    def test_closed():
        with pytest.raises(NetworkForbidden):
            leave()

    @pytest.mark.allow_network
    def test_open():
        with pytest.raises(OSError):
            leave()
        """,
        "-o",
        "fluence_forbid_network=true",
    )
    assert done.stdout.splitlines()[-1].startswith("2 passed"), done.stdout


def test_it_is_installed_as_a_plugin_of_pytest() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert '[project.entry-points.pytest11]\npytest_fluence = "pytest_fluence"\n' in project
    assert '"/pytest_fluence.py"' in project
