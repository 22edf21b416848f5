"""A device by its name, before any framework is asked for it."""

from __future__ import annotations

from loadgen.contracts import BackendOptions, InputError


def only_device(options: BackendOptions) -> str:
    """The device of a backend that does not spread its model. Raises InputError for several, or an unknown name."""
    if len(options.devices) > 1:
        raise InputError(
            f"devices {', '.join(options.devices)}: this backend computes on one device; "
            "use --workers for a copy of the model on each"
        )
    kind, _, number = options.device.partition(":")
    if options.device != "cpu" and (kind != "cuda" or not (number.isdecimal() or options.device == "cuda")):
        raise InputError(f"device {options.device!r}: use cpu, cuda or cuda:N")
    return options.device


def only_cpu(options: BackendOptions) -> None:
    """Raise InputError for anything but one CPU and float32."""
    if only_device(options) != "cpu":
        raise InputError(f"device {options.device!r}: this backend runs on cpu; use that, or another backend")
    if options.dtype != "float32":
        raise InputError(f"dtype {options.dtype!r}: this backend computes in float32; leave out --dtype")
