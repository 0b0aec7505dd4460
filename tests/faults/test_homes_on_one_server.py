"""Several homes run one study on one store at the same time, as colleagues do who share a server."""

import pytest

from tests.faults.test_kills import count_differences
from tests.faults.test_store_away import running_server
from tests.support.postgres import running_postgres

pytestmark = pytest.mark.slow

SHORT = ("--jobs", "1", "--strategy", "full", "--strategy", "linear_probe", "--trials", "2", "--seeds", "2")


def run_side_by_side(bench, folder, homes, uri):
    """Run the study from several homes at once; return the folders of the homes."""
    places = [folder / f"home {number}" for number in range(homes)]
    processes = [bench.start(home, *SHORT, "--tracking-uri", uri) for home in places]
    for process in processes:
        process.join(300)
    logs = [(home / "log").read_text() for home in places]
    assert [process.exitcode for process in processes] == [0] * homes, "\n".join(log[-2000:] for log in logs)
    assert not [log for log in logs if "Traceback" in log]
    return places


@pytest.mark.parametrize(("homes", "kind"), [(2, "an MLflow server"), (3, "a fresh PostgreSQL")])
def test_several_homes_at_once(bench, tmp_path, homes, kind):
    expected = bench.finish(tmp_path / "alone", *SHORT)
    (tmp_path / "server").mkdir()
    with running_postgres() as database:
        if kind == "a fresh PostgreSQL":
            places = run_side_by_side(bench, tmp_path, homes, database.uri)
            uri = database.uri
            found = [bench.finish(home, *SHORT, "--tracking-uri", uri) for home in places]
        else:
            with running_server(tmp_path / "server", database.uri) as server:
                places = run_side_by_side(bench, tmp_path, homes, server.url)
                found = [bench.finish(home, *SHORT, "--tracking-uri", server.url) for home in places]
    for rows in found:
        assert count_differences(expected, rows) == (0, 0)
