"""What a campaign says while it runs, where nobody watches a terminal."""

from hwfault.campaigns.driver import Present
from hwfault.campaigns.statistics.estimates import Estimate
from hwfault.campaigns.statistics.stopping import Decision
from hwfault.campaigns.study.records import Stop
from hwfault.campaigns.study.tasks import Task
from hwfault.cli import campaign_progress
from hwfault.cli.campaign_progress import line_of, lines_now_and_then

TASK = Task("curve", Stop(), {"ber": 0.001})
SEEN = Decision(False, "", Estimate(0.02, (0.01, 0.04), 0.95, "t", "these images"), 320)


def test_a_line_says_trials_rate_time_left_and_interval():
    told = line_of(Present(TASK, 240, 320, 20.0, SEEN))
    assert told.startswith("curve ber=0.001: 240 of 320 trials, 20/s, 0:04 to the next look, SDC 0.02 (0.01 to 0.04)")
    assert line_of(Present(TASK, 0, 20, None, None)) == "curve ber=0.001: 0 of 20 trials"
    assert "1:23:20 to the next look" in line_of(Present(TASK, 0, 10_000, 2.0, None))


def test_lines_come_at_most_every_thirty_seconds(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(campaign_progress.time, "monotonic", lambda: now[0])
    said = []
    progress = lines_now_and_then(said.append)
    for second in range(100):
        now[0] = 100.0 + second
        progress(Present(TASK, second, 320, 1.0, None))
    assert [line.split(",")[0] for line in said] == [f"curve ber=0.001: {done} of 320 trials" for done in (30, 60, 90)]
