"""What all tests share: where the real handwriting lies, one embedded corpus, one local Ray."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Before anything imports torch: two OpenMP threads on two cores collapse (25 times slower was seen) as soon as
# another process wants one of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Machines that are busy with other things make single examples slow; how slow is not what is tested.
settings.register_profile("htr-ray", deadline=None)
settings.load_profile("htr-ray")

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


_verdict = 0


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(exitstatus: int) -> None:
    global _verdict
    _verdict = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """End without taking the interpreter down piece by piece.

    One process has used Ray, torch, Arrow's S3 client, PostgreSQL's and a browser's driver by now, and threads of
    theirs are still there. Seen once: 2,068 tests passed, then the process crashed after its last line, and its exit
    code was that of the crash (whose, is not known; the rooms report and transcribe alone end as usual). Jobs are
    tested as processes of their own, exit code included.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_verdict)


@pytest.fixture(scope="session")
def handwriting() -> Path:
    """The folder of real handwriting beside the checkout (see README, "Real handwriting in tests")."""
    if not (DATA / "lines").is_dir():
        pytest.skip(f"no real handwriting at {DATA}")
    return DATA


@pytest.fixture(scope="session")
def sample_corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of a small embedded sample corpus (240 lines, 12 writers)."""
    from htr_ray.corpus.sample import write_sample

    return write_sample(str(tmp_path_factory.mktemp("corpora")), lines=240, writers=12)


@pytest.fixture(scope="module")
def ray_local() -> Iterator[None]:
    """A real local Ray, shared by a module: start-up is slow on two cores."""
    import ray

    # address: never join a cluster that happens to run on this machine.
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
