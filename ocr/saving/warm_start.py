"""First weights of a training, taken from another one or from an export."""

import pathlib

import keras
import tensorflow as tf

from ocr import charset as charsets
from ocr.charset import Charset
from ocr.model import frozen, networks
from ocr.saving.workdir import Workdir
from ocr.serving import saved_model
from tfrecords import files
from tfrecords.errors import InputError, IntegrityError


def take_weights(model: keras.Model, charset: Charset, source: str) -> int:
    """Gives a network the weights of another one of its kind.

    Classes are matched by their characters: what the alphabets share is taken, the other classes keep the weights they have.

    Args:
      model: that `models.build` made.
      charset: of its classes.
      source: workdir of a training, whose best weights are taken, or an export, or one version in it; `pretrained` for the
        one that comes with the package.

    Returns:
      How many characters were matched.

    Raises:
      InputError: there is no such training or export, or it is of another network.
      IntegrityError: it is damaged.
    """
    path = pathlib.Path(source)
    if path != saved_model.PRETRAINED and not path.is_dir():
        raise InputError(f"--init_from={source}: no such folder")
    if Workdir(path).begun:
        trained = Workdir(path).load()
        other, theirs = trained.model, trained.charset
    else:
        other, theirs = _exported(saved_model.newest_version(path))
    if other.name != model.name:
        raise InputError(
            f"--init_from={source}: has the network {other.name}, this training {model.name}; give --model={other.name}"
        )
    lacking = set(theirs.missing(charset.characters))
    shared = [place for place, character in enumerate(charset.characters) if character not in lacking]
    taken = theirs.encode("".join(charset.characters[place] for place in shared))
    last = [id(weight) for weight in model.get_layer("logits").weights]
    values = []
    for weight, own, origin in zip(model.weights, model.get_weights(), other.get_weights(), strict=True):
        if id(weight) in last:  # [D, C] or [C]
            own[..., [*shared, charset.blank]] = origin[..., [*taken, theirs.blank]]
        values.append(own if id(weight) in last else origin)
    model.set_weights(values)
    return len(shared)


def _exported(folder: pathlib.Path) -> tuple[keras.Model, Charset]:
    """Returns the network of an export, and its alphabet.

    Raises:
      IntegrityError: it is damaged.
    """
    try:
        about = files.read_json(folder / "assets.extra" / "model.json")
        charset = charsets.load_charset(folder / "assets" / "charset.txt", about["alphabet"])
        model = networks.build(about["network"], charset.num_classes)
        frozen.load_weights(model, frozen.weights(tf.saved_model.load(str(folder)).signatures["serving_default"]))
        if frozen.fingerprint(model) != about["weights"]:
            raise ValueError("its weights are not those it was written with")
    except (OSError, ValueError, LookupError, TypeError, AssertionError, InputError, tf.errors.OpError) as error:
        raise IntegrityError(f"{folder}: damaged export ({str(error).splitlines()[0]})") from error
    return model, charset
