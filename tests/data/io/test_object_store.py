"""Reads of S3 with obstore: they return and raise what reads with s3fs do."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import fsspec.config
import pytest

from fourds_dist.benchmark.partial_content import relay
from fourds_dist.data.io import object_store, s3_settings
from fourds_dist.data.io import range_reader as module
from fourds_dist.data.io.range_reader import DataError, RangeFetcher
from fourds_dist.data.io.s3_settings import open_store
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


def test_credentials_that_cannot_be_refreshed_are_asked_for_again(
    url, s3_server, configured, monkeypatch
) -> None:
    """botocore may fail to reach the metadata service for a moment: the next read uses obstore again."""
    configured(endpoint_url=s3_server.endpoint)
    fs, path = module._located(url)
    found = object_store.bucket_of(fs, path, 5.0)
    assert found is not None
    bucket, key = found
    good, fails = open_store(fs, path.split("/")[0], 5.0).credential_provider, [True]

    def refreshed() -> object:
        if fails.pop() if fails else False:
            raise RuntimeError("no answer from the metadata service")
        return good()

    monkeypatch.setattr(s3_settings, "_credentials", lambda fs: refreshed)
    assert RangeFetcher(0.0).range(url, 0, 9, len(CONTENT)) == CONTENT[:9]  # with s3fs
    assert not fails
    assert bucket.uses_obstore
    assert bucket.start(key, 0, 9).result(10) == CONTENT[:9]


def test_without_credentials_the_error_is_that_of_s3fs(url, s3_server, configured, no_credentials) -> None:
    configured(endpoint_url=s3_server.endpoint)
    with pytest.raises(DataError, match="NoCredentialsError: Unable to locate credentials"):
        RangeFetcher(0.0).object(url)


@pytest.mark.parametrize("is_authority", [False, True], ids=["leaf", "authority"])
def test_a_certificate_in_AWS_CA_BUNDLE(
    url, s3_server, configured, monkeypatch, tmp_path, is_authority
) -> None:
    """obstore refuses a server whose certificate is that of an authority, as `openssl req -x509` makes it."""
    authority, leaf = _certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority if is_authority else leaf)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority))
    with relay(s3_server.direct, context) as endpoint:
        configured(endpoint_url=endpoint)
        read(url)
        assert uses_obstore(url) is not is_authority


def test_a_failure_of_tls_is_judged_by_s3fs(url, s3_server, configured) -> None:
    """The libraries for TLS accept other certificates; here the server speaks none."""
    configured(endpoint_url=s3_server.endpoint.replace("http:", "https:"))
    with pytest.raises(DataError, match=r"gave up.*SSL"):
        RangeFetcher(0.0).object(url)
    assert uses_obstore(url)


def test_the_cause_of_a_lost_connection_is_told(url, configured) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
    configured(endpoint_url=endpoint)
    fetcher = RangeFetcher(0.0)
    with pytest.raises(DataError, match=rf"ConnectionError: .*{endpoint}.*Connection refused"):
        fetcher.object(url)
    assert fetcher.counts == {"connection": 1}


def test_a_read_that_trickles_ends_at_its_time_limit(url, configured, monkeypatch) -> None:
    """Bytes come often enough for the read timeout, but too slowly."""
    monkeypatch.setattr(module, "ANSWER_S", 0.3)
    ended = threading.Event()

    class Trickling(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(206)
            for name, value in (
                ("Content-Range", "bytes 0-999/5120"),
                ("Content-Length", "1000"),
                ("ETag", '"a"'),
            ):
                self.send_header(name, value)
            self.send_header("Last-Modified", "Tue, 01 Jan 2030 00:00:00 GMT")
            self.end_headers()
            with suppress(OSError):
                while not ended.wait(0.02):
                    self.wfile.write(b"x")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Trickling) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        configured(endpoint_url=f"http://127.0.0.1:{server.server_port}")
        fetcher = RangeFetcher(0.0)
        with pytest.raises(DataError, match="no answer within 0 s"):
            fetcher.range(url, 0, 1000, len(CONTENT))
        ended.set()
        server.shutdown()
    assert fetcher.counts == {"timeout": 1}
    assert uses_obstore(url)


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


def _certificates(folder: Path) -> tuple[Path, Path]:
    """Return files with keys and certificates: of an authority, and of 127.0.0.1, signed by it."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in ("tests", "server")]
    paths = [folder / f"{number}.pem" for number in range(2)]
    now = datetime.now(UTC)
    for path, key, name, is_authority in zip(paths, keys, names, (True, False), strict=True):
        certificate = (
            x509.CertificateBuilder(names[0], name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
            .sign(keys[0], hashes.SHA256())
        )
        form = serialization.Encoding.PEM
        private = key.private_bytes(form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path.write_bytes(private + certificate.public_bytes(form))
    return paths[0], paths[1]
