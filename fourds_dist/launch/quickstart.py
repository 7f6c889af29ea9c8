"""Packing of the two domains of the quickstart (`prepare: digits`)."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.format.manifest import MANIFEST, Manifest, read_manifest
from fourds_dist.io.storage import check_writable, locate, translate_storage_errors

if TYPE_CHECKING:
    from fourds_dist.stages.settings import Settings
from fourds_dist.data.datasets.digits import digits


def pack_quickstart(settings: Settings) -> None:
    """Pack both domains into source.url and target.url, unless they are packed already.

    Raises:
        ValueError: a URL is missing, its folder holds another dataset or cannot be written; no domain is packed.
    """
    for domain, url in missing_domains(settings):
        from fourds_dist.data.pack.writer import pack_domain

        print(f"packing {domain.name} into {url}", file=sys.stderr)
        pack_domain(domain, url)


def missing_domains(settings: Settings) -> list[tuple[Domain, str]]:
    """Return the domains that `pack_quickstart` packs, with their URLs.

    Raises:
        ValueError: see `pack_quickstart`.
    """
    missing: list[tuple[Domain, str]] = []
    for key, url, domain in zip(
        ("source.url", "target.url"), (settings.source.url, settings.target.url), digits(), strict=True
    ):
        if url is None:
            raise ValueError(f"prepare: digits needs {key}, a folder to pack into")
        fs, path = locate(f"{url.rstrip('/')}/{MANIFEST}")
        with translate_storage_errors(url):
            exists = fs.exists(path)
        if exists:
            if not _is_made_from(read_manifest(url), domain):
                raise ValueError(
                    f"{key}: {url} holds another dataset than prepare: digits makes; remove it, choose another "
                    f"{key}, or set prepare=null to use the dataset unchanged"
                )
            continue
        check_writable(url)
        missing.append((domain, url))
    return missing


def _is_made_from(manifest: Manifest, domain: Domain) -> bool:
    """Return whether a dataset was packed from this domain, by its name, classes and notes."""
    notes = json.loads(json.dumps(dict(domain.notes)))
    is_same = (manifest.name, manifest.classes) == (domain.name, domain.classes)
    return is_same and all(manifest.notes.get(key) == value for key, value in notes.items())
