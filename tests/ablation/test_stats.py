"""Contrasts against loops, enumeration and scipy, and what may be claimed."""

import itertools
import math
from dataclasses import astuple, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from segkit.ablation import resampling
from segkit.ablation.counts import miou
from segkit.ablation.headline import Spread, spread
from segkit.ablation.resampling import bootstrap, permutation, pseudo_values, sign_flip
from segkit.ablation.stats import Contrast, Counts, adjust, contrast, family, holm, sentence
from segkit.errors import SegkitError
from segkit.metrics import scores


def matrices(seeds=4, images=7, classes=3, accuracy=0.7, key=0):
    """Confusion matrices of runs that are right in a share of the pixels which varies over seeds and images."""
    rng = np.random.default_rng(key)
    truth = np.random.default_rng(99).integers(200, 2000, (images, classes))  # the same images whatever the key
    right = accuracy + 0.03 * rng.normal(size=(seeds, 1, 1)) + 0.05 * rng.normal(size=(seeds, images, classes))
    hit = (truth * right.clip(0, 1)).astype(np.int64)
    matrix = np.zeros((seeds, images, classes, classes), np.int64)
    for k in range(classes):
        matrix[..., k, k] = hit[..., k]
        matrix[..., k, (k + 1) % classes] += truth[:, k] - hit[..., k]
    return matrix


def counts(*args, **options):
    return Counts.from_matrices(matrices(*args, **options))


def flat(differences, images=5):
    """An arm whose score on every image is 0.5 plus the difference of its seed: no variance over images."""
    hits = np.rint((0.5 + np.asarray(differences)) * 10_000).astype(np.int64)
    return Counts(np.tile(hits[:, None, None], (1, images, 1)), np.full((len(hits), images, 1), 10_000))


class TestCounts:
    def test_by_hand(self):
        # image 0: 3 of 3 + 1 pixels of class 0, 1 of 1 + 1 of class 1; image 1: 0 of 2 and 4 of 4 + 2
        seed = np.array([[[3, 1], [0, 1]], [[0, 2], [0, 4]]])
        both = Counts.from_matrices(np.stack([seed, seed[::-1]]))
        assert both.intersection.tolist() == [[[3, 1], [0, 4]], [[0, 4], [3, 1]]]
        assert both.union.tolist() == [[[4, 2], [2, 6]], [[2, 6], [4, 2]]]
        np.testing.assert_allclose(both.class_iou(), [[3 / 6, 5 / 8]] * 2)
        np.testing.assert_allclose(both.miou(), [(3 / 6 + 5 / 8) / 2] * 2)  # the mean over images would be (3/4 + 1/2 + 0 + 2/3) / 4

    def test_the_scores_of_the_summed_matrix(self):
        matrix = matrices(classes=4)
        matrix[..., 3, :] = matrix[..., :, 3] = 0  # absent everywhere
        matrix[0, ..., 2, :] = matrix[0, ..., :, 2] = 0  # absent for the first seed
        for seed, class_iou, mean in zip(
            matrix, counts_of := Counts.from_matrices(matrix).class_iou(), Counts.from_matrices(matrix).miou(), strict=True
        ):
            expected = scores(torch.from_numpy(seed.sum(0)))
            np.testing.assert_allclose(class_iou, expected.iou)
            assert mean == pytest.approx(expected.miou, rel=1e-14)
        assert np.isnan(counts_of).sum() == 5

    def test_no_class_at_all(self):
        empty = Counts.from_matrices(np.zeros((2, 3, 4, 4), np.int64))
        assert np.isnan(empty.miou()).all()

    def test_seeds_one_after_the_other(self):
        matrix = matrices()
        one, all_at_once = Counts.from_matrices(iter(matrix)), Counts.from_matrices(matrix)
        assert (one.intersection == all_at_once.intersection).all()
        assert (one.union == all_at_once.union).all()

    def test_small_integers_do_not_overflow(self):
        assert Counts.from_matrices(np.full((1, 1, 2, 2), 200, np.uint8)).union.tolist() == [[[600, 600]]]

    @pytest.mark.parametrize("wrong", [[], np.zeros((2, 3, 4)), np.zeros((2, 3, 4, 5)), [np.zeros((3, 4, 4)), np.zeros((2, 4, 4))]])
    def test_what_are_no_confusion_matrices(self, wrong):
        with pytest.raises(SegkitError, match="no confusion matrices: give|give \\[images, classes, classes\\], the same for every seed"):
            Counts.from_matrices(wrong)


