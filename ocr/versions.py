"""The versions of a model in a folder, of which the newest is served: it is looked for again and again."""

import asyncio
import pathlib
import sys
from typing import NamedTuple

import tensorflow as tf
from tensorflow_serving.apis import get_model_status_pb2

from ocr import predict, warmup
from ocr.predict import Export
from tfrecords.errors import InputError, IntegrityError

LOADING = get_model_status_pb2.ModelVersionStatus.LOADING
AVAILABLE = get_model_status_pb2.ModelVersionStatus.AVAILABLE
END = get_model_status_pb2.ModelVersionStatus.END


class Version(NamedTuple):
    """A version that is loaded.

    Attributes:
      number: of it.
      folder: of it.
      export: what reads.
    """

    number: int
    folder: pathlib.Path
    export: Export


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
        self._refused: set[int] = set()  # damaged ones, each of which is named once
        found = predict.newest_version(folder)
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
        """Takes the newest version there is, unless it is the one that is served or cannot be loaded."""
        try:
            number = int(predict.newest_version(self._folder).name)
        except InputError:
            return  # what is served goes on
        if number == self.newest.number or number in self._refused:
            return
        try:
            version = await asyncio.to_thread(self._load, number)
        except (InputError, IntegrityError, tf.errors.OpError) as error:
            self._refused.add(number)
            self.states.pop(number, None)
            print(f"version {number} is not served: {error}", file=sys.stderr)
            return
        old, self.newest = self.newest, version
        self.states[old.number] = END
        print(f"version {number} takes the place of version {old.number}", file=sys.stderr)

    def _load(self, number: int) -> Version:
        self.states[number] = LOADING
        folder = self._folder / str(number)
        version = Version(number, folder, predict.load(folder))
        requests = folder / "assets.extra" / warmup.NAME
        try:
            for signature, inputs in warmup.read(requests) if requests.exists() else ():
                version.export.signatures[signature](**inputs)
        except (tf.errors.OpError, ValueError, LookupError, TypeError) as error:
            raise IntegrityError(f"{requests}: damaged ({str(error).splitlines()[0]})") from error
        self.states[number] = AVAILABLE
        return version
