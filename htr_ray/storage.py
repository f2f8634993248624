"""Files at any URI that pyarrow opens: a local path, ``file://``, ``s3://``, ``gs://``; and on the hub: ``hf://``.

S3-compatible stores (MinIO, Ceph) are found by ``AWS_ENDPOINT_URL``; region by ``AWS_REGION`` or
``AWS_DEFAULT_REGION``; credentials come from the usual places (environment, ``~/.aws``, instance role).
``hf://datasets/NAMESPACE/NAME@REVISION/PATH`` is read from the Hugging Face hub, or the one at ``HF_ENDPOINT``.
What a user can cure (wrong URI, not found, no access) is raised as UserError naming the URI; what may also pass by
itself as ``MayPass``, so that callers can retry: a store that does not answer (``Unavailable``), a disk that is full
(``DiskFull``).
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from htr_ray.errors import UserError
from htr_ray.storage_hub import hub_filesystem, is_hub_error

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_KNOWN = "a local path, file:///path, s3://bucket/path, gs://bucket/path or hf://datasets/namespace/name/path"
_HUB_HINT = "; a dataset that is not public needs HF_TOKEN"
# With waits that double: 15 seconds in all for a store that refuses connections.
_S3_ATTEMPTS = 6
# Object stores answer slowly but in parallel.
_COPY_THREADS = 8


class MayPass(UserError, OSError):
    """A fault of the storage that may pass; trying again later may help."""


class DiskFull(MayPass):
    """The disk, or the quota on it, is full."""


class Unavailable(MayPass):
    """The storage did not answer, or answered with a fault of its own; trying again may help."""


class OddNames(UserError):
    """Local file names that are not UTF-8: archives made on Windows, unpacked on Linux."""


def filesystem(uri: str) -> tuple[fs.FileSystem, str]:
    """Return the pyarrow filesystem of ``uri`` and the path inside it.

    A path without a scheme is local and made absolute. Raises UserError for a URI that cannot be opened, and for
    one with a password in it: where things are is written to results, logs and MLflow, for others to read.
    """
    if not isinstance(uri, str) or not uri.strip():
        raise UserError(f"storage: empty URI; give {_KNOWN}")
    match = _SCHEME.match(uri)
    if match is None:
        return fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(uri))
    scheme, rest = match.group(1).lower(), uri[match.end() :]
    _refuse_password(scheme, rest)
    if scheme == "file":
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost"):
            raise UserError(f"{uri}: a file URI has three slashes: file:///{parts.netloc}{parts.path}")
        return fs.LocalFileSystem(), unquote(parts.path).rstrip("/") or "/"
    if scheme in ("s3", "gs") and not rest.split("?")[0].split("/")[0]:
        raise UserError(f"{uri}: names no bucket; write {scheme}://bucket/path")
    with user_errors(uri):
        if scheme == "s3" and "?" not in rest and "@" not in rest.split("/")[0]:
            return _s3(*_s3_environment()), _clean(rest)
        if scheme == "gs" and "?" not in rest and "@" not in rest.split("/")[0]:
            return _gcs(), _clean(rest)
        if scheme == "hf":
            return hub_filesystem(uri), _clean(rest)
        try:
            if scheme not in ("s3", "gs"):
                return fs.FileSystem.from_uri(uri)
            # Names are taken as they are, with a query as without: from_uri takes no blanks, and %20 for one.
            whole, mark, query = rest.partition("?")
            bucket, _, name = whole.partition("/")
            store, place = fs.FileSystem.from_uri(f"{scheme}://{bucket}{mark}{query}")
            return store, _clean(f"{place}/{name}")
        except (ValueError, NotImplementedError, ImportError) as error:
            raise UserError(f"{uri}: cannot be opened ({_first_line(error)}); give {_KNOWN}") from error


def normalise(uri: str) -> str:
    """Make a local path absolute and drop trailing slashes, so that other processes mean the same place."""
    filesystem_, path = filesystem(uri)
    return path if isinstance(filesystem_, fs.LocalFileSystem) else _with_path(uri, lambda p: p.rstrip("/"))


def redacted(text: str) -> str:
    """A URI, or a text with some, without passwords: for what others may read."""
    return re.sub(r"(//[^:/@\s]*):[^@/\s]+@", r"\1:***@", text)


def is_local(uri: str) -> bool:
    """Whether ``uri`` lies on this machine's file system (which may be a network mount)."""
    return isinstance(filesystem(uri)[0], fs.LocalFileSystem)