class TestJackknife:
    @pytest.mark.parametrize("vanishing", [False, True])
    def test_pseudo_values_by_leaving_out_each_image(self, vanishing):
        matrix = matrices()
        if vanishing:  # only image 2 shows class 2
            others = [0, 1, 3, 4, 5, 6]
            matrix[:, others, 2, :] = 0
            matrix[:, others, :, 2] = 0
        values = pseudo_values(Counts.from_matrices(matrix), miou)
        for s, i in itertools.product(range(4), range(7)):
            whole = scores(torch.from_numpy(matrix[s].sum(0))).miou
            without = scores(torch.from_numpy(np.delete(matrix[s], i, axis=0).sum(0))).miou
            assert values[s, i] == pytest.approx(7 * whole - 6 * without, rel=1e-12)

    def test_of_a_mean_they_are_its_terms(self):
        # where every image has the same union a class's IoU is a mean over images
        hits = np.array([[[3], [5], [10]]])
        np.testing.assert_allclose(pseudo_values(Counts(hits, np.full((1, 3, 1), 10)), miou), [[0.3, 0.5, 1.0]])


class TestHeadline:
    def test_variances_by_hand(self):
        # mean 4, rows 2 and 6, columns 3 and 5, residuals ±1: s²_seed = 8, s²_image = 2, s²_interaction = 4 / 1
        pseudo = np.array([[2.0, 2.0], [4.0, 8.0]])
        found = spread([(pseudo.mean(1), pseudo)])
        assert (found.seed, found.interaction) == (pytest.approx(math.sqrt(8)), pytest.approx(2.0))
        assert found.image == 0  # 2 - 4 / 2
        np.testing.assert_allclose(found.parts, [8 / 2, 0])
        assert found.df.tolist() == [1, 1]

    def test_against_the_analysis_of_variance_by_loops(self):
        a, b = counts(key=1), counts(key=2)
        c = contrast(a, b, resamples=0)
        pseudo = pseudo_values(a, miou) - pseudo_values(b, miou)
        d = a.miou() - b.miou()
        n, m = pseudo.shape
        grand = sum(pseudo[s][i] for s in range(n) for i in range(m)) / (n * m)
        row = [sum(pseudo[s]) / m for s in range(n)]
        column = [sum(pseudo[:, i]) / n for i in range(m)]
        seed = sum((x - sum(d) / n) ** 2 for x in d) / (n - 1)
        image = sum((x - grand) ** 2 for x in column) / (m - 1)
        interaction = sum((pseudo[s][i] - row[s] - column[i] + grand) ** 2 for s in range(n) for i in range(m)) / ((n - 1) * (m - 1))
        assert c.seed_sd == pytest.approx(math.sqrt(seed))
        assert c.interaction_sd == pytest.approx(math.sqrt(interaction))
        assert c.image_sd == pytest.approx(math.sqrt(max(0, image - interaction / n)))
        assert c.standard_error == pytest.approx(math.sqrt(c.seed_sd**2 / n + c.image_sd**2 / m))

    def test_without_variance_over_images_it_is_students_over_the_seeds(self):
        d = [0.01, 0.03, 0.0, 0.02]
        c = contrast(flat(d), flat([0] * 4), resamples=0)
        expected = scipy_stats.ttest_1samp(d, 0)
        assert c.difference == pytest.approx(0.015)
        np.testing.assert_allclose(c.interval, tuple(expected.confidence_interval()), rtol=1e-9)
        assert c.headline_p == pytest.approx(expected.pvalue)
        assert c.df == pytest.approx(3)
        assert c.differences == pytest.approx(d)

    def test_without_variance_over_seeds_it_is_students_over_the_images(self):
        hits = np.array([3, 5, 8, 1, 4, 6, 7, 5])
        arm = Counts(np.tile(hits[None, :, None], (3, 1, 1)), np.full((3, 8, 1), 10))
        c = contrast(arm, Counts(np.full((3, 8, 1), 4), np.full((3, 8, 1), 10)), resamples=0)
        df = min(7, 16 / (scipy_stats.kurtosis(hits, fisher=False) - 1))
        low, high = scipy_stats.t.interval(0.95, df, hits.mean() / 10 - 0.4, scipy_stats.sem(hits / 10))
        np.testing.assert_allclose(c.interval, (low, high))
        assert c.df == pytest.approx(df)

    def test_few_images_that_matter_are_few_degrees_of_freedom(self):
        influence = np.zeros((3, 100))
        influence[:, :4] = [1, -1, 1, -1]
        # of 100 squares 4 are 1: their variance is 0.04 · 0.96, twice the square of their mean over it and over 100 is 1 / 12
        assert spread([(np.array([1.0, 2.0, 3.0]), influence)]).df.tolist() == [2, pytest.approx(100 / 12)]

    def test_independent_seeds_add_their_variances(self):
        a, b = [0.01, 0.03, 0.0, 0.02, 0.01], [0.02, 0.01, 0.03]
        c = contrast(flat(a), flat(b), resamples=0, paired_seeds=False)
        seeds = np.var(a, ddof=1) / 5, np.var(b, ddof=1) / 3
        assert c.standard_error == pytest.approx(math.sqrt(sum(seeds)))
        assert c.seed_sd == pytest.approx(math.sqrt(np.var(a, ddof=1) + np.var(b, ddof=1)))
        critical = np.dot(seeds, [scipy_stats.t.ppf(0.975, 4), scipy_stats.t.ppf(0.975, 2)]) / sum(seeds)
        assert c.interval[1] - c.difference == pytest.approx(critical * c.standard_error)
        assert (c.seeds, c.differences, c.difference) == (3, (), pytest.approx(0.014 - 0.02))

    def test_independent_and_paired_seeds_share_the_variance_of_the_images(self):
        a, b = counts(key=1), counts(key=2)
        paired, independent = (contrast(a, b, resamples=0, paired_seeds=p) for p in (True, False))
        both = np.mean([pseudo_values(a, miou) - pseudo_values(b, miou)], axis=1)
        for c in (paired, independent):
            held = c.interaction_sd**2 / 4
            assert c.image_sd**2 == pytest.approx(max(0, both.var(ddof=1) - held))

    def test_critical_values(self):
        parts = Spread(0, 0, 0, parts=np.array([3.0, 1.0]), df=np.array([2.0, 50.0]))
        student = [scipy_stats.t.ppf(0.975, 2), scipy_stats.t.ppf(0.975, 50)]
        assert parts.critical() == pytest.approx((3 * student[0] + student[1]) / 4)
        half = parts.critical() * parts.standard_error
        assert parts.p(half) == pytest.approx(0.05)
        assert parts.p(half * 1.001) < 0.05 < parts.p(half * 0.999)
        for tail in (0.4, 0.025, 1e-3, 1e-9):
            assert parts.p(parts.critical(tail) * parts.standard_error) == pytest.approx(2 * tail)
            # at strict levels as large as the root mean square, but for the scale
            squares = (3 * scipy_stats.t.isf(tail, 2) ** 2 + scipy_stats.t.isf(tail, 50) ** 2) / 4
            scale = parts.critical() / math.sqrt((3 * student[0] ** 2 + student[1] ** 2) / 4)
            assert parts.critical(tail) == pytest.approx(scale * math.sqrt(squares))
        assert scipy_stats.t.ppf(0.975, parts.effective_df()) == pytest.approx(parts.critical())

    @pytest.mark.parametrize("parts", [(1.0, 0.0), (0.0, 1.0), (2.0, 1.0), (0.01, 3.0)])
    @pytest.mark.parametrize("df", [(1.0, 59.0), (2.0, 2.0), (9.0, 5.5), (2.0, 1.0)])
    def test_p_values_of_any_distance(self, parts, df):
        found = Spread(0, 0, 0, parts=np.array(parts), df=np.array(df))
        p = [found.p(distance) for distance in (0, 1e-9, 0.1, 1, 10, 1e3, 1e6, 1e30, 1e300)]
        assert p[0] == 1
        assert p == sorted(p, reverse=True)
        assert found.df.min() <= found.effective_df() <= found.df.max() * (1 + 1e-9)

    @pytest.mark.parametrize(("seeds", "images"), [(2, 5), (3, 60), (6, 7), (10, 233)])
    def test_the_detectable_difference_has_its_power(self, seeds, images):
        found = Spread(0, 0, 0, parts=np.array([1.0, 0.7]), df=np.array([seeds - 1.0, images - 1.0]))
        noncentrality, df = found.detectable() / found.standard_error, found.effective_df()
        assert scipy_stats.nct.sf(found.critical(), df, noncentrality) == pytest.approx(0.8, abs=1e-5)


