"""What the labelling page shows beside one's own labels: suggestions, what others said, and what was before."""

import base64
import re

import numpy as np
from handscope.labeling.database.labels import Labels
from labeling_browser import OFFLINE, SIDE, Desk, Server, Tab, cells
from playwright.sync_api import Browser, expect


def test_earlier_states_can_be_brought_back(desk: Desk, tab: Tab) -> None:
    tab.drag((5, 5), (5, 20))
    first = tab.stored(2)
    tab.keys("e")
    tab.drag((5, 0), (5, 30))
    assert tab.stored(2) == set()
    tab.keys("y")
    rows = tab.page.locator("#history-list .state")
    expect(rows).to_have_count(2)
    rows.last.get_by_role("button").click()
    expect(tab.page.locator("#history")).to_be_hidden()
    assert tab.stored(2) == first == cells(tab.grids()[0] == 2) and len(desk.history(tab.sample)) == 3
    tab.keys("2")
    tab.drag((50, 50), (50, 50))
    assert len(tab.stored(2)) == len(first) + 9, "and painted on"
    tab.keys("Control+z", "Control+z")
    assert tab.stored(2) == set(), "it is a stroke like others"


def test_a_state_that_is_brought_back_while_the_connection_is_lost_is_kept(desk: Desk, tab: Tab) -> None:
    desk.expected = OFFLINE
    tab.drag((5, 5), (5, 20))
    first = tab.stored(2)
    tab.keys("e")
    tab.drag((5, 0), (5, 30))
    tab.status("saved")
    sample = tab.sample
    tab.page.route("**/strokes?*", lambda route: route.abort())  # what was read arrives, what is written does not
    tab.keys("y")
    tab.page.locator("#history-list .state").last.get_by_role("button").click()
    tab.status("offline")
    assert cells(tab.grids()[0] == 2) == first and not desk.newest(sample).labels.any()
    tab.page.close()
    again = desk.tab()
    assert again.sample == sample and again.stored(2) == first and len(desk.history(sample)) == 3


def test_suggestions_are_not_accepted_by_themselves(desk: Desk, tab: Tab) -> None:
    nothing, scores = np.zeros((SIDE, SIDE), np.uint8), np.linspace(-1, 1, SIDE * SIDE, dtype="<f4")
    hands = nothing.copy()
    hands[10:20, 10:20] = 1
    def text(grid: np.ndarray) -> str:
        return base64.b64encode(grid.tobytes()).decode()

    offer = {
        "items": [
            {"source": "detector", "labels": text(1 - hands), "instances": text(hands), "map": None, "score": 0.9},
            {"source": "probe", "labels": text(nothing), "instances": text(nothing), "map": text(scores)}
            | {"score": None},
        ],
        "absent": {"silhouette": "the picture has no plain background."},
    }
    tab.page.route("**/suggestions?*", lambda route: route.fulfill(json=offer))
    sample = tab.sample
    tab.keys("s")
    expect(tab.page.locator("#offer")).to_contain_text("detector")
    expect(tab.page.locator("#absent")).to_contain_text("No silhouette: the picture has no plain background.")
    shown = tab.drawn()
    assert not tab.grids()[0].any() and not tab.grids()[1].any()
    tab.keys("n")
    tab.picture(2)
    tab.keys("p")
    tab.picture(1)
    assert desk.newest(sample) is None, "looking at a suggestion and going on accepts nothing"
    expect(tab.page.locator("#offer")).to_be_hidden()
    assert tab.drawn() != shown
    tab.keys("3", "s")
    expect(tab.page.locator("#offer")).to_be_visible()
    tab.keys("a")
    labels, numbers = tab.grids()
    assert (labels == np.where(hands, 0, 1)).all() and (numbers == hands).all(), "the pen's class is no judgement"
    tab.keys("d")
    expect(tab.page.locator("#note")).to_contain_text("Say whether the hand is good or bad")
    assert not desk.newest(sample).done and desk.newest(sample).verdict == ""
    tab.keys("x", "d")
    tab.status("saved")
    assert desk.newest(sample).done and desk.newest(sample).verdict == "bad"
    tab.keys("Control+z", "Control+z", "Control+z", "s", "3", "a")
    assert (tab.grids()[0] == np.where(hands, 3, 1)).all(), "said while the suggestion was seen"
    tab.keys("Control+z")
    assert not tab.grids()[0].any(), "one stroke"
    tab.keys("s", "s")
    expect(tab.page.locator("#offer")).to_contain_text("Map: probe")
    expect(tab.page.locator("#accept")).to_be_hidden()
    tab.keys("a")
    assert not tab.grids()[0].any(), "a map is to look at"
    tab.keys("s")
    expect(tab.page.locator("#offer")).to_be_hidden()


def test_rating_is_blind_and_each_rating_is_stored(desk: Desk, tab: Tab) -> None:
    run = desk.server.run
    telling = [*run.samples()["prompt"], *run.samples()["sample"], run.path.name]
    tab.ahead()
    desk.requests.clear()
    tab.page.click("[data-mode=rate]")
    tab.page.wait_for_selector("#ratings >> visible=true")
    tab.picture(1)
    for key in "1", "3", "2":
        number = int(tab.page.input_value("#number"))
        visible = tab.page.inner_text("body") + tab.page.title() + tab.page.url
        assert not [word for word in telling if re.search(rf"\b{re.escape(word)}\b", visible)]
        tab.keys(key)
        tab.picture(number + 1)
    tab.status("saved")
    assert not [url for url in desk.requests if any(word in url for word in run.samples()["sample"])]
    ratings = Labels(run.labels_path).ratings()
    mine = ratings[ratings["rater"] == desk.name]
    assert sorted(mine["value"]) == [0, 0.5, 1] and mine["sample"].nunique() == 3
    tab.keys("p")
    expect(tab.page.locator("#ratings [data-value='0.5']")).to_have_attribute("aria-pressed", "true")
    tab.drag((10, 10), (20, 20))
    assert not tab.grids()[0].any() and not Labels(run.labels_path).states(desk.name), "nothing is painted"


def test_review_shows_what_others_said(browser: Browser, desk: Desk, server: Server) -> None:
    said = {}
    for name, key in (("review a", "2"), ("review b", "3")):
        other = Desk(browser, server, name)
        tab = other.tab()
        sample = tab.sample
        tab.keys(key)
        tab.drag((10, 10), (30, 30))
        tab.keys("Enter")
        tab.picture(2)
        tab.status("saved")
        said[name] = cells(other.newest(sample).labels)
        other.close()
    tab = desk.tab()
    tab.page.click("[data-mode=review]")
    tab.page.wait_for_selector("#others .other")
    assert {"review a", "review b"} <= set(tab.page.locator("#others b").all_inner_texts())
    assert not tab.grids()[0].any()
    tab.page.click("[data-source='review b']")
    expect(tab.page.locator("#offer")).to_contain_text("review b")
    assert not tab.grids()[0].any(), "shown is not taken"
    tab.page.click("[data-take='review b']")
    tab.keys("d")
    tab.status("saved")
    review = Labels(server.run.labels_path).newest(tab.sample, desk.name, review=True)
    assert review.done and review.verdict == "bad" and cells(review.labels == 3) == said["review b"]
