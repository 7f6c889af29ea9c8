"""Settings of an S3FileSystem as those of obstore.

botocore resolves the settings: fsspec's configuration, then the environment, then the profile of ~/.aws. This module
reads its results from the client of s3fs, so that both drivers send a request to the same address with the same
credentials. Temporary credentials are asked for again every few minutes, and botocore refreshes them before they end.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies

from fourds_dist.io.error_text import error_line

if TYPE_CHECKING:
    from obstore.store import S3Credential, S3Store

CREDENTIALS_S = 600
"""Seconds for which obstore may use credentials that can be refreshed; botocore refreshes them 600 s before they
end at the latest."""
ANSWER_S = 60
"""Time limit of questions to botocore, which may ask the instance's metadata service."""
LONGEST_REQUEST = timedelta(days=1)
"""Time limit of a request that still receives bytes after its reader has left it."""

_CONFIG_KEYS = frozenset(
    (
        *("connect_timeout", "read_timeout", "retries", "max_pool_connections", "tcp_keepalive", "proxies"),
        *("region_name", "s3", "signature_version", "use_fips_endpoint", "use_dualstack_endpoint"),
        *("request_checksum_calculation", "response_checksum_validation", "parameter_validation"),
        *("user_agent", "user_agent_extra", "user_agent_appid"),
    )
)
_CLIENT_KEYS = frozenset(
    (
        *("region_name", "endpoint_url", "use_ssl", "verify"),
        *("aws_access_key_id", "aws_secret_access_key", "aws_session_token"),
    )
)
_S3_KEYS = frozenset(("addressing_style", "payload_signing_enabled", "use_dualstack_endpoint"))
"""Settings that this module passes on, or that do not affect reads."""

_PLAIN_NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
"""Bucket names that may be part of a host name under every certificate."""


class UnsupportedError(Exception):
    """obstore cannot express a setting; the message names the setting."""


def open_store(fs: Any, bucket: str, silence_s: float) -> S3Store:
    """Return obstore's store for a bucket, with the settings of an S3FileSystem and without retries of its own.

    Args:
        silence_s: seconds without a byte after which a request ends.

    Raises:
        UnsupportedError: a setting has no counterpart in obstore, or there are no credentials.
    """
    from botocore import UNSIGNED
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

    _check(fs, bucket)
    client = _answer(fs, _client(fs, bucket))
    given, s3 = client.meta.config, client.meta.config.s3 or {}
    if unknown := sorted(key for key, value in s3.items() if value and key not in _S3_KEYS):
        raise UnsupportedError(f"the setting s3.{unknown[0]} of the profile or of config_kwargs")
    is_unsigned = given.signature_version is UNSIGNED
    if not is_unsigned and given.signature_version not in (None, "s3v4"):
        raise UnsupportedError(f"signature_version={given.signature_version}")
    endpoint, region = urlsplit(client.meta.endpoint_url), client.meta.region_name
    style = s3.get("addressing_style")
    is_aws = (endpoint.hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))
    if is_aws:
        home = _answer(fs, _region_of(client, bucket))
        endpoint, region = _moved(endpoint, region, home), home
    in_host = style != "path" and bool(_PLAIN_NAME.fullmatch(bucket)) if is_aws else style == "virtual"
    if in_host:
        endpoint = endpoint._replace(netloc=f"{bucket}.{endpoint.netloc}")
    url = endpoint.geturl().rstrip("/")
    # Every setting is given, since obstore would read the environment for the others.
    try:
        return S3Store(
            bucket,
            endpoint=url,
            aws_endpoint_url_s3=url,
            region=region or "us-east-1",
            virtual_hosted_style_request=in_host,
            skip_signature=is_unsigned,
            request_payer=_pays(fs),
            s3_express=False,
            client_options=_http(fs, given, endpoint, silence_s),
            retry_config={"max_retries": _retries(fs)},
            credential_provider=None if is_unsigned else _credentials(fs),
        )
    except (ValueError, BaseError) as error:
        raise UnsupportedError(error_line(error)) from None


def _check(fs: Any, bucket: str) -> None:
    """Raise UnsupportedError for settings of the file system without a counterpart in obstore."""
    for where, given, known in (
        ("config_kwargs", fs.config_kwargs, _CONFIG_KEYS),
        ("client_kwargs", fs.client_kwargs, _CLIENT_KEYS),
        ("s3_additional_kwargs", fs.s3_additional_kwargs, ("RequestPayer",)),
    ):
        if unknown := sorted(key for key in given if key not in known):
            raise UnsupportedError(f"the setting {unknown[0]} of {where}")
    if ":" in bucket or bucket.endswith("--x-s3"):
        raise UnsupportedError("access points and directory buckets")
    if any(os.environ.get(name) for name in ("ALL_PROXY", "all_proxy")):
        raise UnsupportedError("the environment variable ALL_PROXY, which botocore ignores")


