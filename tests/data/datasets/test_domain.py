"""Every pass over a domain produces its images anew."""

from __future__ import annotations

from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.example import Example


def test_a_domain_can_be_read_any_number_of_times() -> None:
    passes = []

    def produce():
        passes.append(len(passes))
        yield from (Example(f"k{n}", b"x", "png", "a") for n in range(3))

    domain = Domain("d", ("a",), produce)
    assert passes == []
    first = iter(domain)
    assert next(first).key == "k0"
    assert [example.key for example in domain] == ["k0", "k1", "k2"]
    assert [example.key for example in first] == ["k1", "k2"]
    assert passes == [0, 1]
    assert (domain.notes, domain.num_images) == ({}, None)
