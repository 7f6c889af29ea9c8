"""Pack: dataset folders of tar shards from images; each shard has an index, each folder a manifest.

python -m fourds_dist.pack folder photos/ s3://bucket/photos            a folder of images, a sub-folder per class
python -m fourds_dist.pack list photos.csv s3://bucket/photos           a list of images and labels, also CSV or TSV
python -m fourds_dist.pack office-home OfficeHomeDataset DEST           a known data set; one folder per domain in DEST
python -m fourds_dist.pack index 's3://bucket/old/train-{000..099}.tar' an index of existing tars
python -m fourds_dist.pack reshard SRC DEST --max-side 256              a dataset folder again, with smaller images
python -m fourds_dist.pack verify s3://bucket/photos                    check all files
python -m fourds_dist.pack sheet DEST/line DEST/solid sheet.png         a picture of domains side by side

SRC is local; DEST and URL are paths or URLs of fsspec (s3://, gs://, abfs://). Equal input and seed give equal shards.
The manifest is written last; after a crash the same command starts again from the beginning.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Mapping

from fourds_dist.cli.pack_options import parser_of
from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.registry import DATASET_BUILDERS
from fourds_dist.data.pack.console import PackProgress, show
from fourds_dist.io.error_text import format_error
from fourds_dist.io.names import write_any_name
from fourds_dist.io.terminal import say


def main(arguments: list[str] | None = None) -> int:
    """Entry of `python -m fourds_dist.pack`; return the exit status."""
    write_any_name()
    options = parser_of(__doc__).parse_args(arguments)
    from fourds_dist.cli.image_options import ImageOptions
    from fourds_dist.data.decode.pixels import allow_pixels

    try:
        images = ImageOptions.of(options)
        options.grey_range, options.most_pixels = images.grey_range, images.most_pixels
        if getattr(options, "quality", None) is not None and options.max_side is None:
            raise ValueError("--quality is that of scaled images; give --max-side too")
        allow_pixels(images.most_pixels)
        match options.subcommand:
            case "folder":
                return _pack_folder(options)
            case "list":
                return _pack_list(options)
            case "index":
                return _index(options)
            case "reshard":
                return _reshard(options)
            case "verify":
                return _verify(options)
            case "sheet":
                return _sheet(options)
            case _:
                return _pack_source(options)
    except KeyboardInterrupt:
        print("stopped; the same command starts again from the beginning", file=sys.stderr)
        return 130
    except (ValueError, RuntimeError, OSError) as error:
        if options.traceback:
            raise
        say(format_error(error), file=sys.stderr)
        return 1


def _pack_folder(options: Namespace) -> int:
    from fourds_dist.data.datasets.folder import image_folder

    name, classes = options.name or _last_part(options.destination), _classes(options)
    _check_pack(options, {options.destination: name}, classes)
    with PackProgress("images") as progress:
        domain = image_folder(
            options.source,
            name=name,
            classes=classes,
            unlabelled=options.unlabelled,
            layout=options.layout,
            group=options.group,
            leave_out=None if "://" in options.destination else options.destination,
            val_fraction=options.val_fraction,
            test_fraction=options.test_fraction,
            seed=options.seed,
            skip_bad=options.skip_bad,
            decode=options.decode,
            num_threads=options.threads,
            on_progress=progress,
        )
    return _pack([(domain, options.destination)], options)


def _pack_list(options: Namespace) -> int:
    from fourds_dist.data.datasets.list_file import image_list

    name, classes = options.name or _last_part(options.destination), _classes(options)
    _check_pack(options, {options.destination: name}, classes)
    with PackProgress("images") as progress:
        domain = image_list(
            options.source,
            root=options.root,
            group=options.group,
            val_fraction=options.val_fraction,
            test_fraction=options.test_fraction,
            seed=options.seed,
            name=name,
            classes=classes,
            skip_bad=options.skip_bad,
            decode=options.decode,
            num_threads=options.threads,
            on_progress=progress,
        )
    return _pack([(domain, options.destination)], options)


def _pack_source(options: Namespace) -> int:
    source = DATASET_BUILDERS[options.subcommand]
    given = {argument.name: getattr(options, argument.name) for argument in source.arguments}
    for argument in source.arguments:
        if argument.many and given[argument.name] is not None:
            given[argument.name] = tuple(given[argument.name])
    names = source.chosen(given.get("domains"))
    _check_pack(options, {_below(options.destination, name): name for name in names})
    with PackProgress("images") as progress:
        if source.checks_files:
            given |= {"num_threads": options.threads, "on_progress": progress}
        domains = source.domains(**given)
    return _pack(((domain, _below(options.destination, domain.name)) for domain in domains), options)


def _check_pack(
    options: Namespace, destinations: Mapping[str, str], classes: tuple[str, ...] | None = None
) -> None:
    """Refuse options and destinations that cannot work, before any image is read.

    Args:
        destinations: URL of each dataset folder -> name of the dataset.
    """
    from fourds_dist.data.datasets.folder import group_expression
    from fourds_dist.data.datasets.splits import check_fractions
    from fourds_dist.data.pack.destination import check_destination

    check_fractions(getattr(options, "val_fraction", 0), getattr(options, "test_fraction", 0))
    if getattr(options, "group", None) is not None:
        group_expression(options.group)
    for url, name in destinations.items():
        check_destination(url, name=name, classes=classes, overwrite=options.overwrite)


def _pack(work: Iterable[tuple[Domain, str]], options: Namespace) -> int:
    from fourds_dist.data.pack.scaling import QUALITY, Scaling, scaled_domain
    from fourds_dist.data.pack.writer import pack_domain

    for domain, url in work:
        if options.max_side is not None:
            scaling = Scaling(options.max_side, options.quality or QUALITY)
            domain = scaled_domain(
                domain, scaling, num_threads=options.threads, most_pixels=options.most_pixels
            )
        fractions = {
            name: getattr(options, name)
            for name in ("val_fraction", "test_fraction", "seed")
            if hasattr(options, name)
        }
        with PackProgress(domain.name) as progress:
            manifest = pack_domain(
                domain,
                url,
                shard_bytes=round(options.shard_mb * 1e6),
                overwrite=options.overwrite,
                grey_range=options.grey_range,
                num_threads=options.threads,
                on_progress=progress,
                **fractions,
            )
        show(url, manifest)
        if progress.changed_nothing:
            print("unchanged: the dataset was packed already")
    return 0


def _index(options: Namespace) -> int:
    from fourds_dist.data.pack.existing_tars import TarReadOptions, index_existing_tars

    with PackProgress("tars") as progress:
        indexed = index_existing_tars(
            options.urls,
            split=options.split,
            to=options.to,
            name=options.name,
            classes=_classes(options),
            reading=TarReadOptions(
                label=options.label,
                image=options.image,
                unlabelled=options.unlabelled,
                skip_bad=options.skip_bad,
                checksum=not options.no_checksum,
                decode=options.most_pixels if options.decode else None,
            ),
            grey_range=options.grey_range,
            num_threads=options.threads,
            on_progress=progress,
        )
    show(indexed.url, indexed.manifest)
    reused = indexed.num_tars - indexed.num_read
    print(
        f"read {indexed.num_read} of {indexed.num_tars} tars"
        + (f"; {reused} had a current index" if reused else "")
    )
    for kind, count in Counter(fault.kind for fault in indexed.faults).items():
        first = next(fault for fault in indexed.faults if fault.kind == kind)
        say(f"left out: {count} x {kind}; first: {first}", file=sys.stderr)
    return 0


def _reshard(options: Namespace) -> int:
    from fourds_dist.data.pack.reshard import packed_domain

    if options.source.rstrip("/") == options.destination.rstrip("/"):
        raise ValueError(f"{options.source} cannot be replaced by itself; give another folder as DEST")
    domain, manifest = packed_domain(options.source, name=options.name)
    _check_pack(options, {options.destination: domain.name}, domain.classes)
    if options.grey_range is None:
        options.grey_range = manifest.grey_range
    return _pack([(domain, options.destination)], options)


def _verify(options: Namespace) -> int:
    from fourds_dist.data.pack.verify import NOT_READABLE, verify

    with PackProgress("shards") as progress:
        manifest, problems = verify(
            options.url,
            decode=options.most_pixels if options.decode else None,
            num_threads=options.threads,
            on_progress=progress,
        )
    show(options.url, manifest)
    for problem in problems:
        say(f"error: {problem}", file=sys.stderr)
    if any(NOT_READABLE in problem for problem in problems):
        say(
            "repair these images, or leave them out: pack or index again with --decode --skip-bad",
            file=sys.stderr,
        )
    if not problems:
        also = ", and every image can be decoded" if options.decode else ""
        print(f"every shard matches the manifest and its index{also}")
    return 1 if problems else 0


def _sheet(options: Namespace) -> int:
    from fourds_dist.data.format.manifest import read_manifest
    from fourds_dist.data.pack.contact_sheet import check_size, contact_sheet, packed_examples, picture
    from fourds_dist.io.storage import check_file, write_bytes

    check_size(
        options.out,
        num_domains=len(options.urls),
        num_classes=options.classes,
        images_per_class=options.images,
    )
    check_file(options.out)
    titles = [_last_part(url) for url in options.urls]
    urls = {
        title if titles.count(title) == 1 else url: url
        for title, url in zip(titles, options.urls, strict=True)
    }
    grey_ranges = {title: read_manifest(url).grey_range for title, url in urls.items()}
    domains = {
        title: packed_examples(url, images_per_class=options.images, seed=options.seed)
        for title, url in urls.items()
    }
    sheet = contact_sheet(
        domains,
        num_classes=options.classes,
        images_per_class=options.images,
        seed=options.seed,
        grey_ranges=grey_ranges,
    )
    write_bytes(options.out, picture(sheet, options.out))
    say(options.out)
    return 0


def _classes(options: Namespace) -> tuple[str, ...] | None:
    from fourds_dist.data.datasets.list_file import read_classes

    return None if options.classes is None else read_classes(options.classes)


def _below(destination: str, name: str) -> str:
    return f"{destination.rstrip('/')}/{name}"


def _last_part(url: str) -> str:
    return url.rstrip("/").rpartition("/")[2] or url


if __name__ == "__main__":
    sys.exit(main())