def join(uri: str, *parts: str) -> str:
    """Append path parts to a URI; a query (``?region=...``) stays at the end."""
    tail = "/".join(part.strip("/") for part in parts if part.strip("/"))
    if not tail:
        return uri
    if uri.lower().startswith("file:"):
        uri = normalise(uri)  # names may hold what means something else in a URI: blanks, #, %
    return _with_path(uri, lambda path: f"{path.rstrip('/')}/{tail}")


def exists(uri: str) -> bool:
    """Whether a file or folder is there. Raises UserError when that may not be known (no access)."""
    filesystem_, path = filesystem(uri)
    with user_errors(uri):
        return filesystem_.get_file_info(path).type != fs.FileType.NotFound


def is_dir(uri: str) -> bool:
    """Whether a folder (or an object-store prefix) is there."""
    filesystem_, path = filesystem(uri)
    with user_errors(uri):
        return filesystem_.get_file_info(path).type == fs.FileType.Directory


def listdir(uri: str) -> list[str]:
    """Return the names in a folder, sorted. Raises UserError when there is no such folder."""
    filesystem_, path = filesystem(uri)
    with user_errors(uri):
        return sorted(info.base_name for info in filesystem_.get_file_info(fs.FileSelector(path)))


def walk(uri: str) -> list[str]:
    """Return the paths of all files below a folder, relative to it, sorted."""
    filesystem_, path = filesystem(uri)
    with user_errors(uri):
        found = filesystem_.get_file_info(fs.FileSelector(path, recursive=True))
        prefix = path.rstrip("/") + "/"
        return sorted(info.path.removeprefix(prefix) for info in found if info.type == fs.FileType.File)


