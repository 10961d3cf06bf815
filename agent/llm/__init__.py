"""Providers that propose and judge: one file each."""
