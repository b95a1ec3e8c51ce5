"""The versions of a model in a folder: loads those that its policy chooses, and follows changes of the folder."""

import asyncio
import contextlib
import logging
import os
import pathlib
import time
import weakref
from collections.abc import Iterable
from typing import NamedTuple

from google.protobuf import message
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from ocr.serving import saved_model, warmup
from ocr.serving.saved_model import Export
from ocr.serving.version_policy import NEWEST, VersionPolicy
from tfrecords import errors
from tfrecords.errors import InputError, IntegrityError

LOADING = get_model_status_pb2.ModelVersionStatus.LOADING
AVAILABLE = get_model_status_pb2.ModelVersionStatus.AVAILABLE
UNLOADING = get_model_status_pb2.ModelVersionStatus.UNLOADING
END = get_model_status_pb2.ModelVersionStatus.END

_RETRY_S = 60.0  # until a version that could not be loaded is retried though its files are the same

_LOG = logging.getLogger(__name__)

FileStates = frozenset[tuple[str, int, int]]  # path, size in bytes, and time of change in ns of each file


class Version(NamedTuple):
    """A loaded version.

    Attributes:
      number: Version number, which names its folder.
      export: The model.
      signatures: Descriptions of its signatures, as its SavedModel has them.
    """

    number: int
    export: Export
    signatures: get_model_metadata_pb2.SignatureDefMap


class _Failure(NamedTuple):
    """Why a version could not be loaded, what its files were like, and when that was, in seconds of the monotonic clock."""

    reason: str
    files: FileStates
    at: float


class Versions:
    """Serves the versions in a folder that a policy chooses.

    A new version is loaded and warmed up before it takes the place of another, which still answers the requests that were sent
    to it and is unloaded then.

    Args:
      folder: Holds a folder for each version, as `ocr_export` writes them.
      policy: Chooses versions; the newest by default.

    Attributes:
      served: The loaded versions by number; never empty.
      states: By number, the state of each version that was loaded: a value of `get_model_status_pb2.ModelVersionStatus`.

    Raises:
      InputError: There is no version in the folder, or none that the policy allows.
      IntegrityError: A version that the policy chooses is damaged.
    """

    def __init__(self, folder: pathlib.Path, policy: VersionPolicy = NEWEST):
        self.states: dict[int, int] = {}
        self._policy = policy
        self._failed: dict[int, _Failure] = {}
        self._logged: set[tuple[int, str]] = set()  # versions that were not served, and why
        newest = saved_model.newest_version(folder)
        self._folder = newest.parent
        if newest == folder:
            raise InputError(f"--export_dir={folder}: is one version; give the folder that holds it")
        folders = saved_model.versions(self._folder)
        chosen = policy.allowed(folders)[: policy.limit]
        if not chosen:
            raise InputError(f"--model_version_policy: {folder} has none of these versions, but {list_numbers(folders)}")
        self.served = {number: self._load(number, folders[number]) for number in chosen}

    @property
    def current(self) -> Version:
        """The newest version that is served."""
        served = self.served
        return served[max(served)]

    def failures(self) -> dict[int, str]:
        """Returns by number why versions in the folder could not be loaded."""
        return {number: failure.reason for number, failure in self._failed.items()}

    async def watch(self, interval_s: float) -> None:
        """Refreshes at regular intervals until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            await self.refresh()

    async def refresh(self) -> None:
        """Loads the versions that the policy chooses among those that can be loaded, and unloads the others.

        A version that could not be loaded is logged once, and retried once its files change, since it may have been copied
        meanwhile, and now and then, since the machine may have lacked something. The last version is never unloaded.

        Raises:
          OSError: The folder cannot be listed.
        """
        folders = await asyncio.to_thread(saved_model.versions, self._folder)
        self._failed = {number: failure for number, failure in self._failed.items() if number in folders}
        before, chosen = set(self.served), set[int]()
        for number in self._policy.allowed(folders):
            if len(chosen) == self._policy.limit:
                break
            if number in self.served or await self._load_if_possible(number, folders[number]):
                chosen.add(number)
        new, old = chosen - before, before - chosen if chosen else set()
        for number in old:
            self._unload(number)
        if new:
            self._logged.clear()
        if new and old:
            _LOG.info("version %s replaces version %s", list_numbers(new), list_numbers(old))
        elif new or old:
            _LOG.info("version %s is %s", list_numbers(new or old), "served too" if new else "no longer served")

    async def _load_if_possible(self, number: int, folder: pathlib.Path) -> bool:
        """Loads and serves a version, unless that has failed and nothing has changed; returns whether it is served."""
        files, failed = _file_states(folder), self._failed.get(number)
        if failed and failed.files == files and time.monotonic() < failed.at + _RETRY_S:
            return False
        try:
            version = await asyncio.to_thread(self._load, number, folder)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a version, the others are served
            removed = _is_removed(folder / "saved_model.pb")
            reason = "removed while it was being loaded" if removed else errors.first_line(error)
            self._failed[number] = _Failure(reason, files, time.monotonic())
            self.states.pop(number, None)
            self._say(number, reason)
            return False
        self._failed.pop(number, None)
        self.served = {**self.served, number: version}  # a new dictionary, since other threads look versions up
        return True

    def _unload(self, number: int) -> None:
        """Takes no more requests for a version; its memory is freed once those that it has are answered."""
        self.states[number] = UNLOADING
        weakref.finalize(self.served[number].export, self._end, number).atexit = False
        self.served = {other: version for other, version in self.served.items() if other != number}

    def _end(self, number: int) -> None:
        if self.states[number] == UNLOADING:  # or it has been loaded again
            self.states[number] = END

    def _say(self, number: int, reason: str) -> None:
        if (number, reason) not in self._logged:
            self._logged.add((number, reason))
            _LOG.warning("version %d is not served: %s", number, reason)

    def _load(self, number: int, folder: pathlib.Path) -> Version:
        """Loads a version and runs its warm-up requests."""
        self.states[number] = LOADING
        export = saved_model.load(folder)
        try:
            model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        except (OSError, message.DecodeError) as error:
            raise IntegrityError(f"{folder}: damaged ({error})") from error
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=dict(model.meta_graphs[0].signature_def))
        requests = folder / "assets.extra" / warmup.NAME
        try:
            for signature, inputs in warmup.read(requests) if requests.exists() else ():
                export.signatures[signature](**inputs)
        except errors.damage_errors() as error:
            raise IntegrityError(f"{requests}: damaged ({errors.first_line(error)})") from error
        self.states[number] = AVAILABLE
        return Version(number, export, signatures)


def list_numbers(numbers: Iterable[int]) -> str:
    """Returns version numbers as text, in ascending order."""
    return ", ".join(map(str, sorted(numbers)))


def _file_states(folder: pathlib.Path) -> FileStates:
    """Returns the states of the files in a folder, as far as they can be read."""
    states = set()
    for parent, _, names in os.walk(folder):  # which leaves out folders that cannot be listed
        for name in names:
            path = pathlib.Path(parent, name)
            with contextlib.suppress(OSError):
                stat = path.stat()
                states.add((str(path), stat.st_size, stat.st_mtime_ns))
    return frozenset(states)


def _is_removed(path: pathlib.Path) -> bool:
    """Returns whether there certainly is no such file."""
    try:
        path.stat()
    except OSError as error:
        return isinstance(error, FileNotFoundError | NotADirectoryError)
    return False