def read_bytes(uri: str) -> bytes:
    """Read a whole file. Raises UserError when it is not there or not readable."""
    if "\0" in uri:  # in damaged lists of files; pyarrow would raise a bare ValueError
        raise UserError(f"{uri!a}: not a name of a file")
    filesystem_, path = filesystem(uri)
    with user_errors(uri), filesystem_.open_input_stream(path, compression=None) as stream:
        return stream.read()


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file: readers see the old content or the new, never a part."""
    with open_output(uri) as stream:
        stream.write(data)


def read_json(uri: str) -> Any:
    """Read a JSON file. Raises UserError when it is missing or not JSON."""
    try:
        return json.loads(read_bytes(uri))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{uri}: not valid JSON ({error})") from error


def write_json(uri: str, value: Any) -> None:
    """Write ``value`` as indented UTF-8 JSON, atomically as ``write_bytes`` does."""
    write_bytes(uri, (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode())


@contextmanager
def open_input(uri: str) -> Iterator[pa.NativeFile]:
    """Open a file for random access; errors inside the block become UserError."""
    filesystem_, path = filesystem(uri)
    with user_errors(uri), filesystem_.open_input_file(path) as stream:
        yield stream


@contextmanager
def open_output(uri: str) -> Iterator[IO[bytes]]:
    """Open a file for writing; it appears under its name when the block ends well.

    Local files are written beside their name, synced and renamed. An object store shows an object only
    when it is complete, but pyarrow cannot abandon one: after an error inside the block a short object
    may remain there, so give multi-write files names that nobody reads until you say so.
    """
    filesystem_, path = filesystem(uri)
    with user_errors(uri):
        if not isinstance(filesystem_, fs.LocalFileSystem):
            with filesystem_.open_output_stream(path, compression=None) as stream:
                yield cast("IO[bytes]", stream)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def delete_file(uri: str) -> None:
    """Delete a file; one that is not there is no error."""
    filesystem_, path = filesystem(uri)
    with user_errors(uri):
        if filesystem_.get_file_info(path).type != fs.FileType.NotFound:
            filesystem_.delete_file(path)


def delete_dir(uri: str) -> None:
    """Delete a folder with all in it; one that is not there is no error."""
    filesystem_, path = filesystem(uri)
    with user_errors(uri):
        if filesystem_.get_file_info(path).type != fs.FileType.NotFound:
            filesystem_.delete_dir(path)


def upload_dir(local: str | os.PathLike[str], uri: str) -> None:
    """Copy all files below ``local`` to ``uri``; files of the same name are replaced, others stay."""
    source = Path(local)
    if not source.is_dir():
        raise UserError(f"{source}: no such folder")
    _copy_all([(str(source / name), join(uri, name)) for name in walk(str(source))])


def download_dir(uri: str, local: str | os.PathLike[str]) -> None:
    """Copy all files below ``uri`` to the folder ``local``. Raises UserError when ``uri`` is no folder."""
    names = walk(uri)
    Path(local).mkdir(parents=True, exist_ok=True)
    _copy_all([(join(uri, name), str(Path(local) / name)) for name in names])


def _copy_all(pairs: list[tuple[str, str]]) -> None:
    with ThreadPoolExecutor(_COPY_THREADS) as pool:
        for _ in pool.map(lambda pair: _copy(*pair), pairs):
            pass


def _copy(source: str, target: str) -> None:
    with open_input(source) as reader, open_output(target) as writer:
        shutil.copyfileobj(cast("IO[bytes]", reader), writer, 1 << 20)


def _refuse_password(scheme: str, rest: str) -> None:
    """Raise UserError for ``s3://KEY:SECRET@bucket`` and the like; its message repeats neither."""
    user, at, _ = rest.partition("?")[0].rpartition("@")
    # A secret may hold a "/", a file's name an "@"; a bucket's name never holds a colon, an access point's ARN does.
    if scheme in ("file", "hf") or not at or ":" not in user.partition("/")[0] or user.lower().startswith("arn:"):
        return
    cures = {
        "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        "gs": "set GOOGLE_APPLICATION_CREDENTIALS to the file with the key",
    }
    cure = cures.get(scheme, "give them in the environment")
    raise UserError(
        f"{scheme}://***@...: user and password do not belong in a URI, others can read it in results and MLflow; "
        f"{cure} instead, and write {scheme}://bucket/path"
    )


def _s3_environment() -> tuple[str | None, ...]:
    get = os.environ.get
    return (
        get("AWS_ENDPOINT_URL_S3") or get("AWS_ENDPOINT_URL"),
        get("AWS_REGION") or get("AWS_DEFAULT_REGION"),
        # Not passed on: part of the cache's key, because a filesystem keeps what it was made with.
        get("AWS_ACCESS_KEY_ID"),
        get("AWS_SECRET_ACCESS_KEY"),
        get("AWS_SESSION_TOKEN"),
        get("AWS_PROFILE"),
    )


@lru_cache(maxsize=8)
def _s3(endpoint: str | None, region: str | None, *_key: str | None) -> fs.S3FileSystem:
    options: dict[str, Any] = {
        # Three attempts, the library's default, are over within seconds; a store that is restarted needs longer.
        "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=_S3_ATTEMPTS),
        "connect_timeout": 10.0,
        "request_timeout": 60.0,
    }
    if region:
        options["region"] = region
    if endpoint:
        parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise UserError(f"AWS_ENDPOINT_URL={endpoint}: not a URL; write http://host:port or https://host")
        options |= {"endpoint_override": parts.netloc + parts.path.rstrip("/"), "scheme": parts.scheme}
        # Without a region the SDK asks the EC2 metadata service first, and waits for it.
        options.setdefault("region", "us-east-1")
    return fs.S3FileSystem(**options)


