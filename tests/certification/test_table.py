"""The table of certificates: what is written is what is read, a killed run continues, broken tables are refused."""

from dataclasses import replace

import pytest

from components.certification import table
from components.certification.bounds import DECIMALS, certified_radius, complement, lower_bound
from components.certification.table import ABSTAIN, COLUMNS, Certificate, PartialTable

P_SURE, P_UNSURE = lower_bound(990, 1000, 0.001), lower_bound(500, 1000, 0.001)
SURE = Certificate(3, certified_radius(P_SURE, 0.5), 3, [4, 0, 6, 990], 100, 1000, P_SURE, complement(P_SURE))
UNSURE = Certificate(ABSTAIN, 0.0, 1, [480, 500, 20, 0], 100, 1000, P_UNSURE, complement(P_UNSURE))
ROWS = [table.format_row(0, 3, SURE), table.format_row(1, 2, SURE), table.format_row(20, 1, UNSURE)]
IDENTITY = {"weights": "ab12", "precision": "float32", "seed": 1, "n": 1000, "failure_prob": 0.001}


@pytest.fixture
def path(tmp_path):
    table.write(tmp_path / "deep" / "table.tsv", ROWS)
    return tmp_path / "deep" / "table.tsv"


def opened(folder, shard=0, identity=IDENTITY):
    return PartialTable(folder, identity, COLUMNS, f"rows-{shard}.tsv")


def keep(folder, rows, shard=0):
    partial = opened(folder, shard)
    for row in rows:
        partial.append(int(row.split("\t")[0]), row)
    partial.close()


def reopened(folder, shard=0):
    partial = opened(folder, shard)
    partial.close()
    return partial.lines


# --- rows --------------------------------------------------------------------------------------------------------


def test_rows_come_back_as_they_were_written(path):
    rows = table.read(path)
    assert list(rows.columns) == COLUMNS
    assert rows["idx"].tolist() == [0, 1, 20]
    assert rows["label"].tolist() == [3, 2, 1]
    assert rows["predict"].tolist() == [3, 3, -1]
    assert rows["correct"].tolist() == [1, 0, 0]
    assert rows["selected"].tolist() == [3, 3, 1]
    assert rows["radius"].tolist() == [SURE.radius, SURE.radius, 0.0]
    assert rows["p_lower"].tolist() == [SURE.p_lower, SURE.p_lower, UNSURE.p_lower]
    assert [[int(count) for count in text.split()] for text in rows["counts"]] == [
        SURE.counts,
        SURE.counts,
        UNSURE.counts,
    ]
    assert (rows["n0"] == 100).all()
    assert (rows["n"] == 1000).all()


def test_the_first_columns_are_the_field_s():
    assert COLUMNS[:5] == ["idx", "label", "predict", "radius", "correct"]
    assert ROWS[0].split("\t")[:3] == ["0", "3", "3"]
    assert ROWS[0].split("\t")[4] == "1"
    assert ROWS[0].endswith("\n")


def test_no_row_says_when_it_was_made():
    assert table.format_row(0, 3, SURE) == ROWS[0]
    assert not {"time", "seconds", "date"} & set(COLUMNS)


def test_a_row_scores_its_radius_where_the_right_class_is_certified():
    assert [table.score(row) for row in ROWS] == [SURE.radius, 0.0, 0.0]


def test_a_row_says_how_many_samples_it_took():
    assert [table.samples(row) for row in ROWS] == [1100] * 3
    stopped = replace(UNSURE, counts=[480, 519], n0=7, n=1000)  # one lost
    assert table.samples(table.format_row(0, 3, stopped)) == 1007


def test_radius_and_bound_are_written_to_their_last_decimal():
    for p_lower in [0.500000001, 0.6, 0.87654321, 0.999930925]:
        certificate = replace(SURE, radius=certified_radius(p_lower, 0.37), p_lower=p_lower)
        fields = table.format_row(0, 3, certificate).rstrip().split("\t")
        assert len(fields[3].split(".")[1]) == DECIMALS
        assert float(fields[3]) == pytest.approx(certificate.radius, abs=1e-15)
        assert float(fields[9]) == p_lower