class TestBootstrap:
    @pytest.mark.parametrize("paired", [True, False])
    @pytest.mark.parametrize("classes", [3, 90_000])  # the many are computed in blocks
    def test_by_summing_what_was_drawn(self, paired, classes):
        rng = np.random.default_rng(5)
        union = rng.integers(1, 50, (2, 2, 4, classes))
        a, b = (Counts(rng.integers(0, u + 1), u) for u in union)
        resamples = 23
        images, *seeds = (np.random.default_rng(s) for s in np.random.SeedSequence(3).spawn(3))
        drawn_images = images.integers(4, size=(resamples, 4))
        drawn_seeds = [stream.integers(2, size=(resamples, 2)) for stream in seeds]
        differences = []
        for r in range(resamples):
            means = []
            for counts, drawn in zip((a, b), (drawn_seeds[0], drawn_seeds[0] if paired else drawn_seeds[1]), strict=True):
                runs = []
                for s in drawn[r]:
                    intersection, union = np.zeros(classes), np.zeros(classes)
                    for i in drawn_images[r]:
                        intersection += counts.intersection[s, i]
                        union += counts.union[s, i]
                    runs.append(np.mean(intersection / union))
                means.append(np.mean(runs))
            differences.append(means[0] - means[1])
        found = bootstrap(a, b, miou, resamples=resamples, seed=3, paired_seeds=paired, level=0.05)
        np.testing.assert_allclose(found, np.percentile(differences, [2.5, 97.5]), rtol=1e-12)

    def test_a_class_that_vanishes_is_left_out(self):
        # one of three images shows class 1, where the arm is perfect and the baseline misses it; class 0 is equal everywhere
        union = np.array([[[10, 10], [10, 0], [10, 0]]])
        perfect, blind = Counts(union, union), Counts(union * [1, 0], union)
        assert bootstrap(perfect, blind, miou, resamples=200, seed=0, paired_seeds=True, level=0.05) == (0, 0.5)
        only = contrast(perfect, blind, score=1, resamples=200)
        assert only.bootstrap == (1, 1)  # wherever the class has been drawn

    def test_the_seed_decides(self):
        a, b = counts(key=1), counts(key=2)
        found = [contrast(a, b, resamples=300, seed=s).bootstrap for s in (0, 0, 1)]
        assert found[0] == found[1] != found[2]

    def test_none(self):
        assert all(math.isnan(x) for x in contrast(counts(), counts(), resamples=0).bootstrap)


