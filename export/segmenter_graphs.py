"""The graphs of a segmenter that need no head, its decoder in the form that was asked for or in the cheaper one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from gransam_sdk.errors import InputError

from .decoder_form import choose_form
from .decoder_graphs import FORMS, decoder_modules, export_decoder, export_image
from .decoder_parts import DecoderParts

AUTO = "auto"
DECODERS = (AUTO, *FORMS)


def segmenter_graphs(
    encoder: nn.Module,
    parts: DecoderParts,
    maps: Callable[[int], Mapping[str, Tensor]],
    *,
    side: int,
    decoder: str,
    log: Callable[[str], None],
) -> dict[str, bytes]:
    """Exports image, prompt and mask graphs.

    Args:
        encoder: (b,3,s,s) to maps.
        parts: The decoder.
        maps: Of a number of photos makes an example of what the encoder makes of them.
        side: s.
        decoder: One of ``DECODERS``; ``auto`` exports every form, and counts and times them.
        log: Told which form was chosen, and by what.

    Returns:
        ONNX bytes by graph name: image, prompt, mask.

    Raises:
        InputError: Another word.
    """
    if decoder not in DECODERS:
        raise InputError("form of the decoder", expected=", ".join(DECODERS), found=repr(decoder))
    modules = {form: decoder_modules(parts, form) for form in FORMS if decoder in (AUTO, form)}
    graphs = {form: export_decoder(forms, maps(2)) for form, forms in modules.items()}
    chosen = next(iter(graphs))
    if decoder == AUTO:
        choice = choose_form(graphs, {name: value.numpy() for name, value in maps(1).items()})
        log(str(choice))
        chosen = choice.form
    image = export_image(encoder, modules[chosen], side)
    return {"image": image, "prompt": graphs[chosen].prompt, "mask": graphs[chosen].mask}
