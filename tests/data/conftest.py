"""The S3 server of the tests, under the fixture name that the tests of data use."""

from tests.s3_server import S3Server, forget_connections

__all__ = ["S3Server", "forget_connections"]