class TestSignFlip:
    @given(st.lists(st.integers(-9, 9), min_size=1, max_size=9))
    def test_by_enumeration(self, differences):
        observed = abs(sum(differences))
        patterns = list(itertools.product([-1, 1], repeat=len(differences)))
        as_large = sum(abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= observed for signs in patterns)
        p, least = sign_flip(np.array(differences) * 0.1)  # tenths do not sum exactly: ties must stay ties
        assert p == pytest.approx(as_large / len(patterns))
        assert least == min(1, 2 / len(patterns))

    def test_against_scipy(self):
        d = np.random.default_rng(1).normal(0.3, 1, 12)
        expected = scipy_stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True)
        assert sign_flip(d)[0] == pytest.approx(expected.pvalue)

    def test_forty_seeds(self):
        p, least = sign_flip(np.ones(40))
        assert p == least == 2 / 2**40

    def test_runs_that_are_not_paired(self):
        rng = np.random.default_rng(2)
        a, b = rng.normal(0.5, 1, 6), rng.normal(0, 1, 5)
        expected = scipy_stats.permutation_test(
            (a, b), lambda x, y: abs(np.mean(x) - np.mean(y)), n_resamples=np.inf, alternative="greater"
        )
        p, least = permutation(a, b, seed=0)
        assert p == pytest.approx(expected.pvalue)
        assert least == 1 / math.comb(11, 5)

    def test_the_least_p_is_reached(self):
        for sizes in ((3, 3), (2, 4), (1, 1)):
            a, b = np.arange(sizes[0]) + 100.0, np.arange(sizes[1]) + 0.0
            p, least = permutation(a, b, seed=0)
            assert p == pytest.approx(least)

    def test_random_divisions_where_there_are_too_many(self, monkeypatch):
        rng = np.random.default_rng(2)
        a, b = rng.normal(0.5, 1, 8), rng.normal(0, 1, 8)
        exact = permutation(a, b, seed=0)[0]
        monkeypatch.setattr(resampling, "EXACT", 10_000)  # of 12,870
        sampled = permutation(a, b, seed=0)[0]
        assert sampled != exact
        assert sampled == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 10_000))


