"""Builds and checks what a configuration names: network, optimiser, schedule, devices."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import export
from ml_collections import config_dict

from mtbus_jax import augment, data, losses, models, splits, types
from mtbus_jax.errors import UserError
from mtbus_jax.models import lossnet, weights
from mtbus_jax.models.weights import vgg16
from mtbus_jax.runtime import compiled, parallel
from mtbus_jax.training import augmentation, fields, progressive, run_folder, steps
from mtbus_jax.training import schedule as schedule_lib
from mtbus_jax.training import state as state_lib
from mtbus_jax.training.optimizer import make_optimizer
from mtbus_jax.training.totals import Totals

for _type in (schedule_lib.Plateau, Totals, steps.Dataset, lossnet.Vgg, optax.ScaleByAdamState):
    export.register_namedtuple_serialization(
        _type, serialized_name=f"mtbus_jax.{_type.__qualname__}"
    )
export.register_pytree_node_serialization(
    state_lib.TrainState,
    serialized_name="mtbus_jax.TrainState",
    serialize_auxdata=lambda fields: json.dumps(fields).encode(),
    deserialize_auxdata=lambda text: tuple(json.loads(bytes(text))),
)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A configuration and the objects it describes; built once and passed on, also to evaluation.

    Attributes:
      config: the configuration.
      classes: the classes that the network tells apart.
      module: the network.
      optimizer: Adam without learning rate.
      schedule: plateau schedule.
      loss: λ and the other numbers of the loss.
      devices: local devices to use.
      augmentation: of training images, see `steps.gather`.
      symmetries: indices for `augment.symmetry`: the versions of an image that are predicted.
      compute_dtype: of the network while training, see `steps.train_step`.
    """

    config: config_dict.ConfigDict
    classes: types.Classes
    module: nn.Module
    optimizer: optax.GradientTransformation
    schedule: schedule_lib.PlateauSchedule
    loss: losses.LossOptions
    devices: list[jax.Device]
    augmentation: Callable | None
    symmetries: tuple[int, ...]
    compute_dtype: jnp.dtype | None

    @classmethod
    def from_config(cls, config: config_dict.ConfigDict) -> Experiment:
        """Builds and checks everything a configuration names.

        Raises:
          UserError: for an unknown name or a value out of range.
        """
        check_values(config)
        train = config.train
        options = {k: v for k, v in config.model.items() if k != "name" and v is not None}
        classes = types.Classes.of(config.data)
        module = models.create(
            config.model.name, tasks=tuple(config.tasks), classes=len(classes), **options
        )
        weights_given = len(config.loss.class_weights)
        if weights_given not in (0, len(classes)) and _classes_known(config.data):
            raise UserError(
                f"loss.class_weights={tuple(config.loss.class_weights)}: give one number for each "
                f"of the {len(classes)} classes {', '.join(classes.names)}, or () for 1 each."
            )
        _check_weighting(config)
        _check_lossnet(config)
        models.check_image_size(module, tuple(config.data.image_size))
        progressive.check_size(module, config)
        return cls(
            config=config,
            classes=classes,
            module=module,
            optimizer=make_optimizer(
                b1=train.adam_b1,
                b2=train.adam_b2,
                epsilon=train.adam_epsilon,
                weight_decay=train.weight_decay,
                l2=train.l2,
                clip_norm=train.clip_norm,
                encoder_rate=train.encoder_rate,
            ),
            schedule=schedule_lib.PlateauSchedule(
                learning_rate=train.learning_rate,
                factor=train.plateau_factor,
                patience=train.plateau_patience,
                threshold=train.plateau_threshold,
                min_learning_rate=train.min_learning_rate,
                stop_patience=train.stop_patience,
                keep=train.keep,
                average_decay=train.average_decay,
                course=train.course,
                warmup=train.warmup,
                floor=train.cosine_floor,
                decay=train.decay_factor,
                decay_epochs=train.decay_epochs,
            ),
            loss=losses.LossOptions(
                **{name: v for name, v in config.loss.items() if name != "lossnet_weights"}
            ),
            devices=parallel.choose_devices(train.devices, train.batch_size),
            augmentation=augmentation.of_run(train),
            symmetries=augment.symmetries(train, *config.data.image_size),
            compute_dtype=fields.COMPUTE_DTYPES[train.compute_dtype],
        )

    def train_step(self) -> Callable:
        """`steps.train_step` of this run, for a batch that is already gathered; takes a ``key``."""
        return functools.partial(
            steps.train_step,
            module=self.module,
            optimizer=self.optimizer,
            schedule=self.schedule,
            loss=self.loss,
            compute_dtype=self.compute_dtype,
        )

    def train_steps(self, axis_name: str | None, size: tuple[int, int] | None = None) -> Callable:
        """`steps.train_steps` of this run.

        Args:
          axis_name: the axis a batch is spread over.
          size: that images are made smaller to, see `progressive.size`; None leaves them.
        """
        return functools.partial(
            steps.train_steps,
            module=self.module,
            optimizer=self.optimizer,
            schedule=self.schedule,
            loss=self.loss,
            augmentation=self.augmentation,
            mix=self.config.train.mixup,
            size=size,
            compute_dtype=self.compute_dtype,
            axis_name=axis_name,
        )

    def eval_steps(self, axis_name: str | None) -> Callable:
        """`steps.eval_steps` of this run; ``axis_name`` is the axis a batch is spread over."""
        return functools.partial(
            steps.eval_steps, module=self.module, loss=self.loss, axis_name=axis_name
        )

    def init_state(self, fold: int) -> state_lib.TrainState:
        """A fresh state for ``fold``, the same on every machine.

        Raises:
          UserError: if the encoder's weights cannot be found.
        """
        key = fold_keys(self.config.seed, fold)[0]
        draw = self.kept(
            "init",
            lambda key: models.draw(self.module, key, self._image_shape),
            lambda: (key,),
            compiler_options=models.INIT_COMPILER_OPTIONS,
        )
        if draw is None:
            variables = models.init(self.module, key, self._image_shape)
        else:
            variables = draw.call(key)
        create = jax.jit(self._create, compiler_options=models.INIT_COMPILER_OPTIONS)
        return create(models.with_encoder_weights(self.module, variables))

    def check_new(self) -> weights.Start | None:
        """Refuses what a new run must not ask for, although older runs may have.

        Returns:
          See `models.check_encoder_weights`.

        Raises:
          UserError: for a field that would have no effect, and see `check_encoder_weights` and
            `progressive.check_parameters`.
        """
        file, split = self.config.data.folds_file, self.config.data.split
        if file and split not in (splits.PUBLISHED, splits.GIVEN):
            raise UserError(
                f"data.folds_file={file} is not used, as data.split={split} does not take stored "
                "folds. Leave one of the two out."
            )
        rate = self.config.train.encoder_rate
        if rate != 1 and not hasattr(self.module, "encoder_scope"):
            raise UserError(
                f"train.encoder_rate={rate} is not used: {self.config.model.name} has no encoder "
                "that can start from weights. Set --config.train.encoder_rate=1."
            )
        progressive.check_parameters(self.module, self.config)
        return self.check_encoder_weights()

    def check_encoder_weights(self) -> weights.Start | None:
        """Refuses encoder weights that a fresh state could not start from.

        Returns:
          See `models.check_encoder_weights`.

        Raises:
          UserError: see `models.check_encoder_weights`.
        """
        return models.check_encoder_weights(self.module, self._image_shape)

    def lossnet(self) -> lossnet.Vgg | None:
        """The weights of LossNet; None if the loss does not use it.

        Raises:
          UserError: if they cannot be found or are damaged.
        """
        return vgg16.load(self.config.loss.lossnet_weights) if self.loss.lossnet else None

    def abstract_state(self) -> state_lib.TrainState:
        """Shapes and types of a state, to restore a checkpoint into, without computing one."""
        return jax.eval_shape(self._create, models.init_shapes(self.module, self._image_shape))

    @property
    def _image_shape(self) -> tuple[int, int, int]:
        return (*self.config.data.image_size, 1)

    def kept(
        self,
        name: str,
        function: Callable,
        like: Callable[[], tuple],
        *,
        about: Any = None,
        **options,
    ) -> compiled.KeptProgram | None:
        """`compiled.kept` of a program of this run.

        Args:
          name: of the program.
          function: pure, takes and returns trees of arrays.
          like: returns its arguments or their shapes.
          about: what ``function`` depends on besides the configuration.
          **options: for `jax.jit`.

        Returns:
          None if JAX's cache is off, if the network's source is not in this package, or on anything
          but one CPU device, where it has not been measured.
        """
        if not self._keeps_programs():
            return None
        config = self.config
        settings = {
            "about": about,
            "image_size": config.data.image_size,
            "tasks": config.tasks,
            "classes": len(self.classes),
            **{part: config[part].to_dict() for part in ("model", "loss", "train")},
        }
        return compiled.kept(name, function, like, about=settings, **options)

    def _keeps_programs(self) -> bool:
        known_source = type(self.module).__module__.startswith("mtbus_jax.")
        return known_source and [device.platform for device in self.devices] == ["cpu"]

    def _create(self, variables) -> state_lib.TrainState:
        return state_lib.create(
            variables,
            optimizer=self.optimizer,
            schedule=self.schedule,
            loss_weights=losses.initial_weights(self.loss.weighting),
        )