@lru_cache(maxsize=1)
def _gcs() -> fs.GcsFileSystem:
    # The library's default is to go on trying for 15 minutes.
    return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=60))


def _clean(path: str) -> str:
    return re.sub(r"/{2,}", "/", path).strip("/")


def _with_path(uri: str, change: Any) -> str:
    path = without_query(uri)
    return f"{change(path)}{uri[len(path) :]}"


def without_query(uri: str) -> str:
    """A URI up to its query (``?region=...``); the names of local files may hold a question mark."""
    if _SCHEME.match(uri) and not uri.lower().startswith("file:"):
        return uri.partition("?")[0]
    return uri


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def user_errors(uri: str) -> Iterator[None]:
    """Turn an OSError of work on ``uri`` into the UserError that tells its cure."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise _explain(uri, error) from error
    except UnicodeError as error:
        raise OddNames(
            f"{uri!a}: a file name there is not UTF-8 ({_first_line(error)}); rename it"
            " (convmv -r --notest -f latin1 -t utf8 does it)"
        ) from error
    except Exception as error:
        if not is_hub_error(error):
            raise
        raise _explain(uri, error) from error


def _free(uri: str) -> str:
    """What is left on the disk of a local path, for people."""
    with suppress(OSError, UserError):
        filesystem_, path = filesystem(uri)
        if isinstance(filesystem_, fs.LocalFileSystem):
            folder = next(parent for parent in Path(path).parents if parent.is_dir())
            return f", {shutil.disk_usage(folder).free / 2**20:.1f} MiB are free in {folder}"
    return ""


def _explain(uri: str, error: Exception) -> UserError:
    text = _first_line(error)
    code = getattr(error, "errno", None)
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "No space left" in text:
        return DiskFull(f"{uri}: the disk (or quota) is full{_free(uri)}; free some space or choose another place")
    if re.search(r"NO_SUCH_BUCKET|NoSuchBucket|Bucket '.*' not found", text):
        return UserError(f"{uri}: no such bucket; create it, or check the name and AWS_ENDPOINT_URL")
    if isinstance(error, FileNotFoundError):
        return UserError(f"{uri}: not found; check the spelling{_HUB_HINT if uri.lower().startswith('hf:') else ''}")
    if is_hub_error(error):
        if re.search(r"\b40[13]\b", text):
            return UserError(f"{uri}: access denied{_HUB_HINT}")
        return Unavailable(f"{uri}: the hub does not answer; check network and HF_ENDPOINT ({text})")
    if isinstance(error, PermissionError) or re.search(
        r"ACCESS_DENIED|AccessDenied|INVALID_ACCESS_KEY|InvalidAccessKey|SIGNATURE_DOES_NOT_MATCH"
        r"|HTTP status 403|PERMISSION_DENIED|UNAUTHENTICATED",
        text,
    ):
        return UserError(f"{uri}: access denied; check file rights or credentials (AWS_..., ~/.aws)")
    if isinstance(error, IsADirectoryError) or "is a directory" in text.lower():
        return UserError(f"{uri}: is a folder, a file is expected")
    not_a_folder = isinstance(error, NotADirectoryError | FileExistsError)
    if not_a_folder or re.search("Not a directory|non-directory", text):
        return UserError(f"{uri}: a part of it is a file, a folder is expected")
    if re.search("NETWORK_CONNECTION|curlCode|Couldn't resolve|Connection refused", text):
        return Unavailable(f"{uri}: the storage does not answer; check network and AWS_ENDPOINT_URL ({text})")
    if re.search("thrift|decompress|[Cc]orrupt", text):
        return UserError(f"{uri}: damaged file ({text})")
    return Unavailable(f"{uri}: {text}")
