"""Solver: the course's training loop, with its draws in their order and its printing."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np

from ..errors import ParamError
from ..folders import path_of
from . import optim

_RULES = ("sgd", "sgd_momentum", "sgd_nesterov_momentum", "rmsprop", "adam", "adam_epsilon_hat")

_CHECKPOINT = (
    *("model", "update_rule", "lr_decay", "optim_config", "batch_size", "num_train_samples", "num_val_samples"),
    *("epoch", "loss_history", "train_acc_history", "val_acc_history"),
)


class Solver:
    """Train a model of the course on the arrays in data, with update rules by name.

    model: has params, a dict of arrays, and loss(X, y) -> (loss, grads), or scores without y.
    data: X_train, y_train, X_val, y_val.   Settings: update_rule ("sgd"), optim_config ({}), lr_decay (1.0, after each
    epoch), batch_size (100), num_epochs (10), num_train_samples (1000, for the training accuracy), num_val_samples
    (None: all), checkpoint_name (None: no files), print_every (10 iterations), verbose (True).

    train() leaves in model.params the parameters of the best validation accuracy and, where the model has bn_params,
    their running statistics in it: those that accuracy was measured with.
    Batches and samples are drawn from NumPy's global generator, as the course's notebooks seed it.
    """

    def __init__(self, model: Any, data: dict[str, Any], **kwargs: Any) -> None:
        self.model = model
        self.X_train, self.y_train = data["X_train"], data["y_train"]
        self.X_val, self.y_val = data["X_val"], data["y_val"]
        rule = kwargs.pop("update_rule", "sgd")
        self.optim_config = kwargs.pop("optim_config", {})
        self.lr_decay = kwargs.pop("lr_decay", 1.0)
        self.batch_size = kwargs.pop("batch_size", 100)
        self.num_epochs = kwargs.pop("num_epochs", 10)
        self.num_train_samples = kwargs.pop("num_train_samples", 1000)
        self.num_val_samples = kwargs.pop("num_val_samples", None)
        self.checkpoint_name = kwargs.pop("checkpoint_name", None)
        self.print_every = kwargs.pop("print_every", 10)
        self.verbose = kwargs.pop("verbose", True)
        if kwargs:
            names = ", ".join(f'"{name}"' for name in kwargs)
            msg = f"Unrecognized arguments {names}"
            raise ParamError(msg)
        if rule not in _RULES:
            msg = f'Invalid update_rule "{rule}"'
            raise ParamError(msg)
        self.update_rule = getattr(optim, rule)
        self._reset()

    def _reset(self) -> None:
        """Forget all training so far, but for the model's parameters."""
        self.epoch = 0
        self.best_val_acc = 0.0
        self.best_params: dict[str, np.ndarray] = {}
        self.best_bn_params: Any = None
        self.loss_history: list[float] = []
        self.train_acc_history: list[float] = []
        self.val_acc_history: list[float] = []
        self.optim_configs = {name: dict(self.optim_config) for name in self.model.params}

    def _step(self) -> None:
        """Take one step on a batch drawn with replacement."""
        mask = np.random.choice(self.X_train.shape[0], self.batch_size)  # noqa: NPY002
        loss, grads = self.model.loss(self.X_train[mask], self.y_train[mask])
        self.loss_history.append(loss)
        for name, w in self.model.params.items():
            updated = self.update_rule(w, grads[name], self.optim_configs[name])
            self.model.params[name], self.optim_configs[name] = updated

    def _save_checkpoint(self) -> None:
        """Pickle model and histories as <checkpoint_name>_epoch_<epoch>.pkl, if a name was given."""
        if self.checkpoint_name is None:
            return
        checkpoint = {name: getattr(self, name) for name in _CHECKPOINT}
        path = path_of(f"{self.checkpoint_name}_epoch_{self.epoch}.pkl")
        self._say(f'Saving checkpoint to "{path}"')
        with path.open("wb") as file:
            pickle.dump(checkpoint, file)

    def check_accuracy(self, X: Any, y: Any, num_samples: int | None = None, batch_size: int = 100) -> float:
        """Return the share of right answers, on num_samples drawn pictures where there are more."""
        if num_samples is not None and X.shape[0] > num_samples:
            mask = np.random.choice(X.shape[0], num_samples)  # noqa: NPY002
            X, y = X[mask], y[mask]
        batches = [X[start : start + batch_size] for start in range(0, X.shape[0], batch_size)]
        answers = [np.argmax(self.model.loss(batch), axis=1) for batch in batches]
        return float(np.mean(np.hstack(answers) == y))

    def train(self) -> None:
        """Train for num_epochs; measure before the second step, after each epoch and at the end."""
        per_epoch = max(self.X_train.shape[0] // self.batch_size, 1)
        iterations = self.num_epochs * per_epoch
        for t in range(iterations):
            self._step()
            if t % self.print_every == 0:
                self._say(f"(Iteration {t + 1} / {iterations}) loss: {self.loss_history[-1]:f}")
            epoch_ends = (t + 1) % per_epoch == 0
            if epoch_ends:
                self.epoch += 1
                for config in self.optim_configs.values():
                    config["learning_rate"] *= self.lr_decay
            if t == 0 or epoch_ends or t == iterations - 1:
                self._measure()
        if self.best_params:
            self.model.params = self.best_params
            if self.best_bn_params is not None:
                self.model.bn_params = self.best_bn_params

    def _measure(self) -> None:
        """Record both accuracies, and keep what has the best."""
        train_acc = self.check_accuracy(self.X_train, self.y_train, num_samples=self.num_train_samples)
        val_acc = self.check_accuracy(self.X_val, self.y_val, num_samples=self.num_val_samples)
        self.train_acc_history.append(train_acc)
        self.val_acc_history.append(val_acc)
        self._save_checkpoint()
        self._say(f"(Epoch {self.epoch} / {self.num_epochs}) train acc: {train_acc:f}; val_acc: {val_acc:f}")
        if val_acc > self.best_val_acc:
            self.best_val_acc = val_acc
            self.best_params = {name: w.copy() for name, w in self.model.params.items()}
            self.best_bn_params = copy.deepcopy(getattr(self.model, "bn_params", None))

    def _say(self, text: str) -> None:
        if self.verbose:
            print(text)  # noqa: T201 - what the notebook shows
