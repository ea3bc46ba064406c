"""How much the rows of each class count while a model is fitted: rare classes (weights, resampling, SMOTE) and classes
whose frequency has changed (label shift).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from windvane.tasks.models.problem_types.definitions import adapt_to_row_count
from windvane.tasks.settings.monitoring_section import WindowLength
from windvane.tasks.split import time_windows

# Neighbours of which a synthetic row is made, as in the paper on SMOTE.
SMOTE_NEIGHBOURS = 5
# imbalanced-learn holds the neighbours of all new rows at once, a cell per category: this many cells are 400 MB.
MAX_SMOTE_CELLS = 50_000_000
# A leaf that is sure gives 0 or 1, which has no logarithm; and how far (e to this) calibration may temper and shift.
PROBABILITY_FLOOR, MAX_CALIBRATION_LOG_POWER, MAX_CALIBRATION_LOG_SHIFT = 1e-6, 3.0, 10.0
# What stands for a missing code while neighbours vote; OrdinalEncoder itself gives -1 to an unknown one.
_MISSING = -2.0


@dataclass(frozen=True)
class ClassBalance:
    """How a configuration treats classes: `treatment` of rare ones in the training rows, metric that `threshold` is tuned for,
    and the window whose `newest` rows show how frequent classes are (tasks/models/class_balance.py); None: as in the training rows.
    """

    treatment: str | None = None
    threshold: str | None = None
    newest: str | None = None


UNBALANCED = ClassBalance()


class BalancedClassifier(ClassifierMixin, BaseEstimator):
    """A classifier fitted on reweighted or resampled rows whose probabilities are those of the rows as they came.

    treatment: `weights` (each class weighs the same), `oversample` and `undersample` (rows drawn until classes are of
    one size), `smote` (new rows between neighbours: Chawla et al., JAIR 16, 2002). `codes`: input columns that hold
    categories as numbers. It stands behind the features in a pipeline, so only rows that are fitted on are resampled; it
    holds no sampler afterwards, and none is needed to predict.

    A class that counts `factor` times as much in the fit gets odds that are too high by just that: probabilities are
    divided by the factors and brought back to 1 (Elkan, IJCAI 2001; Saerens, Latinne & Decaestecker, Neural
    Computation 14, 2002). That fixes the prior; what else resampling bends, such as copies learned by heart,
    calibrate() corrects from rows that fits had not seen.
    """

    def __init__(self, estimator: Any = None, treatment: str = "weights", codes: tuple[int, ...] = (), seed: int = 0):
        self.estimator, self.treatment, self.codes, self.seed = estimator, treatment, codes, seed

    def fit(self, X: NDArray[Any], y: NDArray[Any], sample_weight: NDArray[Any] | None = None) -> BalancedClassifier:
        """Treat the rows (n, inputs), fit a copy of the estimator, and remember by how much each class was lifted.

        sample_weight (n,): how much a row counts, beside the treatment `weights`; no other one takes it.
        """
        self.classes_, before = np.unique(y, return_counts=True)
        model = clone(self.estimator)
        extra: dict[str, Any] = {}
        if self.treatment == "weights":
            model.set_params(class_weight="balanced")
            lifted = 1 / before
            extra = {} if sample_weight is None else {"sample_weight": sample_weight}
        else:
            X, y, extra = self._aside(model, X, y)
            kept = np.unique(y, return_counts=True)[1]
            X, y = resample_classes(X, y, self.treatment, self.codes, self.seed)
            lifted = np.unique(y, return_counts=True)[1] / kept
            adapt_to_row_count(model, y)
        if "y_val" in extra:
            extra["sample_weight_val"] = lifted[np.searchsorted(self.classes_, extra["y_val"])]
        self.estimator_ = model.fit(X, y, **extra)
        self.factors_ = lifted / lifted.max()
        self.power_, self.shifts_ = 1.0, np.zeros(len(self.classes_))
        return self

    def expect(self, weights: dict[Any, float]) -> None:
        """Predict probabilities for a world in which rows of each class are so many times as frequent as in the training rows."""
        factors = self.factors_ / np.array([weights[c] for c in self.classes_.tolist()])
        self.factors_ = factors / factors.max()

    def calibrate(self, proba: NDArray[Any], y: NDArray[Any], counts: NDArray[Any]) -> None:
        """Learn to temper from what similar models predicted for (n, k) of rows that they had not seen, their labels (n,), and how much
        each row counts (n,), 1 on average.

        Likeliest power and shift per class of p ** power * exp(shift): Platt scaling for two classes, vector scaling
        with one temperature for more (Guo et al., ICML 2017). The power is positive, so ranks of two classes stay.
        """
        logs = np.log(np.clip(proba, PROBABILITY_FLOOR, 1.0))
        hit = y[:, None] == self.classes_

        def cost(v: NDArray[Any]) -> tuple[float, NDArray[Any]]:
            power, found = np.exp(v[0]), log_softmax(np.exp(v[0]) * logs + np.append(0.0, v[1:]), axis=1)
            off = counts[:, None] * (np.exp(found) - hit)
            slopes = [power * (off * logs).sum(axis=1).mean(), *off.mean(axis=0)[1:]]
            return -float((counts * found[hit]).sum()) / len(y), np.array(slopes)

        bounds = [
            (-MAX_CALIBRATION_LOG_POWER, MAX_CALIBRATION_LOG_POWER),
            *[(-MAX_CALIBRATION_LOG_SHIFT, MAX_CALIBRATION_LOG_SHIFT)] * (len(self.classes_) - 1),
        ]
        best = minimize(cost, np.zeros(len(bounds)), jac=True, method="L-BFGS-B", bounds=bounds).x
        self.power_, self.shifts_ = float(np.exp(best[0])), np.append(0.0, best[1:])

    def _aside(self, model: Any, X: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Set rows aside for early stopping before any is drawn twice: a copy of a row cannot show when to stop."""
        if not model.get_params(deep=False).get("early_stopping"):
            return X, y, {}
        X, X_val, y, y_val = train_test_split(
            X, y, test_size=model.validation_fraction, stratify=y, random_state=self.seed
        )
        return X, y, {"X_val": X_val, "y_val": y_val}

    def predict_proba(self, X: NDArray[Any]) -> NDArray[Any]:
        """(n, k), in the order of classes_."""
        return self.corrected(self.estimator_.predict_proba(X))

    def predict(self, X: NDArray[Any]) -> NDArray[Any]:
        """The likeliest class (n,)."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    def corrected(self, proba: NDArray[Any]) -> NDArray[Any]:
        """Probabilities (n, k) of the estimator inside, under the classes' shares before the treatment."""
        odds = proba / self.factors_
        return self.tempered(odds / odds.sum(axis=1, keepdims=True))

    def tempered(self, proba: NDArray[Any]) -> NDArray[Any]:
        """Probabilities (n, k) under the classes' own shares, as calibrate() has learned to change them."""
        if self.power_ == 1.0 and not self.shifts_.any():
            return proba
        odds = np.clip(proba, PROBABILITY_FLOOR, 1.0) ** self.power_ * np.exp(self.shifts_)
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def resample_classes(
    X: NDArray[Any], y: NDArray[Any], treatment: str, codes: tuple[int, ...], seed: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rows (m, inputs) and labels (m,) of which every class has as many: see BalancedClassifier. Missing values stay missing."""
    if treatment == "smote":
        return _add_synthetic_rows(X, y, codes, seed)
    if treatment == "undersample":
        from imblearn.under_sampling import RandomUnderSampler as Sampler
    else:
        from imblearn.over_sampling import RandomOverSampler as Sampler
    found: tuple[NDArray[Any], NDArray[Any]] = Sampler(random_state=seed).fit_resample(X, y)
    return found


def _add_synthetic_rows(
    X: NDArray[Any], y: NDArray[Any], codes: tuple[int, ...], seed: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """SMOTE, with categories voted for by the neighbours (SMOTENC; SMOTEN where all are).

    The real rows come back as they are. For the new ones, whether a number is missing is voted for like a category,
    what is always whole stays whole (or a tree distinguishes new rows from real ones by their fractions), and distances are
    measured in standard deviations. A class of one row has no neighbours and is left alone.
    """
    flags = np.array([i for i in range(X.shape[1]) if i not in codes and np.isin(X[:, i], (0.0, 1.0)).all()], dtype=int)
    votes = np.sort(np.append(np.array(codes, dtype=int), flags))
    amounts = np.setdiff1d(np.arange(X.shape[1]), votes)
    gaps = np.flatnonzero(np.isnan(X[:, amounts]).any(axis=0))
    scaler = StandardScaler()
    filled = X[:, amounts]
    if len(amounts):
        filled = scaler.fit_transform(SimpleImputer(keep_empty_features=True).fit_transform(filled))
    coded = np.nan_to_num(X[:, votes], nan=_MISSING)
    matrix = np.hstack([filled, coded, np.isnan(X[:, amounts[gaps]])])
    found, labels = _smote(matrix, y, len(amounts), seed)
    made = found[len(X) :]
    new = np.empty((len(made), X.shape[1]))
    new[:, votes] = np.where((kept := made[:, len(amounts) :][:, : len(votes)]) == _MISSING, np.nan, kept)
    if len(amounts):
        new[:, amounts] = scaler.inverse_transform(made[:, : len(amounts)])
    whole = amounts[(np.nan_to_num(X[:, amounts]) % 1 == 0).all(axis=0)]
    new[:, whole] = np.rint(new[:, whole])
    for column, missing in zip(amounts[gaps], made[:, len(amounts) + len(votes) :].T, strict=True):
        new[missing == 1, column] = np.nan
    return np.vstack([X, new]), labels


def _smote(matrix: NDArray[Any], y: NDArray[Any], amounts: int, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The real rows, then the new ones; the first `amounts` columns are numbers, the others categories."""
    from imblearn.over_sampling import SMOTE, SMOTEN, SMOTENC

    classes, counts = np.unique(y, return_counts=True)
    votes = matrix[:, amounts:]
    width = amounts + sum(len(np.unique(votes[:, i])) for i in range(votes.shape[1]))
    most = MAX_SMOTE_CELLS // (SMOTE_NEIGHBOURS * max(width, 1))
    wanted = {c: min(int(counts.max()), int(n) + most) for c, n in zip(classes, counts, strict=True) if n > 1}
    neighbours = min([SMOTE_NEIGHBOURS, *(int(n) - 1 for n in counts if 1 < n < counts.max())])
    given: dict[str, Any] = {"sampling_strategy": wanted, "k_neighbors": neighbours, "random_state": seed}
    if not amounts:
        sampler = SMOTEN(**given)
    elif votes.shape[1]:
        sampler = SMOTENC(categorical_features=list(range(amounts, matrix.shape[1])), **given)
    else:
        sampler = SMOTE(**given)
    found: tuple[NDArray[Any], NDArray[Any]] = sampler.fit_resample(matrix, y)
    return found


# A window of fewer rows measures shares poorly: then so many of the newest rows count. And so many rows as all are come on
# top, so that a class which the newest rows happen to miss never counts nothing.
_MIN_WINDOW_ROWS, _PRIOR_ROWS = 100, 10


def estimate_class_shares(truth: NDArray[Any], times: pd.Series, window: WindowLength) -> dict[Any, float]:
    """The share of each class in the newest window of labelled rows: `truth` (n,) as labels, `times` (n,); they add up to 1."""
    newest = (
        time_windows.mask_newest_windows(times, window, 1)
        | (times.rank(method="first", ascending=False) <= _MIN_WINDOW_ROWS).to_numpy()
    )
    classes, at = np.unique(truth, return_inverse=True)
    now, all_ = (np.bincount(part, minlength=len(classes)) for part in (at[newest], at))
    found = (now + _PRIOR_ROWS * all_ / len(truth)) / (newest.sum() + _PRIOR_ROWS)
    return dict(zip(classes.tolist(), found.tolist(), strict=True))


def weigh_classes_by_share(truth: NDArray[Any], now: dict[Any, float]) -> dict[Any, float]:
    """How much a row of each class counts, that the shares `now` hold among rows of `truth` (n,): 1 on average over these rows."""
    classes, counts = np.unique(truth, return_counts=True)
    return {c: now[c] * len(truth) / int(n) for c, n in zip(classes.tolist(), counts.tolist(), strict=True)}


def describe_class_shares(now: dict[Any, float], window: str) -> str:
    """The remedy in words, with the commonest classes."""
    first = sorted(now, key=lambda c: -now[c])[:5]
    listed = ", ".join(f"{c} {now[c]:.1%}" for c in first) + (" ..." if len(now) > 5 else "")
    return f"classes weighted as frequent as in the newest window of labels ({window}) after label drift: {listed}"
