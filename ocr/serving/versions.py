"""The versions of a model in a folder, of which the newest is served: it is looked for again and again."""

import asyncio
import contextlib
import pathlib
import sys
from typing import NamedTuple

import tensorflow as tf
from google.protobuf import message
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from ocr.serving import saved_model, warmup
from ocr.serving.saved_model import Export
from tfrecords.errors import InputError, IntegrityError

LOADING = get_model_status_pb2.ModelVersionStatus.LOADING
AVAILABLE = get_model_status_pb2.ModelVersionStatus.AVAILABLE
END = get_model_status_pb2.ModelVersionStatus.END


class Version(NamedTuple):
    """A version that is loaded.

    Attributes:
      number: of it.
      export: what reads.
      signatures: as its SavedModel has them.
    """

    number: int
    export: Export
    signatures: get_model_metadata_pb2.SignatureDefMap


class Versions:
    """Serves the newest version in a folder. One that takes its place is loaded and warmed up first; requests that the old one
    was reading are answered by it.

    Args:
      folder: as `ocr_export` writes it, a number each version.

    Attributes:
      newest: the version to ask.
      states: of each version that was ever loaded, by number: of `get_model_status_pb2.ModelVersionStatus`.

    Raises:
      InputError: there is no version.
      IntegrityError: the newest one is damaged.
    """

    def __init__(self, folder: pathlib.Path):
        self.states: dict[int, int] = {}
        self._refused: dict[int, object] = {}  # damaged ones, as they were when they were named
        found = saved_model.newest_version(folder)
        self._folder = found.parent
        if found == folder:
            raise InputError(f"--export_dir={folder}: is one version; give the folder that holds it")
        self.newest = self._load(int(found.name))

    async def watch(self, every_s: float) -> None:
        """Looks for versions, for ever."""
        while True:
            await asyncio.sleep(every_s)
            await self.look()

    async def look(self) -> None:
        """Takes the newest version that can be loaded, unless it is the one that is served. One that could not be is tried
        again when its files have changed: it may have been on its way."""
        for number in reversed(saved_model.versions(self._folder)):
            if number == self.newest.number:
                return
            seen = self._seen(number)
            if self._refused.get(number) == seen:
                continue
            try:
                version = await asyncio.to_thread(self._load, number)
            except (InputError, IntegrityError) as error:
                self._refused[number] = seen
                self.states.pop(number, None)
                print(f"version {number} is not served: {error}", file=sys.stderr)
                continue
            old, self.newest = self.newest, version
            self.states[old.number] = END
            print(f"version {number} takes the place of version {old.number}", file=sys.stderr)
            return

    def _seen(self, number: int) -> object:
        """Returns what changes when a version's files do."""
        found = set()
        for path in (self._folder / str(number)).rglob("*"):
            with contextlib.suppress(OSError):
                told = path.stat()
                found.add((str(path), told.st_size, told.st_mtime_ns))
        return found

    def _load(self, number: int) -> Version:
        self.states[number] = LOADING
        folder = self._folder / str(number)
        export = saved_model.load(folder)
        try:
            model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        except (OSError, message.DecodeError) as error:
            raise IntegrityError(f"{folder}: damaged ({error})") from error
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=dict(model.meta_graphs[0].signature_def))
        version = Version(number, export, signatures)
        requests = folder / "assets.extra" / warmup.NAME
        try:
            for signature, inputs in warmup.read(requests) if requests.exists() else ():
                version.export.signatures[signature](**inputs)
        except (OSError, tf.errors.OpError, ValueError, LookupError, TypeError) as error:
            raise IntegrityError(f"{requests}: damaged ({str(error).splitlines()[0]})") from error
        self.states[number] = AVAILABLE
        return version
