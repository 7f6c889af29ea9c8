"""Reads of S3 with obstore: they return and raise what reads with s3fs do."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec.config
import pytest

from fourds_dist.data.io import object_store
from fourds_dist.data.io import range_reader as module
from fourds_dist.data.io.range_reader import DataError, RangeFetcher
from tests.data.conftest import S3Server, forget_connections
from tests.data.faults import Proxy, serving
from tests.harness import s3

CONTENT = bytes(range(256)) * 20
SLOWER = "is read with s3fs, which is slower"


@pytest.fixture
def configured(monkeypatch) -> Iterator[Callable[..., None]]:
    """Sets fsspec's configuration of S3, and forgets all connections."""

    def configure(**settings: object) -> None:
        monkeypatch.setitem(fsspec.config.conf, "s3", settings)
        forget_connections()
        module._located.cache_clear()

    yield configure
    monkeypatch.undo()
    forget_connections()
    module._located.cache_clear()


@pytest.fixture
def url(s3_server: S3Server) -> str:
    url = f"{s3_server.new_bucket()}/set/x.tar"
    s3_server.fs.pipe_file(url, CONTENT)
    return url


def uses_obstore(url: str) -> bool:
    return object_store._buckets[url.split("/")[2]].uses_obstore


def read(url: str) -> RangeFetcher:
    fetcher = RangeFetcher(retry_timeout_s=0.0)
    assert fetcher.range(url, 3, 4000, len(CONTENT)) == CONTENT[3:4000]
    assert fetcher.object(url) == CONTENT
    assert fetcher.counts == {"bytes": 3997 + len(CONTENT)}
    return fetcher


@pytest.mark.parametrize(
    "key", ["a b/é", "a+b%20c", "a#b?c=d&e", "[x]*~'()!,;:@$", "..a/b..", "ü" * 60, '\\a|b^`{}<>"']
)
def test_every_key_is_the_object_of_s3fs(s3_server: S3Server, key: str, caplog) -> None:
    bucket = s3_server.new_bucket()
    s3_server.fs.pipe_file(f"{bucket}/{key}", CONTENT)
    for kind in ("s3", "s3a"):
        read(f"{kind}{bucket.removeprefix('s3')}/{key}")
    assert uses_obstore(f"{bucket}/")
    assert SLOWER not in caplog.text


@pytest.mark.parametrize("key", ["/x", "x/", "/x/"])
def test_a_key_with_outer_slashes_is_not_the_key_without(s3_server: S3Server, key: str) -> None:
    """obstore would read the other object."""
    bucket = s3_server.new_bucket()
    s3_server.fs.pipe_file(f"{bucket}/x", CONTENT)
    fs, _ = module._located(f"{bucket}/x")
    assert object_store.bucket_of(fs, f"{bucket.removeprefix('s3://')}/{key}", 5.0) is None


def test_a_buffer_is_not_copied(url: str) -> None:
    data = RangeFetcher(0.0).range(url, 0, 10, len(CONTENT))
    assert isinstance(data, memoryview)
    assert (data.format, data.readonly, data.nbytes) == ("B", True, 10)


def test_permanent_errors_are_those_of_s3fs_and_raised_at_once(url: str, configured, s3_server) -> None:
    fetcher = RangeFetcher(60.0)
    with pytest.raises(DataError, match="missing cannot be read: FileNotFoundError"):
        fetcher.range(f"{url}/missing", 0, 10, 10)
    read(url)
    assert uses_obstore(url)  # a missing object says nothing about the bucket
    configured(endpoint_url=s3_server.endpoint, key=s3.KEY, secret="wrong")
    with pytest.raises(DataError, match="cannot be read: PermissionError"):
        fetcher.object(url)
    assert fetcher.counts == {}