class TestHolm:
    def test_an_example_from_the_textbooks(self):
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_what_is_missing_is_a_comparison_all_the_same(self):
        assert holm([0.02, math.nan, 0.01]) == pytest.approx([0.04, math.nan, 0.03], nan_ok=True)
        assert holm([]) == []
        assert holm([0.6, 0.7]) == [1, 1]

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
    def test_rejects_what_the_stepwise_rule_rejects(self, p):
        adjusted = holm(p)
        order, rejected = sorted(range(len(p)), key=lambda i: p[i]), set()
        for step, i in enumerate(order):
            if (len(p) - step) * p[i] >= 0.05:
                break
            rejected.add(i)
        assert {i for i, value in enumerate(adjusted) if value < 0.05} == rejected


def numbers(c):
    return np.array([x for x in astuple(replace(c, margin=0, bootstrap=(0, 0), differences=())) if isinstance(x, (int, float))])


class TestContrast:
    @given(st.integers(0, 10**6), st.integers(2, 6), st.integers(2, 8), st.booleans())
    @settings(max_examples=30, deadline=None)
    def test_swapping_the_arms_turns_the_sign(self, key, seeds, images, paired):
        a, b = counts(seeds, images, key=key), counts(seeds, images, key=key + 1, accuracy=0.72)
        ab, ba = (contrast(*arms, resamples=50, margin=0.02, paired_seeds=paired) for arms in ((a, b), (b, a)))
        assert ab.difference == pytest.approx(-ba.difference)
        np.testing.assert_allclose(ab.interval, [-x for x in ba.interval[::-1]], atol=1e-12)
        if paired:
            np.testing.assert_allclose(ab.bootstrap, [-x for x in ba.bootstrap[::-1]], atol=1e-12)
            np.testing.assert_allclose(ab.differences, [-x for x in ba.differences])
        assert ab.improvement == pytest.approx(1 - ba.improvement)
        assert ab.verdict == {"better": "worse", "worse": "better"}.get(ba.verdict, ba.verdict)
        same = {"difference": 0, "interval": (0, 0), "improvement": 0, "verdict": "unresolved"}
        np.testing.assert_allclose(numbers(replace(ab, **same)), numbers(replace(ba, **same)), rtol=1e-6, atol=1e-12)

    @given(st.integers(0, 10**6), st.randoms(use_true_random=False), st.booleans())
    @settings(max_examples=20, deadline=None)
    def test_the_order_of_images_and_seeds_does_not_matter(self, key, random, paired):
        seeds, images = [random.sample(range(size), size) for size in (4, 7)]
        a, b = matrices(key=key), matrices(key=key + 1)
        straight, shuffled = (
            contrast(*(Counts.from_matrices(m) for m in arms), resamples=0, margin=0.02, paired_seeds=paired)
            for arms in ((a, b), (a[seeds][:, images], b[seeds][:, images]))
        )
        np.testing.assert_allclose(straight.interval, shuffled.interval)
        np.testing.assert_allclose(numbers(straight), numbers(shuffled), rtol=1e-6)
        assert sorted(straight.differences) == pytest.approx(sorted(shuffled.differences))

    def test_an_arm_against_itself(self):
        c = contrast(counts(), counts())
        assert (c.difference, c.interval, c.bootstrap, c.headline_p, c.p, c.improvement) == (0, (0, 0), (0, 0), 1, 1, pytest.approx(0.5))
        assert c.verdict == "unresolved"
        assert contrast(counts(), counts(), margin=1e-4).verdict == "equivalent"

    def test_improvement_is_the_mann_whitney_statistic(self):
        a, b = counts(6, key=1), counts(6, key=2)
        expected = scipy_stats.mannwhitneyu(a.miou(), b.miou()).statistic / 36
        assert contrast(a, b, resamples=0).improvement == pytest.approx(expected)

    def test_a_class_and_a_function_of_ones_own(self):
        a, b = counts(key=1), counts(key=2)
        one = contrast(a, b, score=1, resamples=100, margin=0.1)
        assert one.difference == pytest.approx((a.class_iou() - b.class_iou())[:, 1].mean())
        own = contrast(a, b, score=lambda i, u: i[..., 1] / u[..., 1], resamples=100, margin=0.1)
        assert own == one

    def test_one_seed_ranks_nothing(self):
        c = contrast(counts(1, key=1, accuracy=0.9), counts(1, key=2), margin=0.5)
        assert c.verdict == "unresolved"
        assert all(map(math.isnan, (*c.interval, c.headline_p, c.seed_sd, c.interaction_sd, c.standard_error, c.df, c.detectable)))
        assert (c.p, c.least_p) == (1, 1)
        assert 0 < c.bootstrap[0] < c.difference < c.bootstrap[1]
        assert c.image_sd > 0

    def test_one_image_says_nothing_of_others(self):
        c = contrast(counts(5, 1, key=1, accuracy=0.9), counts(5, 1, key=2))
        assert math.isnan(c.interval[0])
        assert c.verdict == "unresolved"
        assert c.p == c.least_p == 2 / 32
        assert c.seed_sd > 0

    def test_a_class_in_one_image_has_no_interval(self):
        matrix = matrices(key=1)
        matrix[:, 1:, 2, :] = 0
        matrix[:, 1:, :, 2] = 0
        c = contrast(Counts.from_matrices(matrix), Counts.from_matrices(matrix), score=2, resamples=100)
        assert c.difference == 0
        assert math.isnan(c.interval[0])
        assert c.bootstrap == (0, 0)

    def test_a_class_that_is_absent(self):
        empty = Counts.from_matrices(np.zeros((3, 4, 2, 2), np.int64))
        c = contrast(empty, empty, resamples=10, margin=0.1)
        assert math.isnan(c.difference)
        assert c.verdict == "unresolved"

    @pytest.mark.parametrize(
        ("arms", "options", "message"),
        [
            (((4, 7), (4, 8)), {}, "give both the same images and classes"),
            (((4, 7), (3, 7)), {}, "and the same seeds if they are paired"),
            (((4, 7), (4, 7)), {"margin": 0.0}, "margin 0.0: give the largest difference that does not matter"),
            (((4, 7), (4, 7)), {"margin": math.nan}, "margin nan"),
            (((4, 7), (4, 7)), {"score": "dice"}, "score 'dice': give 'miou', the index of a class from 0 to 2"),
            (((4, 7), (4, 7)), {"score": 3}, "score 3"),
        ],
    )
    def test_errors(self, arms, options, message):
        with pytest.raises(SegkitError, match=message):
            contrast(*(counts(*sizes) for sizes in arms), **options)


