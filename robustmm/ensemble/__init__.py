"""Estimators made of others: cross-fitted features, thresholds per label."""
