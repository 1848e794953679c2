"""A folder of signing keys over its life."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.errors import KeyInvalid
from gateway.tokens.key_folder import KEY_BYTES_MAX, KeyFolder, read_key_file, write_private
from gateway.tokens.signing import new_key


def test_the_newest_key_signs_and_old_ones_are_published_until_their_end(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path / "keys")
    first, second, third = (new_key("ES256", kid=kid) for kid in ("first", "second", "third"))
    folder.add(first, now_s=1000)
    assert folder.signing_key().kid == "first"
    assert folder.rotate(second, now_s=2000, overlap_s=500) == []
    assert folder.signing_key().kid == "second"
    assert [(key.kid, key.retires_at_s, key.state(2499)) for key in folder.published()] == [
        ("second", 0, "signing"),
        ("first", 2500, "verifying"),
    ]
    assert folder.published()[1].state(2500) == "retired"
    gone = folder.rotate(third, now_s=2500, overlap_s=500)
    assert [key.kid for key in gone] == ["first"]
    assert [key.kid for key in folder.published()] == ["third", "second"]
    assert not (tmp_path / "keys" / "first.json").exists()
    assert (tmp_path / "keys" / "second.json").exists()


def test_a_second_rotation_does_not_prolong_an_old_key(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path)
    folder.add(new_key("ES256", kid="a"), now_s=0)
    folder.rotate(new_key("ES256", kid="b"), now_s=10, overlap_s=100)
    folder.rotate(new_key("ES256", kid="c"), now_s=20, overlap_s=100)
    assert {key.kid: key.retires_at_s for key in folder.published()} == {"c": 0, "b": 120, "a": 110}


def test_a_key_in_pem_signs_with_the_algorithm_it_was_made_for(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path)
    path = folder.add(new_key("PS384", kid="rsa"), now_s=0, file_format="pem")
    assert path.name == "rsa.pem"
    assert (folder.signing_key().algorithm, folder.signing_key().kid) == ("PS384", "rsa")


def test_private_files_are_their_owners_alone_and_the_set_is_for_all(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path / "new" / "keys")
    path = folder.add(new_key("ES256"), now_s=0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.jwks_path.stat().st_mode) & 0o044
    assert sorted(one.name for one in folder.path.iterdir()) == sorted([path.name, "jwks.json"])


def test_keys_that_are_added_at_once_are_all_published(tmp_path: Path) -> None:
    keys = [new_key("ES256", kid=f"k{number}") for number in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda key: KeyFolder(tmp_path).add(key, now_s=0), keys))
    assert {key.kid for key in KeyFolder(tmp_path).published()} == {key.kid for key in keys}


def test_an_empty_folder_has_no_key_that_signs(tmp_path: Path) -> None:
    assert KeyFolder(tmp_path / "absent").published() == []
    with pytest.raises(KeyInvalid, match="has no key that signs"):
        KeyFolder(tmp_path).signing_key()


def test_a_key_whose_private_file_is_gone_does_not_sign(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path)
    folder.add(new_key("ES256", kid="old"), now_s=0)
    folder.add(new_key("ES256", kid="new"), now_s=1).unlink()
    assert folder.signing_key().kid == "old"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"keys": [{}]}', '{"keys": [1]}', '{"keys": [{"kid": "a", "iat": "x"}]}']
)
def test_a_set_that_is_not_ours_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text(text)
    with pytest.raises(KeyInvalid, match="no key set of ours"):
        KeyFolder(tmp_path).published()


def test_a_name_in_the_set_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside.json"
    outside.write_text(json.dumps(new_key("ES256").private_jwk()))
    (tmp_path / "keys").mkdir()
    evil = {"kid": "../outside", "iat": 1, "exp": 2, "kty": "EC"}
    (tmp_path / "keys" / "jwks.json").write_text(json.dumps({"keys": [evil]}))
    folder = KeyFolder(tmp_path / "keys")
    assert folder.published()[0].has_private is False
    folder.rotate(new_key("ES256"), now_s=10, overlap_s=0)
    assert outside.exists()


def test_a_file_may_be_as_long_as_the_limit_and_no_longer(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"k" * KEY_BYTES_MAX)
    assert read_key_file(path, "HS256").algorithm == "HS256"
    path.write_bytes(b"k" * (KEY_BYTES_MAX + 1))
    with pytest.raises(KeyInvalid, match="too long for a key"):
        read_key_file(path, "HS256")


def test_write_private_never_overwrites(tmp_path: Path) -> None:
    write_private(tmp_path / "a", b"1")
    with pytest.raises(FileExistsError):
        write_private(tmp_path / "a", b"2")
    assert (tmp_path / "a").read_bytes() == b"1"
