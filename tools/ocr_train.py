"""Trains a recogniser, or goes on where the workdir holds a checkpoint.

For example:

  ocr_train --train_data=records --eval_data=records --workdir=run --steps=2000
"""

from typing import Any

from absl import flags

from ocr.config import TrainConfig
from tools import command

FLAGS = flags.FlagValues()
command.define_fields(
    FLAGS,
    TrainConfig,
    {
        "train_data": "Folder of records; its split train, or DIR@split. Several with commas, perhaps weighted: A:3,B:1.",
        "eval_data": "Folder of records; its split eval if there is one, else the only split, or DIR@split.",
        "workdir": "Folder for checkpoints, figures and the best weights.",
        "charset": "Alphabet, in place of the one that the records were packed with.",
        "model": "lite; wide, for large alphabets; cnn, the network of confusing-ctc; crnn, that with two recurrent layers; "
        "or densenet, of chinese_ocr.",
        "trainer": "loop: our own, compiled whole; keras: the same steps taken by Keras's fit, on one device.",
        "steps": "Number of steps, those already done included.",
        "batch_size": "Lines a step.",
        "optimizer": "adam, adamw, sgd or lamb; with the extra [addons] and TensorFlow 2.15 tfa:NAME or "
        "tfa:NAME:ARGUMENT=NUMBER,… for LAMB, LazyAdam, Lookahead, NovoGrad and RectifiedAdam, on one device.",
        "learning_rate": "The highest of the schedule.",
        "weight_decay": "Of adamw, whose beta_2 is 0.98, and of lamb; biases and batch norm do not decay. To tfa:… it is "
        "an argument.",
        "clip_norm": "Gradients are scaled down to this norm, all weights together; 0 leaves them as they are.",
        "schedule": "constant; cosine: down to 0 at the last step; exponential: times 0.98 every 10,000 steps, smoothly; "
        "epoch_decay: times 0.4 each epoch. The last two are those of confusing-ctc.",
        "warmup_steps": "Of cosine: steps to rise from 0.",
        "ema": "How much of the weights' moving average each step keeps, such as 0.999: it is then what is evaluated and "
        "exported; 0: no average.",
        "frame_loss": "Weight, 0 to 1, of a loss of its own for each frame beside CTC's, for large alphabets on which CTC "
        "alone learns nothing for long. It takes records that tell each character's middle: render_lines --tfrecords.",
        "precision": "float32; or mixed_bfloat16 (GPUs, and CPUs with AMX) or mixed_float16 (GPUs): weights, logits and "
        "loss stay float32.",
        "strategy": "one: one device; mirrored: all GPUs; multiworker: the machines of TF_CONFIG; auto: what there is.",
        "replicas": "How many devices; without a GPU so many are made of the CPU. 0: what there is.",
        "sync_batch_norm": "Batch norm takes its statistics over all replicas.",
        "deterministic": "Use only operations that give the same bits each time; slower on GPUs.",
        "init_from": "Workdir or export of the same model to take the first weights from, or pretrained: the one for Chinese "
        "(--model=wide); where alphabets differ, those of the characters that both have.",
        "seed": "Decides the first weights and the order of the lines.",
        "log_every": "Steps between two training lines of metrics.jsonl.",
        "eval_every": "Steps between two evaluations.",
        "checkpoint_every": "Steps between two checkpoints.",
        "keep_checkpoints": "How many of the newest are kept.",
        "patience": "Stop after so many evaluations in a row that are no better; 0: never.",
        "bad_steps": "Stop once more than so many steps in a row have a loss or gradient that is not finite.",
        "augment": "How much training lines are varied while they are read, from 0, not at all, to 1.",
        "augmenter": "How --augment does it. ours; or, with the extra [addons], tfa: slopes, leans and holes by tfa.image.",
        "picture_font": "Font file for the lines that TensorBoard shows with what was read, where they are not Latin.",
        "override": "Train even where the doctor has found why it must fail.",
    },
)


def main(values: dict[str, Any], _: list[str]) -> dict:
    config = TrainConfig(**command.fields(values, TrainConfig))
    command.import_tensorflow()
    from ocr.training import train

    with command.stop_on_signal() as stop:
        return train.train(config, stop)


def run() -> None:
    command.run(main, FLAGS, __doc__ or "")


if __name__ == "__main__":
    run()
