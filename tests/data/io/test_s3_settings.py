"""Settings of s3fs, as botocore resolves them, are those of obstore."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import fsspec.config
import pytest
import s3fs
from aiobotocore.session import AioSession
from botocore.httpsession import get_cert_path
from botocore.loaders import create_loader

from fourds_dist.data.io import s3_settings as module
from fourds_dist.data.io.s3_settings import UnsupportedError, open_store

region_of = module._region_of
LOADER = create_loader()
"""Botocore's description of S3, which takes long to read."""
LOCAL = "http://127.0.0.1:9"
KEYS = {"key": "a", "secret": "b"}


@pytest.fixture(autouse=True)
def offline(no_credentials, monkeypatch) -> None:
    """Without settings from outside, and without the question to AWS for a bucket's region."""
    for name in (
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_CA_BUNDLE",
        "AWS_DEFAULT_REGION",
        "HTTP_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)

    monkeypatch.setitem(fsspec.config.conf, "s3", {})

    async def home(client: Any, bucket: str) -> str:
        return "eu-west-1" if bucket == "bucket-in-europe" else client.meta.region_name

    monkeypatch.setattr(module, "_region_of", home)


def opened(bucket: str = "bucket", **settings: Any) -> Any:
    session = AioSession()
    session.register_component("data_loader", LOADER)
    fs = s3fs.S3FileSystem(skip_instance_cache=True, session=session, **settings)
    return open_store(fs, bucket, 7.0)


@pytest.mark.parametrize(
    ("settings", "bucket", "endpoint"),
    [
        ({"endpoint_url": LOCAL}, "bucket", LOCAL),
        ({"endpoint_url": f"{LOCAL}/"}, "bucket", LOCAL),
        ({"endpoint_url": f"{LOCAL}/deep/path"}, "bucket", f"{LOCAL}/deep/path"),
        ({"client_kwargs": {"endpoint_url": LOCAL}}, "bucket", LOCAL),
        (
            {"endpoint_url": LOCAL, "config_kwargs": {"s3": {"addressing_style": "virtual"}}},
            "bucket",
            "http://bucket.127.0.0.1:9",
        ),
        ({}, "bucket", "https://bucket.s3.us-east-1.amazonaws.com"),
        ({"use_ssl": False}, "bucket", "http://bucket.s3.us-east-1.amazonaws.com"),
        ({}, "bucket.with.dots", "https://s3.us-east-1.amazonaws.com"),
        ({}, "bucket-in-europe", "https://bucket-in-europe.s3.eu-west-1.amazonaws.com"),
        (
            {"client_kwargs": {"region_name": "us-west-2"}},
            "bucket-in-europe",
            "https://bucket-in-europe.s3.eu-west-1.amazonaws.com",
        ),
        (
            {"client_kwargs": {"region_name": "us-west-2"}, "config_kwargs": {"use_fips_endpoint": True}},
            "bucket-in-europe",
            "https://bucket-in-europe.s3-fips.eu-west-1.amazonaws.com",
        ),
        (
            {"client_kwargs": {"region_name": "cn-north-1"}},
            "bucket",
            "https://bucket.s3.cn-north-1.amazonaws.com.cn",
        ),
        (
            {"config_kwargs": {"s3": {"addressing_style": "path"}}},
            "bucket",
            "https://s3.us-east-1.amazonaws.com",
        ),
    ],
)
def test_address(settings, bucket, endpoint) -> None:
    config = opened(bucket, **KEYS, **settings).config
    assert config["endpoint"] == config["endpoint_url_s3"] == endpoint
    assert config["virtual_hosted_style_request"] == ("true" if f"{bucket}." in endpoint else "false")


def test_the_environment_of_obstore_does_not_count(monkeypatch) -> None:
    for name, value in {
        "AWS_ENDPOINT": "http://other",
        "AWS_REGION": "ap-south-1",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_REQUEST_PAYER": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        "AWS_S3_EXPRESS": "true",
    }.items():
        monkeypatch.setenv(name, value)
    config = opened(endpoint_url=LOCAL, **KEYS).config
    assert config["endpoint"] == config["endpoint_url_s3"] == LOCAL
    assert config["region"] == "us-east-1"
    for name in ("skip_signature", "request_payer", "virtual_hosted_style_request", "s3_express"):
        assert config[name] == "false"


@pytest.mark.parametrize(
    ("settings", "pays"),
    [
        ({}, "false"),
        ({"requester_pays": True}, "true"),
        ({"s3_additional_kwargs": {"RequestPayer": "requester"}}, "true"),
    ],
)
def test_requester_pays(settings, pays) -> None:
    assert opened(endpoint_url=LOCAL, **KEYS, **settings).config["request_payer"] == pays


def test_public_data_are_read_without_a_signature() -> None:
    store = opened(anon=True)
    assert store.config["skip_signature"] == "true"
    assert store.credential_provider is None
    with pytest.raises(UnsupportedError, match="no credentials"):
        opened()


def test_time_limits_and_retries() -> None:
    store = opened(endpoint_url=LOCAL, **KEYS, config_kwargs={"read_timeout": 3, "connect_timeout": 60})
    assert store.client_options["read_timeout"] == "3s"
    assert store.client_options["connect_timeout"] == "7s"
    assert store.retry_config["max_retries"] == 0
    store = opened(endpoint_url=LOCAL, **KEYS, config_kwargs={"read_timeout": None})  # no limit of the user's
    assert store.client_options["read_timeout"] == "7s"
    for given, retries in (
        ({"total_max_attempts": 1}, 0),
        ({"max_attempts": 4}, 4),
        ({"mode": "standard", "total_max_attempts": 3}, 2),
    ):
        store = opened(endpoint_url=LOCAL, **KEYS, config_kwargs={"retries": given})
        assert store.retry_config["max_retries"] == retries


def test_certificates(monkeypatch, tmp_path) -> None:
    def options(**settings: Any) -> Any:
        return opened(endpoint_url="https://127.0.0.1:9", **KEYS, **settings).client_options

    with open(get_cert_path(True), encoding="utf-8") as file:  # noqa: PTH123
        usual = file.read()
    assert _text(options()["root_certificate"]) == usual
    one = usual[usual.index("-----BEGIN") : usual.index("-----END CERTIFICATE-----") + 26]
    (tmp_path / "own.pem").write_text(one)
    assert _text(options(client_kwargs={"verify": str(tmp_path / "own.pem")})["root_certificate"]) == one
    assert options(client_kwargs={"verify": False})["allow_invalid_certificates"] == "true"
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "own.pem"))
    assert _text(options()["root_certificate"]) == one
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path))
    with pytest.raises(UnsupportedError, match="not one file"):
        options()


