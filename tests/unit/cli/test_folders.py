from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path

import pytest

from gateway.cli.folders import PassingDir, lasting_dir, remove_left_behind
from gateway.errors import ConfigError


def test_a_configured_folder_is_made_for_this_user_only(tmp_path: Path) -> None:
    path = lasting_dir(str(tmp_path / "a" / "run"), {})
    assert path == tmp_path / "a" / "run"
    assert path.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_may_read_is_used_and_one_they_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert lasting_dir(str(tmp_path), {}) == tmp_path
    for mode in (0o775, 0o757):
        tmp_path.chmod(mode)
        with pytest.raises(ConfigError) as refused:
            lasting_dir(str(tmp_path), {})
        assert refused.value.faults[0].key == "server.run_dir"
        assert "written to by others" in str(refused.value)
    tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("env", "place"),
    [
        ({"STATE_DIRECTORY": "{tmp}/s", "XDG_STATE_HOME": "{tmp}/x", "HOME": "{tmp}/h"}, "s"),
        ({"STATE_DIRECTORY": "{tmp}/s:{tmp}/t"}, "s"),
        ({"XDG_STATE_HOME": "{tmp}/x", "HOME": "{tmp}/h"}, "x/portcullis"),
        ({"XDG_STATE_HOME": "relative", "HOME": "{tmp}/h"}, "h/.local/state/portcullis"),
        ({"HOME": "{tmp}/h"}, "h/.local/state/portcullis"),
    ],
)
def test_without_configuration_the_users_state_folder_is_used(tmp_path: Path, env: dict[str, str], place: str) -> None:
    filled = {name: value.replace("{tmp}", str(tmp_path)) for name, value in env.items()}
    assert lasting_dir("", filled) == tmp_path / place


def test_without_any_place_there_is_no_lasting_folder_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with caplog.at_level(logging.WARNING):
        assert lasting_dir("", {"HOME": str(blocked)}) is None
    assert "keys will not be kept over a restart" in caplog.text


def test_a_configured_folder_that_cannot_be_made_is_a_fault(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(ConfigError, match="cannot be made: not a directory"):
        lasting_dir(str(blocked / "run"), {})


def test_a_passing_folder_is_private_and_goes_with_its_user() -> None:
    with PassingDir(None) as passing:
        assert passing.path.stat().st_mode & 0o777 == 0o700
        (passing.path / "control").touch()
    assert not passing.path.exists()


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_stays(tmp_path: Path) -> None:
    left = tmp_path / "portcullis-left"
    used = tmp_path / "portcullis-used"
    starting = tmp_path / "portcullis-starting"  # its lock has no name yet
    foreign = tmp_path / "another-left"
    for folder in (left, used, starting, foreign):
        folder.mkdir()
    for folder in (left, used, foreign):
        (folder / "lock").touch()
    holder = os.open(used / "lock", os.O_RDWR)
    fcntl.flock(holder, fcntl.LOCK_SH)
    try:
        remove_left_behind(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "another-left",
            "portcullis-starting",
            "portcullis-used",
        ]
    finally:
        os.close(holder)


def test_a_link_is_never_followed_when_left_folders_are_removed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.mkdir()
    (target / "lock").touch()
    (tmp_path / "portcullis-link").symlink_to(target)
    remove_left_behind(tmp_path)
    assert target.exists()