def check_values(config: config_dict.ConfigDict) -> None:
    """Refuses values out of range, naming the field.

    Raises:
      UserError: for the first such field.
    """
    fields.check(run_folder.flatten(config))
    if config.eval.average and not config.eval.tta:
        raise UserError(
            "eval.average=True tests the mean over flipped and turned versions, which eval.tta="
            "False leaves out; set eval.tta=True as well."
        )
    # The classes of a folder of your own are known once it has been read.
    public = config.data.name in data.DATASETS
    known = types.Classes.of(config.data).names if _classes_known(config.data) else None
    classes = tuple(config.data.classes)
    if len(set(classes)) != len(classes) or (known and set(classes) - set(known)):
        raise UserError(
            f"data.classes={classes!r}: name some of {', '.join(known or ('the classes',))}, once "
            "each, or () for all."
        )
    named = tuple(config.data.class_names)
    if public and named != tuple(name for name in types.CLASS_NAMES if name in named):
        raise UserError(
            f"data.class_names={named!r}: the classes of {config.data.name} are "
            f"{', '.join(types.CLASS_NAMES)}. Name those to tell apart, once each and in this "
            "order, or () for all."
        )


def _classes_known(section: config_dict.ConfigDict) -> bool:
    """Whether a configuration's ``data`` says which classes there are before images are read."""
    return section.name in data.DATASETS or bool(section.class_names)