async def _client(fs: Any, bucket: str) -> Any:
    await fs.set_session()
    return await fs.get_s3(bucket)


async def _region_of(client: Any, bucket: str) -> str:
    """Return the region of a bucket on AWS, which names the region also where it refuses the question."""
    from botocore.exceptions import ClientError

    try:
        answer = await client.head_bucket(Bucket=bucket)
    except ClientError as error:
        answer = error.response
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return headers.get("x-amz-bucket-region") or client.meta.region_name


def _moved(endpoint: SplitResult, region: str, home: str) -> SplitResult:
    """Return an endpoint of AWS in another region."""
    if endpoint.netloc == "s3.amazonaws.com":
        return endpoint._replace(netloc=f"s3.{home}.amazonaws.com")
    return endpoint._replace(netloc=endpoint.netloc.replace(f".{region}.", f".{home}."))


def _pays(fs: Any) -> bool:
    return bool(fs.requester_pays) or fs.s3_additional_kwargs.get("RequestPayer") == "requester"


def _retries(fs: Any) -> int:
    """Return how often obstore repeats a request: never, unless the user's configuration says so."""
    given = fs.config_kwargs.get("retries") or {}
    return (
        int(given["total_max_attempts"]) - 1
        if "total_max_attempts" in given
        else int(given.get("max_attempts", 0))
    )


def _http(fs: Any, config: Any, endpoint: SplitResult, silence_s: float) -> Any:
    """Return obstore's options of the HTTP client."""
    options: dict[str, Any] = {
        "allow_http": endpoint.scheme == "http",
        "connect_timeout": timedelta(seconds=min(silence_s, config.connect_timeout or silence_s)),
        "read_timeout": timedelta(seconds=min(silence_s, config.read_timeout or silence_s)),
        "timeout": LONGEST_REQUEST,
    }
    if config.proxies is not None:
        if proxy := config.proxies.get(endpoint.scheme):
            options["proxy_url"] = proxy if "://" in proxy else f"http://{proxy}"
        elif endpoint.scheme in getproxies():
            raise UnsupportedError(
                f"proxies without one for {endpoint.scheme}://, but with one in the environment"
            )
    if endpoint.scheme == "https":
        options |= _certificates(fs)
    return options


def _certificates(fs: Any) -> dict[str, Any]:
    """Return the certificates of botocore; the system's, which obstore also trusts, may be absent in a container."""
    from botocore.httpsession import get_cert_path

    verify = fs.client_kwargs.get("verify")
    if verify is None:
        verify = fs.session.get_config_variable("ca_bundle") or True
    if verify is False:
        return {"allow_invalid_certificates": True}
    path = Path(get_cert_path(verify))
    if not path.is_file():
        raise UnsupportedError(f"the certificates {path}, which are not one file")
    return {"root_certificate": path.read_bytes()}


def _credentials(fs: Any) -> Callable[[], S3Credential]:
    """Return a function that asks botocore for credentials.

    Raises:
        UnsupportedError: there are none.
    """
    fixed = {
        "access_key_id": fs.key or fs.client_kwargs.get("aws_access_key_id"),
        "secret_access_key": fs.secret or fs.client_kwargs.get("aws_secret_access_key"),
        "token": fs.token or fs.client_kwargs.get("aws_session_token"),
        "expires_at": None,
    }
    if fixed["access_key_id"]:
        return lambda: fixed  # pyright: ignore[reportReturnType]
    source = _answer(fs, fs.session.get_credentials())
    if source is None:
        raise UnsupportedError("there are no credentials")

    def current() -> S3Credential:
        now = _answer(fs, source.get_frozen_credentials())
        return {
            "access_key_id": now.access_key,
            "secret_access_key": now.secret_key,
            "token": now.token,
            "expires_at": datetime.now(UTC) + timedelta(seconds=CREDENTIALS_S),
        }

    return current


def _answer(fs: Any, question: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a coroutine, run on the file system's event loop."""
    return asyncio.run_coroutine_threadsafe(question, fs.loop).result(ANSWER_S)
