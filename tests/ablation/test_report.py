import csv
import json
import re
from html.parser import HTMLParser

import pytest

from segkit.ablation.compare import analyse
from segkit.ablation.files import latex, results_csv
from segkit.ablation.html import html
from segkit.ablation.limits import least_seeds
from segkit.ablation.markdown import markdown
from segkit.ablation.pictures import draw
from segkit.ablation.report import headline, headline_table, write_report
from segkit.ablation.sections import compose
from segkit.ablation.study import load_study
from segkit.errors import SegkitError

FIGURES = {
    "runs", "differences", "boundary_differences", "latency", "parameters", "classes", "trimap", "trimap_differences", "operator_index",
    "network_index", "spectrum", "images",
}  # fmt: skip
SECTIONS = ["Verdict", "Protocol", "Arms", "Differences", "Classes", "Boundaries", "Artefacts", "Where the arms differ"]
SECTIONS += ["Failed and unfinished runs", "Fairness", "What cannot be concluded"]


class Page(HTMLParser):
    """The text of a page, its headings, and what it would load; tags must match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.headings, self.loads = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "link"):
            self.open.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href", "xlink:href") and not value.startswith(("data:", "#"))]

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)
            if self.open and self.open[-1] == "h2":
                self.headings.append(data)


def said(study, drawn=()):
    """The report without its figures, in one line of words."""
    return " ".join(markdown(compose(analyse(study, resamples=100), drawn)).replace("\\", "").split())


def test_all_files(whole):
    study, report = whole
    assert report.problems == []
    names = {str(path.relative_to(study.folder)) for path in report.files}
    assert names == {"report.html", "report.md", "table.tex", "results.csv"} | {f"figures/{n}.{s}" for n in FIGURES for s in ("pdf", "png")}
    assert all(path.stat().st_size > 300 for path in report.files)
    assert (study.folder / "figures" / "runs.pdf").read_bytes().startswith(b"%PDF")


def test_the_page(whole):
    study, _ = whole
    text = (study.folder / "report.html").read_text()
    page = Page(text)
    assert page.headings == SECTIONS
    assert page.loads == []
    assert "<script" not in text
    assert "url(http" not in text
    assert len(re.findall("<svg", text)) == len(FIGURES)
    identifiers = re.findall(r'\bid="([^"]+)"', text)
    assert len(set(identifiers)) == len(identifiers)
    for target in re.findall(r'(?:href="#|url\(#)([^")]+)', text):
        assert target in identifiers
    assert "the loss is nan at step 7 <again>; lower --lr" in page.text  # escaped, as it was


def test_what_the_page_says_the_markdown_says(whole):
    study, _ = whole
    text = (study.folder / "report.md").read_text()
    assert re.findall("^## (.*)$", text, flags=re.M) == SECTIONS
    for sentence in headline(study):
        assert sentence.replace("[", "\\[").replace("]", "\\]").replace("_", "\\_").replace("<", "\\<") in text
    assert set(re.findall(r"\(figures/(\w+)\.png\)", text)) == FIGURES
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(
        len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"(?<!\\)\|", rows[i - 1])) for i, line in enumerate(rows) if "---" in line
    )


def test_sentences_and_table_for_the_terminal(whole):
    study, _ = whole
    better, unresolved, worse, noise = headline(study)
    assert better.startswith("bilinear is better than transpose: +")
    assert unresolved.startswith("whether nearest is better or worse than transpose is unresolved: ")
    assert "5 seeds cannot reach p < .05" in unresolved
    assert worse.startswith("pixel_shuffle is worse than transpose: ")
    assert noise.startswith("transpose under 6 other seeds differs from itself by ")
    header, rows = headline_table(study)
    assert all(len(row) == len(header) for row in rows)
    assert rows[2][4] == "failed"
    assert [row[-1] for row in rows] == ["baseline", "better", "unresolved", "worse", ""]
    values = list(study.baseline.values("miou").values())
    assert rows[0][1] == f"{100 * sum(values) / 6:.2f}"


def test_every_run_is_in_the_csv(whole):
    study, _ = whole
    with (study.folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    assert [(row["arm"], row["seed"]) for row in rows if row["state"] == "failed"] == [("nearest", "2")]
    assert {row["upsample"] for row in rows} == {"transpose", "bilinear", "nearest", "pixel_shuffle"}
    first, run = rows[0], study.baseline.runs[0]
    assert float(first["miou"]) == run.scores["miou"]
    assert float(first["boundary/trimap/4"]) == run.scores["boundary"]["trimap"]["4"]
    assert float(first["iou/pole"]) == run.scores["iou"]["pole"]
    assert first["initial"] == run.provenance["initial"]
    assert first["software/torch"] == "2.15.0"
    assert [row["trained_seed"] for row in rows[24:]] == ["6", "7", "8", "9", "10", "11"]
    assert float(first["artefacts/ci_op/decoder.0.upsample"]) == run.scores["artefacts"]["ci_op"]["decoder.0.upsample"]


def test_the_latex_table(whole):
    study, _ = whole
    lines = (study.folder / "table.tex").read_text().splitlines()
    rows = [line for line in lines if line.endswith(r"\\")]
    assert len(rows) == 5
    assert all(len(re.findall(r"(?<!\\)&", row)) == 6 for row in rows)
    assert rows[4].startswith(r"pixel\_shuffle & ")
    assert "$-$" in rows[4]
    assert not re.search("[^ -~]|_(?!shuffle)", "".join(lines))


@pytest.mark.parametrize(("finished", "words"), [
    ([], ["0 of 4 runs finished", "There is nothing to compare yet", "no seed that both have finished", "Nothing to hold against"]),
    ([("a", 0)], ["1 of 4 runs finished", "There is nothing to compare yet"]),
    ([("b", 0)], ["1 of 4 runs finished", "There is nothing to compare yet"]),
    ([("a", 0), ("b", 0)], ["one seed ranks nothing", "An arm with one seed is not ranked"]),
    ([("a", 0), ("a", 1), ("b", 0), ("b", 1)], ["2 seeds cannot reach p < .05"]),
])  # fmt: skip
def test_from_what_is_finished_so_far(tmp_path, write_study, predict, finished, words):
    missing = [(arm, seed) for arm in "ab" for seed in (0, 1) if (arm, seed) not in finished]
    study = load_study(write_study(tmp_path, {"a": 0, "b": 0.05}, seeds=2, unfinished=missing))
    drawn, _ = draw(analyse(study, resamples=100), predict)
    assert ("differences" in drawn) == ("images" in drawn) == (len(finished) > 1)
    text = said(study, drawn)
    assert all(word in text for word in words)
    verdicts = [row[-1] for row in headline_table(study)[1]]
    if len(finished) < 4:
        assert not {"better", "worse", "equivalent"} & set(verdicts)
        assert not re.search(r"is (better|worse) than|are equivalent", text)


def test_an_earlier_report_leaves_no_figure_behind(tmp_path, write_study):
    study = load_study(write_study(tmp_path, {"a": 0, "b": 0}, seeds=1, unfinished=[("a", 0), ("b", 0)]))
    (study.folder / "figures").mkdir()
    for name in ("runs.png", "images.pdf", "of_the_user.png"):
        (study.folder / "figures" / name).touch()
    assert [path.name for path in write_report(study, study.folder).files] == ["report.html", "report.md", "table.tex", "results.csv"]
    assert [path.name for path in (study.folder / "figures").iterdir()] == ["of_the_user.png"]


def test_what_was_not_measured_is_said(tmp_path, write_study):
    study = load_study(write_study(tmp_path, {"a": 0, "b": 0}, seeds=1, boundary=False, artefacts=False, costs=False))
    drawn, missing = draw(analyse(study, resamples=100), None)
    assert missing == "they were not asked for."
    assert list(drawn) == ["runs", "differences", "classes"]
    text = said(study, drawn)
    assert "No finished run has boundary measures." in text
    assert "No finished run has artefact measures." in text
    assert "not measured" in text


def test_images_that_cannot_be_read_are_missed_and_nothing_else(tmp_path, write_study):
    def predict(folder, index):
        raise SegkitError("the data is not in 'here'")

    study = load_study(write_study(tmp_path, {"a": 0, "b": 0.05}, seeds=2))
    drawn, missing = draw(analyse(study, resamples=100), predict)
    assert {"runs", "differences", "classes"} < set(drawn)
    assert "No images: the data is not in 'here'." in markdown(compose(analyse(study, resamples=100), drawn, missing))


def test_classes_have_their_sentences(whole):
    text = said(whole[0])
    assert "**better**: pole: bilinear is better than transpose, +" in text
    assert "**worse**: sky: pixel_shuffle is worse than transpose, \N{MINUS SIGN}" in text
    assert re.search(r"\*\*unresolved\*\*: \d of 12 differences between arms in single classes", text)


def test_an_unfair_comparison_is_the_first_thing_that_is_said(tmp_path, write_study, alter):
    study = load_study(write_study(tmp_path, {"a": 0, "b": 0.05, "c": 0.05}, seeds=3))
    alter(study, "b", 1, order="0" * 64)
    study = load_study(study.folder)
    analysis = analyse(study, resamples=100)
    (problem,) = map(str, analysis.unfair)
    assert problem.startswith("b, seed 1: order of the samples differ")
    first, withheld, better = headline(study)
    assert first == f"not fair: {problem}"
    assert withheld.startswith("b against a: the runs differ in more than they should")
    assert better.startswith("c is better than a")
    assert [row[-1] for row in headline_table(study)[1]] == ["baseline", "withheld", "better"]
    text = said(study)
    assert text.index("The comparison is not fair") < text.index("is better than")
    assert "withheld" in latex(analysis)


def test_names_that_mean_something_elsewhere(tmp_path, write_study):
    names = {"a|b_c*d": 0.0, "<b>x & y</b>": 0.05}
    study = load_study(write_study(tmp_path, names, seeds=2))
    analysis = analyse(study, resamples=100)
    document = compose(analysis, ())
    assert "<b>x" not in html(document, {})
    assert r"a\|b\_c\*d" in markdown(document)
    assert r"<b>x \& y</b>" in latex(analysis)


def test_the_folder_must_take_files(tmp_path, write_study):
    study = load_study(write_study(tmp_path, {"a": 0}, seeds=1))
    (tmp_path / "file").touch()
    with pytest.raises(SegkitError, match="cannot write to the folder"):
        write_report(study, tmp_path / "file")


def test_seeds_that_a_sign_flip_test_needs():
    assert [least_seeds(n) for n in (1, 2, 7)] == [6, 7, 9]  # 2/64 <= .05 < 2/32; 4/128; 14/512 <= .05 < 14/256


def test_seeds_that_suffice_for_one_comparison_are_too_few_for_four(tmp_path, write_study):
    effects = dict.fromkeys("abcde", 0.0)
    text = said(load_study(write_study(tmp_path, effects, boundary=False, artefacts=False)))
    assert "6 seeds cannot reach p < .05 in the exact sign-flip test, which needs no normal noise but 8 seeds for one of 4" in text


def test_a_class_is_absent_only_where_no_run_has_it(tmp_path, write_study):
    study = load_study(write_study(tmp_path, {"a": 0, "b": 0}, seeds=2, unfinished=[("a", 0), ("a", 1)]))
    assert "so in no mean: ghost." in said(study)  # though the baseline has no run that would have any class
    path = study.arm("b").runs[0].evaluation / "metrics.json"
    scores = json.loads(path.read_text())
    path.write_text(json.dumps({**scores, "iou": {**scores["iou"], "ghost": 0.0}}))
    assert "whose mIoU counts an IoU of 0 there: ghost (1 of 2)" in said(load_study(study.folder))


def test_a_budget_in_epochs(tmp_path, write_study):
    study = load_study(write_study(tmp_path, {"a": 0, "b": 0}, seeds=1))
    for arm in study.arms:
        arm.config["trainer"]["max_epochs"] = 30
    text = said(study)
    assert "One budget of 30 epochs" in text
    assert "30 epochs of 8 crops" in text


def test_columns_do_not_depend_on_which_run_is_first(tmp_path, write_study):
    effects = {"a": 0, "b": 0}
    whole, partial, none = (
        results_csv(load_study(write_study(tmp_path / str(i), effects, seeds=2, unfinished=missing))).splitlines()[0].split(",")
        for i, missing in enumerate([[], [("a", 0), ("b", 1)], [(arm, seed) for arm in "ab" for seed in (0, 1)]])
    )
    assert partial == whole
    assert none == [column for column in whole if column in none]  # the same order
    assert {"arm", "seed", "state", "miou"} < set(none)


def test_one_run_proves_nothing(tmp_path, write_study):
    text = said(load_study(write_study(tmp_path, {"a": 0, "b": 0}, seeds=2, unfinished=[("a", 0), ("b", 1)])))
    assert "No seed has two finished arms yet" in text
    assert "recorded the same" not in text
