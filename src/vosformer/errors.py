"""The errors that vosformer raises on a user's input; every one of them is a `VOSError`."""


class VOSError(Exception):
    """Something the user can mend. The message names the file or value, what was found and what was expected."""


class InputError(VOSError):
    """A video, image, mask or argument that cannot be used."""


class OutputError(VOSError):
    """A result that could not be written (full disk, no permission)."""


class WeightsError(VOSError):
    """A weights file that cannot be loaded into the model asked for."""


class DataError(VOSError):
    """A data set that is missing, incomplete or broken."""


class DeviceError(VOSError):
    """A device or dtype that this machine does not have."""


class TrainingError(VOSError):
    """A training run that cannot go on (a loss that is not finite, settings that contradict each other)."""


class ServerError(VOSError):
    """A `vosformer serve` that cannot be reached, is full, refuses, or broke off."""
