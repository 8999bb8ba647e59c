"""The page's arithmetic of grids, in the browser that it runs in, against the slow and obvious way in Python."""

import base64
import json
import re
from dataclasses import replace
from fractions import Fraction
from itertools import groupby
from math import floor
from pathlib import Path

import numpy as np
import pytest
from handscope import labeling
from handscope.errors import HandscopeError
from handscope.labeling.database.annotation import VERDICTS, Annotation
from handscope.labeling.server.messages import SubjectSaid
from handscope.labeling.server.painting import check_finished, problems
from handscope.labeling.subject import load_subject
from playwright.sync_api import Browser, Page
from subjects import BIRD

PAGE = Path(labeling.__file__).parent / "page"
CASES = 150
CELLS = ((0, 0), (1, 0), (2, 1), (3, 1), (0, 1), (2, 2), (3, 2), (0, 2))


@pytest.fixture(scope="module")
def page(browser: Browser) -> Page:
    """A page that serves the modules from their files, and nothing else."""

    def serve(route) -> None:
        name = route.request.url.rpartition("/")[2]
        body = (PAGE / name).read_text() if name else "<!doctype html>"
        route.fulfill(body=body, content_type="text/javascript" if name else "text/html")

    page = browser.new_page()
    page.route("http://page.test/*", serve)
    page.goto("http://page.test/")
    return page


def in_browser(page: Page, module: str, body: str, cases: list) -> list:
    """What ``body``, a function of a case and the module's exports, makes of each case."""
    return page.evaluate(f"([cases]) => import('/{module}').then((m) => cases.map((c) => ({body})(c, m)))", [cases])


