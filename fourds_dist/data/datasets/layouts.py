"""Table of the folder layouts of the paper's datasets after their published archives are unpacked.

A layout has either a folder per class (`class_folders`) or lists of paths and class indices (`lists`). In templates,
{domain} is the published name of the domain. The first template that exists below any of `roots` is used. Case, spaces,
dashes and underscores in names on disk are ignored: Transfer-Learning-Library unpacks `Real World` as Real_World, and
puts lists into image_list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    title: str
    origin: str
    """Publication of the dataset, and where to get it."""
    domains: Mapping[str, str]
    """Name in fourds_dist -> published name."""
    num_classes: int
    roots: tuple[str, ...] = (".",)
    """Top-level folders of the archives; '.': none."""
    class_folders: tuple[str, ...] = ("{domain}",)
    """Parent folders of a domain's class folders."""
    lists: tuple[Mapping[str, str], ...] = ()
    """Part ('train', 'test', or 'all' without published splits) -> list file of lines 'path class-index'."""
    images: tuple[str, ...] = (".",)
    """Folders to which the paths in the lists are relative."""
    classes: tuple[str, ...] | None = None
    """Class names in label order; None: the names of the class folders."""
    test_fraction: float = 0.2
    """Share of test images of a random split, as in the paper."""


_DIGITS = tuple("0123456789")

LAYOUTS: dict[str, Layout] = {
    "office-31": Layout(
        title="Office-31",
        origin="Saenko et al. 2010: https://faculty.cc.gatech.edu/~judy/domainadapt/",
        domains={"amazon": "amazon", "dslr": "dslr", "webcam": "webcam"},
        num_classes=31,
        roots=(".", "domain_adaptation_images", "office31", "Original_images"),
        class_folders=("{domain}/images", "{domain}"),
    ),
    "office-home": Layout(
        title="Office-Home",
        origin="Venkateswara et al. 2017: https://www.hemanthdv.org/officeHomeDataset.html",
        domains={"art": "Art", "clipart": "Clipart", "product": "Product", "real-world": "Real World"},
        num_classes=65,
        roots=(".", "OfficeHomeDataset_10072016"),
    ),
    "office-caltech": Layout(
        title="Office-Caltech",
        origin="Gong et al. 2012 (Geodesic flow kernel): the ten classes that Office-31 and Caltech-256 share",
        domains={"amazon": "amazon", "caltech": "caltech", "dslr": "dslr", "webcam": "webcam"},
        num_classes=10,
        roots=(".", "office_caltech_10", "Original_images"),
        class_folders=("{domain}/images", "{domain}"),
    ),
    "imageclef-da": Layout(
        title="ImageCLEF-DA",
        origin="ImageCLEF 2014: https://www.imageclef.org/2014/adaptation",
        domains={"bing": "b", "caltech": "c", "imagenet": "i", "pascal": "p"},
        num_classes=12,
        roots=(".", "image_CLEF", "ImageCLEF"),
        class_folders=(),
        lists=(
            {"all": "list/{domain}List.txt"},
            {"all": "{domain}List.txt"},
            {"all": "{domain}_list.txt"},
            {"all": "image_list/{domain}.txt"},
        ),
        classes=(
            *("aeroplane", "bike", "bird", "boat", "bottle", "bus"),
            *("car", "dog", "horse", "monitor", "motorbike", "people"),
        ),
    ),
    "visda-2017": Layout(
        title="VisDA-2017",
        origin="Peng et al. 2017, classification track: http://ai.bu.edu/visda-2017/",
        domains={"synthetic": "train", "real": "validation"},
        num_classes=12,
        roots=(".", "visda-2017", "VisDA2017"),
    ),
    "domainnet": Layout(
        title="DomainNet",
        origin="Peng et al. 2019, cleaned version with its lists: http://ai.bu.edu/M3SDA/",
        domains={name: name for name in ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")},
        num_classes=345,
        roots=(".", "DomainNet", "domainnet"),
        class_folders=(),
        lists=(
            {"train": "{domain}_train.txt", "test": "{domain}_test.txt"},
            {"train": "splits/{domain}_train.txt", "test": "splits/{domain}_test.txt"},
            {"train": "image_list/{domain}_train.txt", "test": "image_list/{domain}_test.txt"},
        ),
        test_fraction=0.1,
    ),
    "pacs": Layout(
        title="PACS",
        origin="Li et al. 2017, Deeper, Broader and Artier Domain Generalization",
        domains={"photo": "photo", "art-painting": "art_painting", "cartoon": "cartoon", "sketch": "sketch"},
        num_classes=7,
        roots=(".", "kfold", "pacs_data", "PACS"),
    ),
    "mnist-m": Layout(
        title="MNIST-M",
        origin="Ganin and Lempitsky 2015: http://yaroslav.ganin.net",
        domains={"mnist-m": "mnist_m"},
        num_classes=10,
        roots=(".", "mnist_m"),
        class_folders=(),
        lists=({"train": "{domain}_train_labels.txt", "test": "{domain}_test_labels.txt"},),
        images=(".", "{domain}_{part}"),
        classes=_DIGITS,
    ),
}
"""Name of the subcommand -> layout."""


def folder_of(layout: str, domain: str) -> str:
    """Return the name of the dataset folder of a domain."""
    return domain if len(LAYOUTS[layout].domains) == 1 else f"{layout}-{domain}"