@pytest.mark.parametrize(
    ("radius", "shown"), [(0.7359999, "0.735"), (0.1239999999, "0.123"), (2.0004, "2.000"), (0.0, "0.000")]
)
def test_radii_for_people_are_rounded_down(radius, shown):
    assert table.display_radius(radius) == shown


# --- an interrupted certification --------------------------------------------------------------------------------


def test_a_partial_table_continues_where_it_stopped(tmp_path):
    keep(tmp_path, ROWS[:2])
    assert list(reopened(tmp_path)) == [0, 1]
    keep(tmp_path, ROWS[2:])
    assert reopened(tmp_path) == {0: ROWS[0], 1: ROWS[1], 20: ROWS[2]}
    assert (tmp_path / "rows-0.tsv").read_text() == "".join(ROWS)


@pytest.mark.parametrize("lost", [1, 5, 30, len(ROWS[2]) - 1])
def test_a_torn_last_row_is_dropped_and_the_next_one_is_whole(tmp_path, lost):
    keep(tmp_path, ROWS)
    raw = (tmp_path / "rows-0.tsv").read_bytes()
    (tmp_path / "rows-0.tsv").write_bytes(raw[:-lost])
    assert list(reopened(tmp_path)) == [0, 1]
    keep(tmp_path, ROWS[2:])
    assert (tmp_path / "rows-0.tsv").read_bytes() == raw


def test_a_row_is_on_disk_as_soon_as_it_is_appended(tmp_path):
    partial = opened(tmp_path)
    partial.append(0, ROWS[0])
    assert (tmp_path / "rows-0.tsv").read_text() == ROWS[0]
    assert partial.lines == partial.reread() == {0: ROWS[0]}
    partial.close()


def test_an_image_that_is_appended_twice_counts_once(tmp_path):
    keep(tmp_path, [ROWS[0], ROWS[1], ROWS[0]])
    lines = reopened(tmp_path)
    table.write(tmp_path / "table.tsv", lines.values())
    assert table.read(tmp_path / "table.tsv")["idx"].tolist() == [0, 1]


# --- several processes -------------------------------------------------------------------------------------------


def test_each_process_writes_a_file_of_its_own_and_all_see_all_rows(tmp_path):
    for shard, row in enumerate(ROWS):
        keep(tmp_path, [row], shard)
    assert [(tmp_path / f"rows-{shard}.tsv").read_text() for shard in range(3)] == ROWS
    for shard in (0, 2, 3):
        assert reopened(tmp_path, shard) == {0: ROWS[0], 1: ROWS[1], 20: ROWS[2]}


def test_what_others_append_meanwhile_is_seen_when_read_again(tmp_path):
    first, second = opened(tmp_path, 0), opened(tmp_path, 1)
    second.append(1, ROWS[1])
    first.append(0, ROWS[0])
    assert list(first.lines) == [0]
    assert first.reread() == second.reread() == {0: ROWS[0], 1: ROWS[1]}
    first.close()
    second.close()


def test_a_row_that_another_process_is_still_writing_is_neither_read_nor_touched(tmp_path):
    keep(tmp_path, ROWS[:1], 0)
    keep(tmp_path, ROWS[1:], 1)
    torn = (tmp_path / "rows-1.tsv").read_bytes()[:-7]
    (tmp_path / "rows-1.tsv").write_bytes(torn)
    keep(tmp_path, [], 0)
    assert list(reopened(tmp_path, 0)) == [0, 1]
    assert (tmp_path / "rows-1.tsv").read_bytes() == torn
    assert list(reopened(tmp_path, 1)) == [0, 1]
    assert (tmp_path / "rows-1.tsv").read_text() == ROWS[1], "its own process drops it"


OTHERS = {"weights": "cd34", "precision": "bfloat16", "seed": 2, "n": 2000, "failure_prob": 0.01}


