"""One commit of a public git repository as a folder, checked by git itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from htr_ray.corpus.catalogue.entries import GitSource
from htr_ray.errors import UserError

Progress = Callable[[str], None]
# What tells a person (and a lawyer) what the files are; kept beside those that the entry names.
_PAPERS = re.compile(r"(readme|licen[cs]e|copying|citation)\b", re.IGNORECASE)
# Byte for byte as committed; no code of the repository's or the user's runs; a stalled transfer ends.
_SETTINGS = {
    "core.autocrlf": "false",
    "core.symlinks": "false",
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "60",
}
# Of fsck's complaints those that mean damage; odd dates or names in old commits are none.
_DAMAGE = re.compile(
    r"hash mismatch|corrupt|broken link|unable to read|^missing |object file .* is empty", re.MULTILINE
)
_ERRORS = [
    (r"No space left|Disk quota|disk full", "the disk (or quota) is full; free some space or set HTR_RAY_CACHE"),
    (
        r"[Cc]ould not resolve|Failed to connect|Couldn't connect|[Tt]imed out|Connection (refused|reset)|unreachable"
        r"|too slow|early EOF|unexpected disconnect",
        "no connection; check the network (git uses http_proxy and https_proxy) and run the same command again",
    ),
    (
        r"not our ref|couldn't find remote ref|unadvertised object|no such remote ref",
        "the commit is not there any more; its publisher has rewritten the history. See the repository for a newer one",
    ),
    (
        r"could not read Username|Authentication failed|[Rr]epository .*not found|does not (appear to be|exist)",
        "there is no public repository at this address any more",
    ),
]


def newest_commit(source: GitSource) -> str:
    """The commit that the repository's default branch is at now."""
    found = _git(source.url, "ls-remote", "--", source.url, "HEAD").split()
    if not found:
        raise UserError(f"{source.url}: the repository is empty")
    return found[0]


def fetch_commit(source: GitSource, commit: str, folder: Path, progress: Progress) -> None:
    """Fill the new folder ``folder`` with the files of ``commit`` that ``source`` names.

    git computes the id of everything it receives; that it adds up to ``commit`` is checked here, and again
    that the files written are those committed. Raises UserError.
    """
    url = source.url

    def git(*arguments: str) -> str:
        return _git(url, "-C", str(folder), *arguments)

    folder.mkdir(parents=True)
    # No template: it may bring hooks.
    git("init", "--quiet", "--template=")
    fetch = ("fetch", "--progress", "--depth=1", "--no-tags", "--no-recurse-submodules", "--", url, commit)
    _git(url, "-C", str(folder), *fetch, progress=progress)
    received = git("rev-parse", "FETCH_HEAD^{commit}").strip()
    if received != commit:
        raise UserError(f"{url}: asked for commit {commit}, received {received}")
    progress("checking")
    _check_objects(url, folder)
    paths = _paths(source, commit, git("ls-tree", "--name-only", "-z", commit).split("\0"), git)
    _git(url, "-C", str(folder), "checkout", "--progress", commit, "--", *paths, progress=progress)
    # A new index knows no file's size or date, so that diff reads and hashes them all.
    git("read-tree", commit)
    changed = git("diff", "--name-only", commit, "--", *paths).splitlines()
    if changed:
        raise UserError(
            f"{folder}: {len(changed)} files were not written as committed, for instance {changed[0]}; a filter in"
            " your git settings changed them, or the file system takes capitals for small letters: then set"
            " HTR_RAY_CACHE to a folder on one that does not"
        )
    shutil.rmtree(folder / ".git")


def _paths(source: GitSource, commit: str, top: list[str], git: Callable[..., str]) -> list[str]:
    if not source.paths:
        return ["."]
    for path in source.paths:
        if not git("ls-tree", "--name-only", commit, "--", path):
            raise UserError(f"{source.url}: commit {commit} has no '{path}'; the catalogue is wrong about it")
    return [*source.paths, *(name for name in top if _PAPERS.match(name))]


def _check_objects(url: str, folder: Path) -> None:
    command = [*_command(url), "-C", str(folder), "fsck", "--full", "--no-dangling", "--no-progress"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=_environment())
    damage = _DAMAGE.search(done.stdout + done.stderr)
    # Bit 1: a malformed object, which may be one of the complaints that are none.
    if damage or done.returncode & ~1:
        raise UserError(
            f"{url}: damaged in transfer or on disk ({_last_line(done.stdout + done.stderr)}); run it again"
        )


def _git(url: str, *arguments: str, progress: Progress | None = None) -> str:
    """Run git; return what it prints. ``progress`` is told what it says of itself meanwhile."""
    command = [*_command(url), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_environment())
    try:
        if progress is None:
            out, errors = process.communicate()
            said = errors.decode(errors="replace")
        else:
            # git prints nothing to stdout then, so that reading one pipe to its end cannot block on the other.
            said = _follow(process, progress)
            out, _ = process.communicate()
    except BaseException:
        process.kill()
        process.wait()
        raise
    if process.returncode != 0:
        raise UserError(f"{url}: {_explain(said)}")
    return out.decode(errors="replace")


def _follow(process: subprocess.Popen[bytes], progress: Progress) -> str:
    said = []
    for line in _lines(process):
        # Receiving objects:  45% (123/456), 12.34 MiB | 1.20 MiB/s; "remote: " is what the other side does.
        if found := re.match(r"(?:remote: )?([\w ]+:\s+\d+%.*)", line):
            progress(" ".join(found[1].split()))
        else:
            said.append(line)
    return "\n".join(said)


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """Lines of stderr as they come; progress ends in a carriage return."""
    assert process.stderr is not None
    rest = b""
    while chunk := os.read(process.stderr.fileno(), 4096):
        *whole, rest = re.split(rb"[\r\n]+", rest + chunk)
        yield from (line.decode(errors="replace") for line in whole)
    yield rest.decode(errors="replace")


def _command(url: str) -> list[str]:
    git = shutil.which("git")
    if git is None:
        raise UserError(f"git is not installed, which fetches {url}; install it (apt install git, brew install git)")
    return [
        git,
        "--literal-pathspecs",
        *(word for key, value in _SETTINGS.items() for word in ("-c", f"{key}={value}")),
    ]


def _environment() -> dict[str, str]:
    # GIT_DIR and the like are set where this runs in a hook; they would have git work in that repository.
    own = {key: value for key, value in os.environ.items() if not re.fullmatch(r"GIT_(DIR|WORK_TREE|INDEX_FILE)", key)}
    return own | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}


def _explain(said: str) -> str:
    for pattern, meaning in _ERRORS:
        if re.search(pattern, said):
            return f"{meaning} (git: {_last_line(said)})"
    return f"git failed: {_last_line(said)}"


def _last_line(said: str) -> str:
    """The line that matters: of git's, the last that says what went wrong."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return next(
        (line for line in reversed(lines) if re.match(r"(fatal|error|remote):", line)), lines[-1] if lines else "-"
    )
