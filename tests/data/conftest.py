"""The S3 server of the tests, under the name by which tests of data know it."""

from tests.s3_server import S3Server, forget_connections

__all__ = ["S3Server", "forget_connections"]
