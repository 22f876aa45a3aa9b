"""Loads market data, checks it, computes features and puts it on the device. README.md describes the modules."""
