from __future__ import annotations

import grpc
import grpc.aio
import pytest

from bayplan.transport.errors import (
    OTHER_CLUSTER,
    REFUSED_HANDSHAKE,
    Problem,
    problems_from_error,
    problems_to_metadata,
    was_never_sent,
    words_of,
)

FAILED = "failed to connect to all addresses; last error:"
TLS = (
    f"{FAILED} UNKNOWN: ipv4:127.0.0.1:1: Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL:"
    " error:1000007d:SSL routines:OPENSSL_internal:"
)


def an_error(
    details: str,
    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE,
    metadata: tuple[tuple[str, bytes], ...] = (),
) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*metadata), details=details)


class TestWords:
    @pytest.mark.parametrize(
        ("details", "words"),
        [
            (
                (
                    "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to "
                    "remote host: connect: Connection refused (111)"
                ),
                "connection refused: no manager listens there",
            ),
            ("DNS resolution failed for nowhere:7400: C-ares status is not ARES_SUCCESS", "unknown host"),
            ("Socket closed", "the connection was closed by the other side"),
            ("recvmsg:Connection reset by peer", "the connection was closed by the other side"),
            ("ping timeout", "no answer"),
            (f"{FAILED} UNAVAILABLE: ipv4:127.0.0.1:1: Socket closed", REFUSED_HANDSHAKE),
            (f"{TLS}CERTIFICATE_VERIFY_FAILED: unable to get local issuer certificate: OK", OTHER_CLUSTER),
            (
                (
                    f"{FAILED} UNKNOWN: ipv4:127.0.0.1:1: Custom verification check failed with error:"
                    " UNAUTHENTICATED: Hostname Verification Check failed."
                ),
                OTHER_CLUSTER,
            ),
            (
                f"{TLS}CERTIFICATE_VERIFY_FAILED: certificate has expired: OK",
                "the manager's certificate has expired, or is not valid yet: compare the clocks of both hosts",
            ),
            (
                f"{TLS}CERTIFICATE_VERIFY_FAILED: unsupported certificate purpose: OK",
                "what answered there is a member of the cluster, but no manager",
            ),
            (
                f"{TLS}WRONG_VERSION_NUMBER: Invalid certificate verification context: OK",
                "what answered there speaks no TLS: no manager, or one without encryption",
            ),
            ("", "unavailable"),
            (
                "no leader: etcd has lost its quorum (connection refused)",
                "no leader: etcd has lost its quorum (connection refused)",
            ),
        ],
    )
    def test_of_grpc_become_ours_and_those_of_managers_stay(self, details: str, words: str) -> None:
        assert words_of(an_error(details)) == words

    def test_only_a_call_without_a_connection_was_never_sent(self) -> None:
        assert was_never_sent(an_error("failed to connect to all addresses"))
        assert not was_never_sent(an_error("Socket closed"))
        assert not was_never_sent(an_error("failed to connect to all addresses", grpc.StatusCode.INTERNAL))


class TestProblems:
    def test_arrive_as_they_were_sent(self) -> None:
        problems = (Problem(document=2, path="spec.x", message="is 名"),)
        error = an_error("no", grpc.StatusCode.INVALID_ARGUMENT, problems_to_metadata(problems))
        assert problems_from_error(error) == problems

    @pytest.mark.parametrize("data", [b"", b"[", b'{"a": 1}', b"[1]", b'[{"document": "x"}]', b"\xff"])
    def test_that_cannot_be_read_are_none(self, data: bytes) -> None:
        error = an_error("no", grpc.StatusCode.INVALID_ARGUMENT, (("bayplan-problems-bin", data),))
        assert problems_from_error(error) == ()

    def test_without_any_there_is_no_metadata(self) -> None:
        assert problems_to_metadata(()) == ()
