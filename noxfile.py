"""What a change must pass: `nox` runs the tests on each Python that is there, lint and typing.

What each session installs stands in pyproject.toml's `[dependency-groups]`. The environments are
virtualenv's, never uv's: one way of installing, the one that the README tells.
"""

from __future__ import annotations

import sys

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False  # a line says which one is missing
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["tests", "lint", "typing"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
if sys.version_info < (3, 11):  # noqa: UP036 - nox itself runs on older ones
    raise SystemExit(f"fluence_async needs Python 3.11 or newer; this is {HERE}")
# This interpreter is always among them, so that "no Python was there" can never pass.
PYTHONS = sorted({*nox.project.python_versions(PYPROJECT), HERE}, key=lambda v: int(v[2:]))

# More than a small machine has cores: many tests wait for a clock, or for another process.
PYTEST = ["pytest", "-n", "4", "--dist", "worksteal"]
IN_SIMULATED_TIME = ["tests/programs/test_limits_simulated.py"]  # the same on every Python
READS_THE_NETWORK = ["tests/shell/test_transports.py", "tests/shell/test_faults.py"]


def install(session: nox.Session, *groups: str, extras: str = "all") -> None:
    """Install the checkout with its extras, and the groups' packages."""
    packages = nox.project.dependency_groups(PYPROJECT, *groups)
    session.install("--quiet", "--editable", f".[{extras}]", *packages)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The whole suite; what is simulated on one Python only, and there also what reads from the
    network, on aiohttp's own parser in Python, and the limits in ten thousand scenes."""
    install(session, "test")
    here = session.python == HERE
    elsewhere = [] if here else [f"--ignore={path}" for path in IN_SIMULATED_TIME]
    session.run(*PYTEST, *(session.posargs or elsewhere))
    if not session.posargs and here:
        session.run(*PYTEST, *READS_THE_NETWORK, env={"AIOHTTP_NO_EXTENSIONS": "1"})
        session.run("python", "-m", "benchmarks.limits", "--seeds", "10000")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, formatting, and the direction of imports."""
    install(session, "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", "--no-cache")


@nox.session
def typing(session: nox.Session) -> None:
    """Both checkers, and that every public symbol has a type."""
    install(session, "typing")
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "fluence_async", "--ignoreexternal")


@nox.session
def fuzz(session: nox.Session) -> None:
    """The decoders against naive readings: `nox -s fuzz -- --seconds N`; findings are kept."""
    install(session, "test")
    session.run("python", "-m", "tests.fuzz", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Mixed faults, random cancels, a crowd of streams: `nox -s soak -- --minutes N`."""
    install(session, "test")
    session.run("python", "-W", "error", "-m", "tests.soak", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Which lines and branches the suite runs."""
    install(session, "test")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "report")


@nox.session
def benchmarks(session: nox.Session) -> None:
    """The figures, beside bare aiohttp and the peers."""
    install(session, "bench")
    session.run("python", "-m", "benchmarks", *session.posargs)
