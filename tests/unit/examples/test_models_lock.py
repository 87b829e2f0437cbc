"""The lock of the models pins and hashes everything, and carries nothing that only the weights' packages ask for."""

from __future__ import annotations

from images.packages import MODELS_LOCK, WEIGHT_PACKAGES, locked


def test_every_package_is_pinned_with_a_hash_and_torch_is_not_among_them() -> None:
    lines = MODELS_LOCK.read_text(encoding="utf-8").splitlines()
    names = {line.split("==")[0] for line in lines if not line.startswith(" ")}
    assert names >= WEIGHT_PACKAGES
    assert not names & {"torch", "transformers", "sentence-transformers", "llama-cpp-python"}
    for name in names:
        assert "--hash=sha256:" in locked(MODELS_LOCK, only={name})


def test_packages_can_be_left_out_of_a_lock() -> None:
    without = locked(MODELS_LOCK, without=WEIGHT_PACKAGES)
    assert not any(f"{name}==" in without for name in WEIGHT_PACKAGES)
    assert locked(MODELS_LOCK, only=WEIGHT_PACKAGES).count("==") == len(WEIGHT_PACKAGES)
