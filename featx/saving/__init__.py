"""Fitted estimators as one file without pickle."""
