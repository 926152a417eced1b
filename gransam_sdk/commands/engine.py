"""``gransam engine``: TensorRT engines of a bundle, built here, listed, removed, or laid out for Triton."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from .streams import answer, narrate

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..runtime.engine_cache import Engine, HeldEngine
    from ..runtime.engine_spec import EngineSpec


def engine(
    bundle: Annotated[
        str | None, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or the name of an embedded one.")
    ] = None,
    triton: Annotated[
        Path | None, typer.Option("--triton", metavar="DIR", help="Write a Triton model repository there.")
    ] = None,
    platform: Annotated[
        str, typer.Option("--platform", metavar="NAME", help="What Triton runs: onnx, or tensorrt, built on this GPU.")
    ] = "onnx",
    fused: Annotated[
        bool, typer.Option("--fused", help="One graph with static shapes, photo in and masks out, instead of four.")
    ] = False,
    kept: Annotated[int, typer.Option("--kept", metavar="N", min=1, help="Masks that the fused graph keeps.")] = 64,
    chunk: Annotated[
        int | None, typer.Option("--chunk", metavar="N", min=1, help="Prompts a run; the bundle's by default.")
    ] = None,
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="cuda or cuda:N.")] = "cuda",
    list_: Annotated[bool, typer.Option("--list", help="Print the engines that are here, and build none.")] = False,
    remove: Annotated[bool, typer.Option("--rm", help="Delete the bundle's engines, or all without BUNDLE.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --list: one JSON object.")] = False,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", metavar="DIR", help="Keeps engines; $GRANSAM_HOME, else ~/.cache/gransam."),
    ] = None,
) -> None:
    """Build a bundle's TensorRT engines on this GPU, or serve it with Triton. Prints where they are."""
    if list_ or remove:
        if triton is not None or (list_ and remove):
            raise InputError("gransam engine", expected="one of --list, --rm and --triton", found="several")
        _keep_house(cache, bundle, remove, as_json)
        return
    if bundle is None:
        raise InputError("gransam engine", expected="a BUNDLE", found="none", do="gransam engine nano-voc20")
    if platform not in ("onnx", "tensorrt"):
        raise InputError("--platform", expected="onnx or tensorrt", found=repr(platform))
    from ..bundle import open_bundle

    opened = open_bundle(bundle)
    if triton is None or platform == "tensorrt":
        from ..runtime.tensorrt_library import import_cuda, import_tensorrt

        import_tensorrt()  # what is missing is said before any work is done
        import_cuda()
    specs = _specs(opened, chunk, fused, kept)
    if triton is None:
        for built in _verified(opened, specs, cache, device, chunk, kept):
            print(built.path)
        return
    plans = None
    if platform == "tensorrt":
        engines = _verified(opened, specs, cache, device, chunk, kept)
        plans = {spec.name: built.plan for spec, built in zip(specs, engines, strict=True)}
    from ..export.triton import write_triton_repository

    written = write_triton_repository(
        opened, triton, platform="onnxruntime_onnx" if plans is None else "tensorrt_plan", specs=specs, plans=plans
    )
    for model in written:
        print(model)


def _specs(bundle: Bundle, chunk: int | None, fused: bool, kept: int) -> tuple[EngineSpec, ...]:
    from ..runtime.engine_spec import engine_specs, fused_engine_spec

    if not fused:
        return engine_specs(bundle, chunk=chunk)
    if chunk is not None:
        raise InputError("--chunk", expected="none with --fused: its shapes are fixed", found=str(chunk))
    from ..export.fused import fuse

    return (fused_engine_spec(bundle, fuse(bundle, kept=kept)),)


def _verified(
    bundle: Bundle, specs: tuple[EngineSpec, ...], cache: Path | None, device: str, chunk: int | None, kept: int
) -> list[Engine]:
    """Engines that passed a canary just now, in the order of their graphs."""
    from ..classes import select_classes
    from ..export.engine import build_plan
    from ..runtime.engine_cache import EngineCache
    from ..runtime.engine_spec import FUSED
    from ..runtime.load import load_model
    from ..runtime.tensorrt_engine import ENGINES, EngineSource, load_engines, load_fused_engine
    from ..runtime.tensorrt_library import describe_machine
    from ..types import Settings

    machine = describe_machine(device)  # first: without a GPU nothing else is worth its time
    source = EngineSource(home=_home(cache), device=device, build=build_plan, log=narrate)
    if specs[0].name != FUSED:
        load_engines(bundle, source, chunk=chunk).close()
    else:
        classes = select_classes(bundle.classes, background=bundle.head is not None and bundle.head.background)
        graphs = load_model(bundle, device="cpu")
        load_fused_engine(graphs, specs[0].onnx, source, classes=classes, settings=Settings(), kept=kept).close()
    narrate("the canary passes")
    engines = EngineCache(source.home / ENGINES)
    return [engines.fetch(spec, machine, None) for spec in specs]


def _keep_house(cache: Path | None, bundle: str | None, remove: bool, as_json: bool) -> None:
    from ..runtime.engine_cache import EngineCache
    from ..runtime.tensorrt_engine import ENGINES

    engines = EngineCache(_home(cache) / ENGINES)
    name = None if bundle is None else Path(bundle).name
    if remove:
        freed = engines.remove(name)
        narrate(f"{freed / 1e6:,.1f} MB deleted" if freed else "no engines were here")
        return
    held = [entry for entry in engines.held() if name in (None, entry.facts.get("bundle_name"))]
    if as_json:
        answer({"engines": [_facts(entry) for entry in held]})
        return
    if not held:
        narrate("no engines are here; gransam engine BUNDLE builds them")
    for entry in held:
        about = [str(entry.facts.get(fact, "?")) for fact in ("gpu", "tensorrt", "precision")]
        size = f"{entry.bytes / 1e6:,.1f} MB"
        print(f"{entry.stem}  {size}  {about[0]}  TensorRT {about[1]}  {about[2]}  {entry.built}")


def _facts(entry: HeldEngine) -> dict[str, object]:
    return {
        "name": entry.stem,
        "facts": dict(entry.facts),
        "bytes": entry.bytes,
        "build_seconds": entry.build_seconds,
        "built": entry.built,
    }


def _home(cache: Path | None) -> Path:
    from ..training.token_cache import default_cache

    return cache or default_cache()