class TestVerdict:
    noise = np.array([-1, 0, 1, 0, 0.5, -0.5]) * 0.01

    def of(self, difference, **options):
        return contrast(flat(difference + self.noise), flat([0] * 6), resamples=0, **options)

    def test_alone(self):
        assert [self.of(d).verdict for d in (0.05, -0.05, 0.001)] == ["better", "worse", "unresolved"]

    def test_equivalent_is_inside_the_margin(self):
        c = self.of(0.001, margin=0.02)
        assert c.verdict == "equivalent"
        edge = max(abs(x) for x in c.interval)
        assert self.of(0.001, margin=1.001 * edge).verdict == "equivalent"
        assert self.of(0.001, margin=0.999 * edge).verdict == "unresolved"
        # 95 %, not the 90 % of two one-sided tests, which end here
        assert edge > abs(c.difference) + scipy_stats.t.ppf(0.95, 5) * c.standard_error

    def test_a_real_difference_may_be_too_small_to_matter(self):
        assert self.of(0.05, margin=0.1).verdict == "equivalent"
        assert self.of(0.05, margin=0.055).verdict == "better"
        assert self.of(0.05, margin=0.01).verdict == "better"
        assert self.of(0.05, margin=0.01).equivalence_p == 1

    def test_a_family_asks_for_more(self):
        baseline = flat([0] * 6)
        arms = {"baseline": baseline, "strong": flat(0.08 + self.noise), "weak": flat(0.0088 + self.noise)}
        arms |= {f"none {i}": flat(self.noise) for i in range(3)}
        found = family(arms, "baseline", 0.001, resamples=0)
        assert list(found) == ["strong", "weak", "none 0", "none 1", "none 2"]
        alone = contrast(arms["weak"], baseline, resamples=0, margin=0.001)
        assert alone.verdict == "better"
        weak = found["weak"]
        assert weak.interval == alone.interval  # of each by itself
        assert (weak.verdict, weak.comparisons, weak.headline_p_holm) == ("unresolved", 5, pytest.approx(4 * alone.headline_p))
        assert found["strong"].verdict == "better"
        assert found["strong"].headline_p_holm == pytest.approx(5 * found["strong"].headline_p)
        assert found["strong"].p_holm == pytest.approx(5 * 2 / 64)
        equivalent = family(arms, "baseline", 0.0125, resamples=0)["none 0"]
        assert equivalent.equivalence_p_holm >= equivalent.equivalence_p
        assert replace(adjust({"weak": weak})["weak"], bootstrap=()) == replace(alone, bootstrap=())

    def test_the_baseline_must_be_there(self):
        with pytest.raises(SegkitError, match="unknown baseline arm 'b'; choose from a"):
            family({"a": counts()}, "b")


