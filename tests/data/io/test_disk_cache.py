"""The page cache: read once, bounded, and never in the way."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from fourds_dist.data.io import disk_cache as module
from fourds_dist.data.io.disk_cache import DiskCache

OBJECT = bytes(i * 7 % 251 for i in range(2500))


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    monkeypatch.setattr(module, "PAGE_BYTES", 1000)


class Store:
    """Counts the reads of an object."""

    def __init__(self) -> None:
        self.reads: list[tuple[int, int]] = []

    def read(self, url: str, start: int, stop: int) -> bytes:
        self.reads.append((start, stop))
        return OBJECT[start:stop]


def get(cache: DiskCache, store: Store, start: int, stop: int, url: str = "u") -> bytes:
    return cache.range(url, start, stop, len(OBJECT), store.read)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (999, 1001), (0, 2500), (2400, 2500), (1000, 2000)])
def test_gives_what_was_asked_for_and_reads_once(tmp_path, start, stop):
    store, cache = Store(), DiskCache(tmp_path, 10**6)
    assert get(cache, store, start, stop) == OBJECT[start:stop]
    num_reads = len(store.reads)
    assert store.reads == [(start // 1000 * 1000, min(-(-stop // 1000) * 1000, 2500))]  # whole pages, in one
    assert get(cache, store, start, stop) == OBJECT[start:stop]
    assert get(DiskCache(tmp_path, 10**6), store, start, stop) == OBJECT[start:stop]  # another worker
    assert len(store.reads) == num_reads


def test_objects_of_another_size_or_url_are_others(tmp_path):
    store, cache = Store(), DiskCache(tmp_path, 10**6)
    get(cache, store, 0, 10)
    get(cache, store, 0, 10, url="v")
    cache.range("u", 0, 10, 2499, store.read)
    assert len(store.reads) == 3


def test_the_cache_stays_within_its_limit_and_holds_the_last_used(tmp_path):
    store, cache = Store(), DiskCache(tmp_path, 20_000)
    for number in range(60):
        get(cache, store, 0, 10, url="always")
        get(cache, store, 0, 10, url=f"{number}")
    held = sum(path.stat().st_size for path in tmp_path.glob("??/*"))
    assert held <= 20_000 * 17 / 16 + 1000
    num_reads = len(store.reads)
    get(cache, store, 0, 10, url="always")
    assert len(store.reads) == num_reads


@pytest.mark.parametrize("damage", [b"", b"xxxx", b"1234" + OBJECT[:1000]])
def test_a_damaged_page_is_read_again(tmp_path, damage):
    store, cache = Store(), DiskCache(tmp_path, 10**6)
    get(cache, store, 0, 10)
    (page,) = tmp_path.glob("??/*")
    page.write_bytes(damage)
    assert get(cache, store, 0, 10) == OBJECT[:10]
    assert len(store.reads) == 2
    assert get(cache, store, 0, 10) == OBJECT[:10]
    assert len(store.reads) == 2


def test_a_full_disk_ends_the_cache_not_the_run(tmp_path, monkeypatch, caplog):
    store, cache = Store(), DiskCache(tmp_path, 10**6)

    def full(self: Path, target: object) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    for _ in range(3):
        assert get(cache, store, 0, 10) == OBJECT[:10]
    assert caplog.text.count("No space left on device; continuing without the cache") == 1
    assert not list(tmp_path.glob("??/*"))


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match=r"data\.cache_dir=.*file/x cannot be written"):
        DiskCache(tmp_path / "file" / "x", 10)


@pytest.mark.parametrize("url", ["s3://bucket/cache", "memory://cache", "simplecache::s3://bucket/cache"])
def test_a_store_is_no_cache(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        module.CacheFolderError, match=r"is in a store; give .* disk of each node.*data\.cache_dir=/"
    ):
        DiskCache(url, 10**6)
    DiskCache(f"file://{tmp_path}/cache", 10**6)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_missing_pages_around_a_held_one_are_read_in_stretches(tmp_path):
    store, cache = Store(), DiskCache(tmp_path, 10**6)
    get(cache, store, 1000, 1010)
    store.reads.clear()
    assert get(cache, store, 500, 2400) == OBJECT[500:2400]
    assert store.reads == [(0, 1000), (2000, 2500)]


def test_what_the_cache_holds_wrongly_is_put_right(tmp_path):
    """A byte that flipped on its way into the cache: the page matches its own checksum."""
    cache = DiskCache(tmp_path, 10**6)
    harmed = b"?" + OBJECT[1:]
    assert cache.range("u", 0, 10, len(OBJECT), lambda url, a, b: harmed[a:b]) == harmed[:10]
    store = Store()
    assert get(cache, store, 0, 10) == harmed[:10]
    assert cache.range("u", 0, 10, len(OBJECT), store.read, fresh=True) == OBJECT[:10]
    assert get(cache, store, 0, 10) == OBJECT[:10]
    assert len(store.reads) == 1


def test_data_larger_than_the_limit_keep_a_fixed_share_and_read_no_more_than_without(tmp_path):
    """A third of the data fits: a third is found on the disk in every later epoch, though the order changes."""
    urls = [f"{number}" for number in range(120)]
    limit = len(OBJECT) * len(urls) // 3
    for epoch in range(3):
        store, cache = Store(), DiskCache(tmp_path, limit, expected_bytes=3 * limit)
        for url in sorted(urls, key=lambda url: hash((url, epoch))):
            assert get(cache, store, 1200, 1300, url=url) == OBJECT[1200:1300]
            assert get(cache, store, 0, 2500, url=url) == OBJECT
        read = sum(stop - start for start, stop in store.reads)
        assert read <= (1.1 if epoch == 0 else 0.8) * len(OBJECT) * len(urls)
    assert sum(path.stat().st_size for path in tmp_path.glob("??/*")) <= limit
