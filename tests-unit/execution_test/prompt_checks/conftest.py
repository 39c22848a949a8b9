"""Keeps the log of refused prompts out of the output."""

import logging

import pytest


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.CRITICAL, "comfy_execution")
