"""A process whose event loop stands still is killed by its watchdog, also where it is stopped; a busy one is not."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT_S = 120.0


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process under a watchdog of 3 s that says when, and then does as it is told on its standard input."""
    script = tmp_path / "watched.py"
    script.write_text(
        textwrap.dedent("""
        import sys, time, trio
        from coordinator import watchdog

        watchdog.BEAT_S = 0.2

        async def main():
            async with trio.open_nursery() as nursery:
                print(await nursery.start(watchdog.watch_over_us, 3.0), flush=True)
                while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
                    if line == "hang\\n":
                        time.sleep(1_000)
                    await trio.sleep(float(line))
                    print("well", flush=True)
                nursery.cancel_scope.cancel()

        trio.run(main)
        """)
    )
    with subprocess.Popen(
        [sys.executable, str(script)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        yield process
        process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def tell(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{text}\n")
    process.stdin.flush()


def test_a_process_whose_loop_turns_lives_and_its_watchdog_ends_with_it(watched: subprocess.Popen[str]) -> None:
    watchdog = int(line(watched))
    tell(watched, "5")
    assert line(watched) == "well\n"
    os.kill(watchdog, 0)
    assert watched.stdin is not None
    watched.stdin.close()
    assert watched.wait(LIMIT_S) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(watchdog, 0)


@pytest.mark.parametrize("how", ["hang", "stop"])
def test_a_process_that_hangs_is_killed(watched: subprocess.Popen[str], how: str) -> None:
    line(watched)
    if how == "stop":
        watched.send_signal(signal.SIGSTOP)
    else:
        tell(watched, "hang")
    assert watched.wait(LIMIT_S) == -signal.SIGKILL
