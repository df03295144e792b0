"""What ships is what MANIFEST says, and no more than it may be."""

from stepscope.pocket.manifest import LIMIT, MANIFEST, lines, total


def test_every_shipped_file_has_its_size_and_hash():
    assert MANIFEST.read_text().splitlines() == lines()


def test_all_weights_together_stay_small():
    assert total(lines()) <= LIMIT


def test_a_linked_file_counts_once(tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "weights").write_bytes(b"1234")
    (tmp_path / "schnell").symlink_to("dev", target_is_directory=True)
    found = lines(tmp_path)
    assert [line.split()[1:] for line in found] == [["4", "dev/weights"]]


def test_a_changed_byte_changes_the_line(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(b"1234")
    before = lines(tmp_path)
    file.write_bytes(b"1235")
    assert lines(tmp_path) != before