@pytest.mark.parametrize("name", OTHERS)
def test_rows_of_another_certification_are_refused_by_name(tmp_path, name):
    keep(tmp_path, ROWS)
    other = IDENTITY | {name: OTHERS[name]}
    named = rf"another certification.*: {name} \({IDENTITY[name]!r} there, {OTHERS[name]!r} here\)$"
    with pytest.raises(ValueError, match=named):
        opened(tmp_path, 1, other)
    assert list(reopened(tmp_path)) == [0, 1, 20], "and nothing was touched"
    assert not (tmp_path / "rows-1.tsv").exists()


def test_merging_takes_the_rows_that_are_not_here(tmp_path):
    keep(tmp_path / "here", ROWS[:1])
    keep(tmp_path / "there", ROWS[:2], 0)
    keep(tmp_path / "there", ROWS[2:], 5)
    partial = opened(tmp_path / "here")
    assert partial.merge(tmp_path / "there") == 2
    assert partial.merge(tmp_path / "there") == 0
    assert partial.lines == {0: ROWS[0], 1: ROWS[1], 20: ROWS[2]}
    partial.close()
    assert (tmp_path / "here" / "rows-0.tsv").read_text() == "".join(ROWS)
    assert list(reopened(tmp_path / "there")) == [0, 1, 20], "what is merged stays as it was"


@pytest.mark.parametrize("name", OTHERS)
def test_merging_another_certification_is_refused_by_name(tmp_path, name):
    opened(tmp_path / "there", identity=IDENTITY | {name: OTHERS[name]}).close()
    partial = opened(tmp_path / "here")
    named = rf"there holds .* merged: {name} \({OTHERS[name]!r} there, {IDENTITY[name]!r} here\)$"
    with pytest.raises(ValueError, match=named):
        partial.merge(tmp_path / "there")
    partial.close()
    assert reopened(tmp_path / "here") == {}


def test_all_that_differs_is_named_also_what_only_one_side_knows(tmp_path):
    opened(tmp_path, identity=IDENTITY | {"seed": 7, "mode": "reference"}).close()
    with pytest.raises(ValueError, match=r": seed \(7 there, 1 here\), mode \('reference' there, None here\)$"):
        opened(tmp_path)


def test_merging_what_is_no_partial_table_is_refused(tmp_path):
    (tmp_path / "there").mkdir()
    partial = opened(tmp_path / "here")
    with pytest.raises(ValueError, match=r"identity\.json.*copy the whole folder of a partial table"):
        partial.merge(tmp_path / "there")
    partial.close()


# --- what is refused ---------------------------------------------------------------------------------------------


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"table\.tsv cannot be read .* certify again"):
        table.read(tmp_path / "table.tsv")


@pytest.mark.parametrize("content", ["", "\t".join(COLUMNS) + "\n", "no table\n", "idx\tlabel\tpredict\n1\t2\t3\n"])
def test_what_is_no_table_is_refused(path, content):
    path.write_text(content)
    with pytest.raises(ValueError, match=r"table\.tsv"):
        table.read(path)


def test_a_missing_column_is_named(path):
    path.write_text(path.read_text().replace("radius", "r"))
    with pytest.raises(ValueError, match="has no column radius"):
        table.read(path)


def test_an_image_that_stands_twice_is_refused(path):
    table.write(path, [*ROWS, ROWS[0]])
    with pytest.raises(ValueError, match="holds an image twice"):
        table.read(path)


@pytest.mark.parametrize("fields", range(1, len(COLUMNS)))
def test_a_row_that_is_torn_after_any_column_is_refused(path, fields):
    table.write(path, [*ROWS[:2], "\t".join(ROWS[2].split("\t")[:fields])])
    with pytest.raises(ValueError, match="torn"):
        table.read(path)


def test_values_that_are_no_numbers_are_refused(path):
    path.write_text(path.read_text().replace(f"{SURE.radius:.{DECIMALS}f}", "large"))
    with pytest.raises(ValueError, match="torn"):
        table.read(path)


def test_a_table_in_the_field_s_form_is_read(path):
    path.write_text(
        "idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t3\t3\t0.955\t1\t0:00:20\n20\t8\t-1\t0.0\t0\t0:00:20\n"
    )
    assert table.read(path)["radius"].tolist() == [0.955, 0.0]