def test_a_store_that_answers_ranges_with_200_is_read_with_s3fs(url, s3_server, configured, caplog) -> None:
    configured(endpoint_url=s3_server.direct)
    for _ in range(2):
        read(url)
    assert not uses_obstore(url)
    assert caplog.text.count(SLOWER) == 1
    assert "non-partial" in caplog.text


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (
            {"s3_additional_kwargs": {"ExpectedBucketOwner": "1"}},
            "ExpectedBucketOwner of s3_additional_kwargs",
        ),
        ({"client_kwargs": {"api_version": "2006-03-01"}}, "api_version of client_kwargs"),
        ({"config_kwargs": {"inject_host_prefix": True}}, "inject_host_prefix of config_kwargs"),
        ({"config_kwargs": {"s3": {"use_arn_region": True}}}, "s3.use_arn_region"),
    ],
)
def test_a_setting_without_a_counterpart_is_left_to_s3fs(
    url, s3_server, configured, caplog, settings, named
) -> None:
    configured(endpoint_url=s3_server.endpoint, **settings)
    for _ in range(2):
        read(url)
    assert caplog.text.count(named) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"key": s3.KEY, "secret": s3.SECRET},
        {"username": s3.KEY, "password": s3.SECRET, "requester_pays": True},
        {"client_kwargs": {"aws_access_key_id": s3.KEY, "aws_secret_access_key": s3.SECRET}},
        {"profile": "one"},
        {
            "config_kwargs": {
                "retries": {"max_attempts": 2},
                "connect_timeout": 3,
                "s3": {"addressing_style": "path"},
            }
        },
        {"client_kwargs": {"region_name": "eu-west-1"}, "config_kwargs": {"proxies": {}}},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_settings_of_fsspec_hold_for_obstore(
    url, s3_server, configured, monkeypatch, tmp_path, settings
) -> None:
    if {"key", "username", "aws_access_key_id"} & {*settings, *settings.get("client_kwargs", {})}:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    if "profile" in settings:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(_credentials(tmp_path, "one")))
    configured(endpoint_url=s3_server.endpoint, **settings)
    read(url)
    assert uses_obstore(url)


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "a profile"])
def test_endpoint_and_credentials_are_found_where_s3fs_finds_them(
    url, s3_server, configured, monkeypatch, tmp_path, variable
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(_credentials(tmp_path, "default")))
    if variable == "a profile":
        (tmp_path / "config").write_text(
            f"[default]\nendpoint_url = {s3_server.endpoint}\nregion = us-west-2\n"
        )
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    else:
        monkeypatch.setenv(variable, s3_server.endpoint)
    configured()
    read(url)
    assert uses_obstore(url)


def test_temporary_credentials_come_from_botocore(url, s3_server, configured, monkeypatch, tmp_path) -> None:
    """A profile with a process that prints credentials, as for roles and single sign-on."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    printed = tmp_path / "credentials.json"
    printed.write_text(
        f'{{"Version": 1, "AccessKeyId": "{s3.KEY}", "SecretAccessKey": "{s3.SECRET}", '
        '"Expiration": "2999-01-01T00:00:00Z"}'
    )
    (tmp_path / "config").write_text(f"[default]\ncredential_process = cat {printed}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    configured(endpoint_url=s3_server.endpoint)
    read(url)
    assert uses_obstore(url)


def test_without_credentials_the_error_is_that_of_s3fs(url, s3_server, configured, no_credentials) -> None:
    configured(endpoint_url=s3_server.endpoint)
    with pytest.raises(DataError, match="NoCredentialsError: Unable to locate credentials"):
        RangeFetcher(0.0).object(url)


def test_stopping_leaves_a_read_that_hangs(url, s3_server, configured) -> None:
    proxy = Proxy(s3_server.endpoint, {"hang": 1.0})
    with serving(proxy) as endpoint:
        configured(endpoint_url=endpoint)
        fetcher, errors = RangeFetcher(60.0), []

        def reading() -> None:
            with pytest.raises(DataError) as error:
                fetcher.range(url, 0, 10, len(CONTENT))
            errors.append(str(error.value))

        thread = threading.Thread(target=reading)
        thread.start()
        while not proxy.faults["hang"]:
            time.sleep(0.001)
        fetcher.stop()
        thread.join(10)
        assert "the read was cancelled" in errors[0]
    assert uses_obstore(url)


def test_a_process_ends_well_with_a_read_under_way(url, s3_server) -> None:
    program = (
        "import threading\n"
        "from fourds_dist.data.io.range_reader import RangeFetcher\n"
        f"fetcher = RangeFetcher(60.0)\nassert fetcher.range('{url}', 0, 9, 5120) == bytes(range(9))\n"
        f"threading.Thread(target=fetcher.object, args=('{url}',), daemon=True).start()\n"
    )
    environment = os.environ | s3_server.environment
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def _credentials(folder: Path, profile: str) -> Path:
    path = folder / "credentials"
    path.write_text(f"[{profile}]\naws_access_key_id = {s3.KEY}\naws_secret_access_key = {s3.SECRET}\n")
    return path
