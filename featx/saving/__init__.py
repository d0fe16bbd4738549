"""Saving: fitted estimators as one file without pickle."""