def _check_weighting(config: config_dict.ConfigDict) -> None:
    if config.loss.weighting == losses.LEARNED and set(config.tasks) != set(types.TASKS):
        raise UserError(
            f"loss.weighting={losses.LEARNED} weighs two losses against each other, but tasks="
            f"{tuple(config.tasks)!r} has one. Train both tasks, or set loss.weighting="
            f"{losses.FIXED}."
        )


def _check_lossnet(config: config_dict.ConfigDict) -> None:
    if config.loss.lossnet:
        vgg16.check_named(config.loss.lossnet_weights)  # only training needs the file itself
        if types.SEGMENTATION not in config.tasks:
            raise UserError(
                f"loss.lossnet={config.loss.lossnet} compares masks, but tasks="
                f"{tuple(config.tasks)!r} predicts none. Set loss.lossnet=0, or train masks too."
            )
    elif config.loss.lossnet_weights:
        raise UserError(
            f"{vgg16.FIELD}={config.loss.lossnet_weights} is not used, as loss.lossnet is 0. Give "
            "that a weight, such as 0.2, or leave the file out."
        )


def fold_keys(seed: int, fold: int) -> tuple[jax.Array, jax.Array]:
    """Keys of a fold's initial weights and of its training; they depend only on seed and fold."""
    init_key, train_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), fold))
    return init_key, train_key