def _text(certificate: str | bytes) -> str:
    return certificate if isinstance(certificate, str) else bytes(certificate).decode()


def test_proxies(monkeypatch) -> None:
    def proxy(given: dict[str, str]) -> Any:
        store = opened(endpoint_url=LOCAL, **KEYS, config_kwargs={"proxies": given})
        return store.client_options.get("proxy_url")

    assert proxy({"http": "http://proxy:1"}) == proxy({"http": "proxy:1"}) == "http://proxy:1"
    assert proxy({"https": "proxy:1"}) is None
    monkeypatch.setenv("http_proxy", "http://other:1")
    with pytest.raises(UnsupportedError, match="proxies without one for http"):
        proxy({})
    monkeypatch.setenv("ALL_PROXY", "http://other:1")
    with pytest.raises(UnsupportedError, match="ALL_PROXY"):
        opened(endpoint_url=LOCAL, **KEYS)


@pytest.mark.parametrize(
    ("bucket", "settings", "named"),
    [
        ("arn:aws:s3:us-west-2:123456789012:accesspoint", {}, "access points"),
        ("photos--usw2-az1--x-s3", {}, "directory buckets"),
        ("bucket", {"config_kwargs": {"signature_version": "s3"}}, "signature_version"),
        ("bucket", {"config_kwargs": {"client_cert": "x"}}, "client_cert of config_kwargs"),
        (
            "bucket",
            {"config_kwargs": {"s3": {"use_accelerate_endpoint": True}}},
            "s3.use_accelerate_endpoint",
        ),
        ("bucket", {"s3_additional_kwargs": {"SSECustomerKey": "x"}}, "SSECustomerKey"),
    ],
)
def test_what_obstore_cannot_express_is_named(bucket, settings, named) -> None:
    with pytest.raises(UnsupportedError, match=named):
        opened(bucket, **KEYS, **settings)


def test_credentials_given_to_fsspec_never_end_and_others_are_asked_for_again(monkeypatch) -> None:
    current = opened(endpoint_url=LOCAL, token="c", **KEYS).credential_provider
    assert current() == {"access_key_id": "a", "secret_access_key": "b", "token": "c", "expires_at": None}
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "d")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "e")
    found = opened(endpoint_url=LOCAL).credential_provider()
    assert (found["access_key_id"], found["secret_access_key"]) == ("d", "e")
    assert timedelta(0) < found["expires_at"] - datetime.now(UTC) <= timedelta(seconds=module.CREDENTIALS_S)


@pytest.mark.parametrize(
    ("status", "region"),
    [
        (200, "eu-north-1"),
        (301, "eu-north-1"),
        (400, "eu-north-1"),
        (403, "eu-north-1"),
        (200, ""),
        (404, ""),
    ],
)
def test_the_region_of_a_bucket_is_known_even_from_a_refusal(status: int, region: str) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            if region:
                self.send_header("x-amz-bucket-region", region)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        fs = s3fs.S3FileSystem(
            endpoint_url=f"http://127.0.0.1:{server.server_port}", skip_instance_cache=True, **KEYS
        )
        assert module._answer(fs, region_of(fs.s3, "bucket")) == (region or "us-east-1")
        server.shutdown()
