"""Loading torch in less time, for commands that last a second or two."""

import sys
import types

LEFT_OUT = "torch._meta_registrations"


def import_torch() -> None:
    """`import torch`, in two thirds of the time, unless it is there already.

    Torch teaches its operators to tell the shapes of results without computing them, in Python; compilers need that,
    and tensors without data (diffusers), but no network that just runs. What needs it imports it later, as
    `codec.audioldm2` does. Without it `torch.Generator` does not work either. All that is known of this version only.
    """
    if "torch" in sys.modules:
        return
    from importlib.metadata import version

    if not version("torch").startswith("2.13."):
        return
    sys.modules[LEFT_OUT] = types.ModuleType(LEFT_OUT)
    try:
        import torch  # noqa: F401
    finally:
        del sys.modules[LEFT_OUT]