class TestSentence:
    base = Contrast(
        difference=0.012,
        interval=(0.003, 0.021),
        df=4,
        standard_error=0.003,
        seed_sd=0,
        image_sd=0,
        interaction_sd=0,
        bootstrap=(0.004, 0.02),
        seeds=6,
        images=233,
        paired=True,
        differences=(),
        headline_p=0.01,
        headline_p_holm=0.01,
        p=0.03,
        p_holm=0.03,
        least_p=2 / 64,
        equivalence_p=math.nan,
        equivalence_p_holm=math.nan,
        improvement=1,
        detectable=0.0134,
        margin=None,
        comparisons=1,
        verdict="better",
    )

    def test_better(self):
        text = "a is better than b: +1.20 mIoU points (95 % interval +0.30 to +2.10 over 6 seeds and 233 images)."
        assert sentence("a", "b", self.base) == text

    def test_worse_by_another_unit_in_a_family(self):
        c = replace(self.base, difference=-0.012, interval=(-0.021, -0.003), verdict="worse", comparisons=7, headline_p_holm=0.0412)
        assert sentence("a", "b", c, unit="boundary IoU points") == (
            "a is worse than b: -1.20 boundary IoU points (95 % interval -2.10 to -0.30 over 6 seeds and 233 images, p = 0.041 after Holm "
            "over 7 comparisons); 6 seeds cannot reach p < .05 under Holm with 7 comparisons in the exact sign-flip test over the seeds, "
            "so that the verdict rests on normally distributed noise."
        )

    def test_too_few_seeds(self):
        c = replace(self.base, interval=(-0.01, 0.034), seeds=3, least_p=0.25, verdict="unresolved")
        assert sentence("a", "b", c) == (
            "whether a is better or worse than b is unresolved: +1.20 mIoU points (95 % interval -1.00 to +3.40 over 3 seeds and "
            "233 images); so many seeds and images detect 1.3 points with 80 % power; "
            "3 seeds cannot reach p < .05 in the exact sign-flip test over the seeds."
        )

    def test_an_interval_that_the_family_does_not_let_count(self):
        text = sentence("a", "b", replace(self.base, comparisons=3, headline_p_holm=0.07, seeds=9, least_p=2 / 512, verdict="unresolved"))
        assert "; the interval excludes zero, which 3 comparisons do not let count;" in text
        assert "cannot" not in text
        text = sentence("a", "b", replace(self.base, margin=0.03, comparisons=3, verdict="unresolved"))
        assert "; the interval lies inside the margin, which 3 comparisons do not let count;" in text

    def test_seeds_that_agree_too_well(self):
        told = "the seeds agree more than their noise on single images lets expect"
        c = replace(self.base, seed_sd=0.001, interaction_sd=0.031, images=900)  # which leaves 0.031 / 30 at least
        assert told in sentence("a", "b", c)
        assert told not in sentence("a", "b", replace(c, interaction_sd=0.029))
        assert told not in sentence("a", "b", replace(c, verdict="unresolved"))

    def test_what_is_real_by_itself_need_not_be_in_a_family(self):
        c = replace(self.base, margin=0.025, verdict="equivalent", comparisons=3, headline_p_holm=0.07)
        assert "the difference is real" not in sentence("a", "b", c)

    def test_equivalent(self):
        assert sentence("a", "b", replace(self.base, margin=0.025, verdict="equivalent")) == (
            "a and b are equivalent within 2.5 points: +1.20 mIoU points (95 % interval +0.30 to +2.10 over 6 seeds and 233 images); "
            "the difference is real, and too small to matter."
        )

    def test_one_seed(self):
        c = contrast(counts(1, key=1), counts(1, key=2), resamples=200)
        text = sentence("a", "b", c)
        assert "with one seed, and one seed ranks nothing; resampling the images alone gives" in text
        assert text.endswith("which ignores that training varies.")
        assert "nan" not in sentence("a", "b", replace(c, bootstrap=(math.nan, math.nan)))

    def test_nothing_to_say(self):
        nan = math.nan
        assert "no interval" in sentence("a", "b", replace(self.base, standard_error=nan, interval=(nan, nan), verdict="unresolved"))
        assert "nothing to compare" in sentence("a", "b", replace(self.base, difference=nan, verdict="unresolved"))
