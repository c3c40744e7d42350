"""Devices that do not exist, and recordings of devices that did."""
