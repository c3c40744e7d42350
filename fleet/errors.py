"""Errors as part of the interface: a short tree that says whether trying again can help.

Bad readings are not errors: they are counted and diverted with a reason code (see `fleet.contract`).
"""


class WeirError(Exception):
    """Something a person has to read: what is wrong, where, and how to put it right."""

    retryable = False


class ConfigurationError(WeirError):
    """A setting, a secret or a prerequisite is missing or wrong."""


class SpecError(WeirError):
    """A device type's YAML is wrong. The message names file, line, what was found and what is allowed."""


class RegistryError(WeirError):
    """A change that the registry of devices cannot take: what is wrong, and how to put it right."""


class CommandError(WeirError):
    """A command that no device can take: unknown device, command or argument, and what there is."""


class CommandConflict(CommandError):
    """Another command has this one's id."""


class Unavailable(WeirError):
    """A server does not answer, or not yet. Trying again later can help."""

    retryable = True


class Refused(WeirError):
    """A server answered and said no: wrong password, missing right, unknown topic."""


class DataError(WeirError):
    """The data breaks a promise that the run depends on: the run fails and says where; trying again cannot help."""
