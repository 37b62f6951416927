"""Small tables of words, and candidates that cost nothing."""

import time

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier

WORDS = {"a": "red rose", "b": "blue sea", "c": "green hill"}


def texts(n=60, seed=0, wrong=0.2):
    """Rows of words that say the label most of the time, some without a text."""
    rng = np.random.default_rng(seed)
    y = np.array(list(WORDS))[np.arange(n) % 3]
    said = np.where(rng.random(n) < wrong, rng.permutation(y), y)
    X = pd.DataFrame({"image": None, "text": [WORDS[label] for label in said]})
    X["price"] = rng.normal(size=n) + 3 * (y == "a")
    return X.astype({"image": object}), y


class First(ClassifierMixin, BaseEstimator):
    """Reads the first letter of the text; several ways to go wrong."""

    def __init__(self, fault=None, seconds=0.0, strength=0.8, max_epochs=1):
        self.fault = fault
        self.seconds = seconds
        self.strength = strength
        self.max_epochs = max_epochs

    def fit(self, X, y, sample_weight=None):
        time.sleep(self.seconds * self.max_epochs)
        if self.fault is not None:
            raise self.fault
        self.classes_ = np.unique(y)
        self.n_rows_ = len(X)
        return self

    def predict_proba(self, X):
        letters = {"r": "a", "b": "b", "g": "c"}
        labels = [
            letters.get(text[0] if isinstance(text, str) else "", "")
            for text in X["text"]
        ]
        hit = self.classes_[None, :] == np.array(labels)[:, None]
        rest = (1 - self.strength) / (len(self.classes_) - 1)
        proba = np.where(hit, self.strength, rest)
        return proba / proba.sum(axis=1, keepdims=True)

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def prior():
    return DummyClassifier(strategy="prior")