def random_grid(rng: np.random.Generator, rows: int, columns: int) -> tuple[list[int], list[int]]:
    """Blotches of the cells that there can be, and seldom a lonely one."""
    kinds = [(0, 0), (1, 0), (2, 1), (3, 1), (2, 2), (0, 1)]
    blotches = np.kron(rng.integers(0, 6, (rows // 3 + 1, columns // 3 + 1)), np.ones((3, 3), int))[:rows, :columns]
    which = np.where(rng.random((rows, columns)) < 0.1, rng.integers(0, 6, (rows, columns)), blotches)
    return tuple([kinds[k][part] for k in which.ravel()] for part in (0, 1))


def nearest(x: Fraction) -> int:
    return floor(x + Fraction(1, 2))


def straight(a: tuple[int, int], b: tuple[int, int]) -> list[tuple[int, int]]:
    """The points nearest to the line, one for each step along its longer side."""
    n = max(abs(b[0] - a[0]), abs(b[1] - a[1]))
    shares = [Fraction(i, max(n, 1)) for i in range(n + 1)]
    return [tuple(nearest(p + share * (q - p)) for p, q in zip(a, b, strict=True)) for share in shares]


def round_brush(size: int, u: float, v: float) -> set[tuple[int, int]]:
    """Cells whose middle is no farther than half the size from where the brush stands."""
    stands = [Fraction(floor(x)) + Fraction(1, 2) if size % 2 else Fraction(floor(x + 0.5)) for x in (u, v)]
    near = [range(floor(at) - size, floor(at) + size + 1) for at in stands]
    middle = Fraction(1, 2)
    return {
        (row, column)
        for row in near[0]
        for column in near[1]
        if (row + middle - stands[0]) ** 2 + (column + middle - stands[1]) ** 2 <= Fraction(size, 2) ** 2
    }


def connected(kinds: dict[tuple[int, int], tuple[int, int]], start: tuple[int, int]) -> set[tuple[int, int]]:
    """Grow by one ring at a time until nothing is added."""
    found, before = {start}, set()
    while found != before:
        before = found
        around = {(r + y, c + x) for r, c in found for y, x in ((0, 1), (1, 0), (0, -1), (-1, 0))}
        found = found | {cell for cell in around if kinds.get(cell) == kinds[start]}
    return found


def touched(case: dict, kinds: dict) -> set[tuple[int, int]]:
    """The cells that a stroke goes over, whatever it may change of them."""
    points, size = case["points"], case["size"]
    if case["tool"] == "fill":
        start = tuple(map(floor, points[0]))
        return connected(kinds, start) if start in kinds else set()
    if case["tool"] == "rectangle":
        ends = [
            tuple(min(max(floor(x), 0), n - 1) for x, n in zip(point, (case["rows"], case["columns"]), strict=True))
            for point in (points[0], points[-1])
        ]
        (top, bottom), (left, right) = (sorted(pair) for pair in zip(*ends, strict=True))
        return {(row, column) for row in range(top, bottom + 1) for column in range(left, right + 1)}
    stands = [tuple(floor(x) if size % 2 else floor(x + 0.5) for x in point) for point in points]
    on_the_way = {point for a, b in zip(stands, stands[1:] or stands, strict=False) for point in straight(a, b)}
    return {cell for row, column in on_the_way for cell in round_brush(size, row, column)}


def stroke(case: dict) -> tuple[list[int], list[int]]:
    """Labels and hands after a stroke, cell by cell."""
    rows, columns = case["rows"], case["columns"]
    places = [(row, column) for row in range(rows) for column in range(columns)]
    kinds = dict(zip(places, zip(case["labels"], case["instances"], strict=True), strict=True))
    ink = (case["ink"]["label"], case["ink"]["instance"])
    becomes, only = ((0, 0), ink) if case["tool"] == "eraser" else (ink, (0, 0))
    over = touched(case, kinds)
    after = [
        becomes if place in over and (not case["keep"] or kinds[place] == only) else kinds[place] for place in places
    ]
    return [label for label, _ in after], [hand for _, hand in after]


def random_stroke(rng: np.random.Generator) -> dict:
    rows, columns = (int(n) for n in rng.integers(1, 15, 2))
    labels, hands = random_grid(rng, rows, columns)
    points = rng.uniform(-2, 16, (int(rng.integers(1, 5)), 2))
    if rng.random() < 0.3:
        points = np.round(points)  # on corners and edges, where a rounding is easily the wrong one
    label, hand = [(1, 0), (2, 1), (3, 2), (0, 1)][rng.integers(4)]
    return {
        "rows": rows, "columns": columns, "labels": labels, "instances": hands, "points": points.tolist(),
        "tool": ["brush", "eraser", "rectangle", "fill"][rng.integers(4)], "ink": {"label": label, "instance": hand},
        "size": int(rng.integers(1, 10)), "keep": bool(rng.integers(2)),
    }  # fmt: skip


def test_strokes_change_the_cells_that_they_go_over_and_report_where(page: Page) -> None:
    cases = [random_stroke(np.random.default_rng(seed)) for seed in range(CASES)]
    after = in_browser(page, "grid.js", """(c, { Stroke }) => {
        const before = { labels: Uint8Array.from(c.labels), instances: Uint8Array.from(c.instances), verdict: "kept" };
        const frozen = JSON.stringify(before);
        const stroke = new Stroke(before, c.rows, c.columns, c);
        // What is drawn anew after each move, as boxes, must take in every cell that changed.
        const seen = before.labels.slice();
        for (const point of c.points) {
          const box = stroke.to(...point);
          if (box) for (let row = box[0]; row < box[2]; row++) for (let column = box[1]; column < box[3]; column++) {
            seen[row * c.columns + column] = stroke.labels[row * c.columns + column];
          }
        }
        const end = stroke.end();
        return {
          after: end && [[...end.labels], [...end.instances]], verdict: end?.verdict ?? "kept",
          seen: [...seen], now: [...stroke.labels], intact: JSON.stringify(before) === frozen,
        };
    }""", cases)  # fmt: skip
    changed = 0
    for case, result in zip(cases, after, strict=True):
        expected = stroke(case)
        same = expected == (case["labels"], case["instances"])
        assert result["after"] == (None if same else list(expected)), json.dumps(case)
        assert result["seen"] == result["now"] and result["intact"] and result["verdict"] == "kept", case
        changed += not same
    assert changed > CASES / 3, "the cases are worth something"


def test_lines_have_no_gaps_and_discs_are_round(page: Page) -> None:
    rng = np.random.default_rng(1)
    ends = rng.integers(-20, 20, (CASES, 2, 2)).tolist()
    for (a, b), points in zip(ends, in_browser(page, "grid.js", "(c, m) => m.line(...c)", ends), strict=True):
        assert [tuple(point) for point in points] == straight(tuple(a), tuple(b))
    sizes = list(range(1, 33))
    for size, cells in zip(sizes, in_browser(page, "grid.js", "(c, m) => m.disc(c)", sizes), strict=True):
        assert {tuple(cell) for cell in cells} == round_brush(size, 0, 0), size
        assert len(cells) == len({tuple(cell) for cell in cells})
        assert abs(len(cells) - np.pi * size**2 / 4) <= size


def test_undo_goes_back_over_every_state_and_redo_forth(page: Page) -> None:
    """A list of what happened, against one stack of what can be undone and one of what can be redone."""
    cases = [np.random.default_rng(seed).integers(0, 4, 60).tolist() for seed in range(60)]
    results = in_browser(page, "grid.js", """(c, { History }) => {
        const history = new History(0, 20);
        let next = 1;
        return c.map((what) => {
          const did = what === 0 ? history.undo() : what === 1 ? history.redo() : (history.push(next++), true);
          return [did, history.now];
        });
    }""", cases)  # fmt: skip
    for case, result in zip(cases, results, strict=True):
        back, forth, now, made = [], [], 0, 0
        for what, (did, shown) in zip(case, result, strict=True):
            if what == 0:
                assert did == bool(back)
                if back:
                    forth.append(now)
                    now = back.pop()
            elif what == 1:
                assert did == bool(forth)
                if forth:
                    back.append(now)
                    now = forth.pop()
            else:
                made += 1
                back, forth, now = [*back, now][-19:], [], made
            assert shown == now


def test_bytes_survive_base64_and_runs(page: Page) -> None:
    rng = np.random.default_rng(2)
    cases = [rng.integers(0, 256, n).tolist() for n in (0, 1, 2, 3, 9000)]
    cases += [np.repeat(rng.integers(0, 4, 40), rng.integers(1, 40, 40)).tolist() for _ in range(9)]
    results = in_browser(page, "grid.js", """(c, m) => {
        const bytes = Uint8Array.from(c);
        const text = m.pack(bytes);
        return [m.encode(bytes), [...m.decode(m.encode(bytes))], text, [...m.unpack(text, c.length)]];
    }""", cases)  # fmt: skip
    for case, (encoded, decoded, packed, unpacked) in zip(cases, results, strict=True):
        assert encoded == base64.b64encode(bytes(case)).decode() and decoded == unpacked == case
        runs = [(value, len(list(run))) for value, run in groupby(case)]
        assert packed == ",".join(f"{value}x{n}" if n > 1 else f"{value}" for value, n in runs)


def test_a_stroke_that_a_page_of_the_version_before_left_behind_is_read(page: Page) -> None:
    cases = [{"cells": 4, "labels": "3x2,1x2", name: "1x2,0x2", "faults": {}} for name in ("hands", "instances")]
    found = in_browser(page, "journal.js", "(c, m) => [...m.unpacked(c).instances]", cases)
    assert found == [[1, 1, 0, 0]] * 2


def test_strokes_are_put_upon_what_another_tab_saved(page: Page) -> None:
    rng = np.random.default_rng(3)
    cases = [[random_grid(rng, 5, 7) for _ in range(3)] for _ in range(50)]
    results = in_browser(page, "grid.js", """(c, m) => {
        const [base, mine, theirs] = c.map(([labels, hands]) => (
          { labels: Uint8Array.from(labels), instances: Uint8Array.from(hands) }));
        const merged = m.rebase(base, mine, theirs);
        const alike = [m.same(mine, theirs), m.same(mine, mine)];
        return [[...merged.labels], [...merged.instances], m.difference(mine, theirs), ...alike];
    }""", cases)  # fmt: skip
    for case, (labels, hands, differ, same, itself) in zip(cases, results, strict=True):
        base, mine, theirs = (list(zip(*grids, strict=True)) for grids in case)
        expected = [m if m != b else t for b, m, t in zip(base, mine, theirs, strict=True)]
        assert list(zip(labels, hands, strict=True)) == expected
        assert differ == sum(m != t for m, t in zip(mine, theirs, strict=True)) and same == (differ == 0) and itself


def test_a_suggestion_changes_only_what_it_speaks_of(page: Page) -> None:
    rng = np.random.default_rng(4)
    grids = [[*random_grid(rng, 4, 6), *random_grid(rng, 4, 6)] for _ in range(50)]
    cases = [[*four, int(rng.choice([0, 2, 3])), i % 2] for i, four in enumerate(grids)]
    results = in_browser(page, "grid.js", """([labels, hands, sl, sh, label, keep], m) => {
        const state = { labels: Uint8Array.from(labels), instances: Uint8Array.from(hands) };
        const after = m.accept(state, { labels: sl, instances: sh }, label, keep);
        return [[...after.labels], [...after.instances]];
    }""", cases)  # fmt: skip
    for (labels, hands, sl, sh, label, keep), (after_labels, after_hands) in zip(cases, results, strict=True):
        for i, now in enumerate(zip(after_labels, after_hands, strict=True)):
            silent = (sl[i], sh[i]) == (0, 0) or (keep and (labels[i], hands[i]) != (0, 0))
            assert now == ((labels[i], hands[i]) if silent else (label if sh[i] else sl[i], sh[i]))


def test_verdicts_follow_the_cells_and_contradictions_are_named(page: Page) -> None:
    cases = [
        ([1, 1], [0, 0], None, None, "Choose a verdict"),
        ([2, 1], [1, 0], None, "good", "Choose a verdict"),
        ([2, 3], [1, 2], "bad", "bad", None),
        ([2, 3], [1, 2], "good?", "bad", "painted bad"),
        ([2, 2], [1, 2], "bad?", "good", "no hand is painted bad"),
        ([0, 0], [1, 0], "unsure", None, None),
        ([0, 0], [1, 0], None, None, "Say whether the hand is good or bad"),
        ([0, 1], [0, 0], "bad", None, None),
        ([2, 3], [1, 1], "bad", "bad", "Hand 1 is good and bad at once"),
        ([2, 3], [1, 2], "bad", "bad", "Hand 1 has faults and is good", {"1": ["joint"]}),
        ([2, 3], [1, 2], "bad", "bad", None, {"2": ["joint"]}),
        ([2, 1], [1, 0], "good?", "good", "Hand 2 has faults and is good?", {"2": ["missing"]}),
        ([1, 1], [0, 0], "bad", None, None, {"1": ["missing"]}),
    ]
    cases = [(*case, {})[:6] for case in cases]
    said = SubjectSaid.of(load_subject("hand")).model_dump()
    results = in_browser(page, "judgement.js", """([labels, hands, verdict, faults, subject], m) =>
        [m.verdictOf({ labels, instances: hands }), m.problems({ labels, instances: hands, verdict, faults }, subject)]
    """, [(*case[:3], case[5], said) for case in cases])  # fmt: skip
    for (*_, verdict, problem, _faults), (found, named) in zip(cases, results, strict=True):
        assert found == verdict
        assert (named == []) if problem is None else (problem in named[0]), named


@pytest.mark.parametrize("name", ["hand", BIRD])
def test_the_server_refuses_what_the_page_does_in_the_same_words(page: Page, name: str | Path) -> None:
    subject = load_subject(name)
    said = SubjectSaid.of(subject).model_dump()
    rng, cases = np.random.default_rng(0), []
    for _ in range(400):
        which = rng.choice(rng.permutation(len(CELLS))[: rng.integers(1, 4)], 6)
        labels, hands = ([CELLS[k][part] for k in which] for part in (0, 1))
        faults = {str(hand): ["joint"] for hand in (1, 2, 3) if rng.random() < 0.2}
        cases.append([labels, hands, [None, *VERDICTS][rng.integers(6)], faults, said])
    found = in_browser(page, "judgement.js", """([labels, hands, verdict, faults, subject], m) =>
        m.problems({ labels, instances: hands, verdict, faults }, subject)
    """, cases)  # fmt: skip
    assert 50 < sum(not named for named in found) < 350
    for (labels, hands, verdict, faults, _), expected in zip(cases, found, strict=True):
        by_hand = {int(hand): tuple(kinds) for hand, kinds in faults.items()}
        grids = np.array([labels], np.uint8), np.array([hands], np.uint8)
        state = Annotation("a", "0" * 64, *grids, verdict or "", faults=by_hand, done=False)
        assert problems(state, subject) == expected
        check_finished(state, subject)
        if verdict and expected:
            with pytest.raises(HandscopeError, match=re.escape(expected[0])):
                check_finished(replace(state, done=True), subject)
        elif verdict:
            check_finished(replace(state, done=True), subject)


def test_a_fault_goes_from_its_usual_scope_to_the_other_to_none(page: Page) -> None:
    steps = [{}, {"2": ["count"], "1": ["joint:local"]}]
    results = in_browser(page, "judgement.js", """(faults, m) => {
        const seen = [];
        for (let i = 0; i < 4; i++) seen.push(faults = m.stepFault(faults, 2, "count", "global"));
        return seen;
    }""", steps)  # fmt: skip
    three = [["count:global"], ["count:local"], None]
    for start, shift, seen in zip(steps, (0, 1), results, strict=True):
        for i, faults in enumerate(seen):
            expected = {hand: kinds for hand, kinds in start.items() if hand != "2"}
            now = three[(i + shift) % 3]
            assert faults == (expected | {"2": now} if now else expected), json.dumps(seen)


def test_the_view_is_exact_at_every_place_and_never_leaves_the_picture(page: Page) -> None:
    cases = [np.random.default_rng(seed).uniform(0, 1, (12, 3)).tolist() for seed in range(60)]
    results = in_browser(page, "view.js", """(c, { View }) => {
        const view = new View();
        view.resize({ rows: 64, columns: 48, width: 700, height: 500 });
        return c.map(([a, b, what]) => {
          const [x, y] = [a * 700, b * 500];
          const before = view.at(x, y);
          const scale = view.scale;
          if (what < 0.5) view.zoom(Math.exp(4 * what - 1), x, y);
          else if (what < 0.8) view.pan(900 * (a - 0.5), 900 * (b - 0.5));
          else if (what < 0.9) view.reveal(Math.floor(a * 64), Math.floor(b * 48));
          else view.fit();
          const there = view.pixel(...view.at(x, y));
          return {
            x, y, before, scale, what, now: view.at(x, y), there, view: { ...view },
            cell: what >= 0.8 && what < 0.9 && [view.pixel(Math.floor(a * 64), Math.floor(b * 48)), view.scale],
          };
        });
    }""", cases)  # fmt: skip
    for result in (one for case in results for one in case):
        view, x, y = result["view"], result["x"], result["y"]
        assert result["there"] == pytest.approx([x, y])
        for at, length, room in ((view["x"], 48 * view["scale"], 700), (view["y"], 64 * view["scale"], 500)):
            if length > room:
                assert room - length - 1e-6 <= at <= 1e-6
            else:
                assert at == pytest.approx((room - length) / 2)
        assert 500 / 64 - 1e-9 <= view["scale"] <= 96
        beyond = [-view["x"], -view["y"], 48 * view["scale"] + view["x"] - 700, 64 * view["scale"] + view["y"] - 500]
        if result["what"] < 0.5 and min(beyond) > 1e-6:
            assert result["now"] == pytest.approx(result["before"]), "what is under the pointer stays there"
        if result["cell"]:
            (left, top), scale = result["cell"]
            assert -1e-6 <= left <= 700 - scale + 1e-6 and -1e-6 <= top <= 500 - scale + 1e-6
