//! How far runs of one experiment lie apart that differ only in their seed, and what that leaves of a difference between
//! two experiments.
//!
//! Welch's test (B. L. Welch, "The generalization of 'Student's' problem when several different population variances are
//! involved", Biometrika 1947), which does not take the sides' spreads for equal. It takes each side's seeds for
//! independent draws from a normal distribution, which nobody can check at three of them; so [`permutation_p`], which
//! takes nothing of the kind, is given beside it where it can say anything at all.

use serde::{Deserialize, Serialize};

/// What the test is, to be printed beside it.
pub const DEFINITION: &str = "over seeds: Welch's t test of the sides' mean mAP, each seed one observation, 95 % interval; p adjusted \
     for the number of pairs compared (Holm). permutation_p: exact, two-sided, of the difference of means; at 3 seeds a side \
     it cannot fall below 0.1";

/// The figures of one side.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// How many seeds.
    pub seeds: u32,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation (n − 1 in the denominator); `None` of a single one.
    pub deviation: Option<f64>,
    /// The lowest.
    pub low: f64,
    /// The highest.
    pub high: f64,
}

/// The spread of some figures; `None` of none.
#[must_use]
pub fn spread(figures: &[f64]) -> Option<Spread> {
    let n = figures.len() as f64;
    let mean = crate::average_precision::mean(figures.iter().copied())?;
    let squares: f64 = figures.iter().map(|figure| (figure - mean).powi(2)).sum();
    Some(Spread {
        seeds: u32::try_from(figures.len()).unwrap_or(u32::MAX),
        mean,
        deviation: (figures.len() > 1).then(|| (squares / (n - 1.0)).sqrt()),
        low: figures.iter().copied().fold(f64::INFINITY, f64::min),
        high: figures.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    })
}

/// Welch's test of two sides.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Welch {
    /// The first side's mean less the second's.
    pub difference: f64,
    /// Its standard error.
    pub error: f64,
    /// Degrees of freedom (Welch and Satterthwaite).
    pub freedom: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end of it.
    pub high: f64,
    /// Two-sided.
    pub p: f64,
    /// The true difference that would be found with a chance of 80 % if the true spread were this one, see [`detectable`].
    pub detectable: f64,
}

/// Tests two sides; `None` unless both have two seeds and there is any spread.
#[must_use]
pub fn welch(a: &Spread, b: &Spread) -> Option<Welch> {
    let variance = |side: &Spread| Some(side.deviation?.powi(2) / f64::from(side.seeds));
    let (of_a, of_b) = (variance(a)?, variance(b)?);
    let error = (of_a + of_b).sqrt();
    // Rounding alone makes figures that are equal differ by this much.
    if error.is_nan() || error < 1e-12 {
        return None;
    }
    let one = |variance: f64, side: &Spread| variance.powi(2) / f64::from(side.seeds - 1);
    let freedom = (of_a + of_b).powi(2) / (one(of_a, a) + one(of_b, b));
    let difference = a.mean - b.mean;
    let reach = t_quantile(0.975, freedom) * error;
    Some(Welch {
        difference,
        error,
        freedom,
        low: difference - reach,
        high: difference + reach,
        p: 2.0 * t_upper_tail((difference / error).abs(), freedom),
        detectable: detectable(error, freedom, 1),
    })
}

/// The true difference that a test at 5 %, divided by the number of `pairs` that are tested together (the first step of
/// Holm's, so that it holds for every pair), finds with a chance of 80 %: by the noncentral t distribution, in which the
/// observed error is off by chance too.
#[must_use]
pub fn detectable(error: f64, freedom: f64, pairs: usize) -> f64 {
    let critical = t_quantile(1.0 - 0.025 / pairs.max(1) as f64, freedom);
    turning_point(|shift| power(shift, critical, freedom) < 0.8) * error
}

/// The chance that (Z + shift) / S is above `critical`, where Z is standard normal and S² is chi-squared over its `freedom`
/// (at least 1): the upper tail of the noncentral t distribution, by the midpoint rule over S.
fn power(shift: f64, critical: f64, freedom: f64) -> f64 {
    const STEPS: u32 = 4000;
    // Beyond it S is practically never, for one degree of freedom as for many.
    let width = 10.0 / f64::from(STEPS);
    let half = freedom / 2.0;
    let constant = std::f64::consts::LN_2 + half * half.ln() - ln_gamma(half);
    let at = |step: u32| {
        let s = (f64::from(step) + 0.5) * width;
        let density = (constant + (freedom - 1.0) * s.ln() - half * s * s).exp();
        density * normal(shift - critical * s)
    };
    (0..STEPS).map(at).sum::<f64>() * width
}

/// The chance that a standard normal value is below `z`, to 1e-7 (M. Abramowitz and I. Stegun, "Handbook of Mathematical
/// Functions", 26.2.17).
fn normal(z: f64) -> f64 {
    const COEFFICIENTS: [f64; 5] = [
        0.319_381_530,
        -0.356_563_782,
        1.781_477_937,
        -1.821_255_978,
        1.330_274_429,
    ];
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let series = COEFFICIENTS.iter().rev().fold(0.0, |sum, c| (sum + c) * t);
    let tail = series * (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if z < 0.0 { tail } else { 1.0 - tail }
}

/// The exact two-sided permutation test of the difference of means; `None` with fewer than two a side or more than 20 in
/// all, where there are too many ways to share them out.
#[must_use]
pub fn permutation_p(a: &[f64], b: &[f64]) -> Option<f64> {
    let all: Vec<f64> = a.iter().chain(b).copied().collect();
    if a.len() < 2 || b.len() < 2 || all.len() > 20 {
        return None;
    }
    let total: f64 = all.iter().sum();
    let difference = |sum: f64| (sum / a.len() as f64 - (total - sum) / b.len() as f64).abs();
    let seen = difference(a.iter().sum());
    let (mut ways, mut as_far) = (0u32, 0u32);
    for chosen in 0u32..1 << all.len() {
        if chosen.count_ones() as usize == a.len() {
            let members = (0..all.len()).filter(|at| chosen >> at & 1 == 1);
            let sum: f64 = members.map(|at| all[at]).sum();
            ways += 1;
            as_far += u32::from(difference(sum) >= seen * (1.0 - 1e-12));
        }
    }
    Some(f64::from(as_far) / f64::from(ways))
}

/// p values adjusted for being several (S. Holm, "A simple sequentially rejective multiple test procedure", 1979).
#[must_use]
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut adjusted = vec![0.0; p.len()];
    let mut highest = 0.0f64;
    for (place, &at) in order.iter().enumerate() {
        highest = highest.max(((p.len() - place) as f64 * p[at]).min(1.0));
        adjusted[at] = highest;
    }
    adjusted
}

/// The chance that Student's t with `freedom` degrees is above `t`, for `t` from 0 on.
fn t_upper_tail(t: f64, freedom: f64) -> f64 {
    0.5 * incomplete_beta(freedom / (freedom + t * t), freedom / 2.0, 0.5)
}

/// The t below which a fraction of at least one half lies.
fn t_quantile(fraction: f64, freedom: f64) -> f64 {
    turning_point(|t| t_upper_tail(t, freedom) > 1.0 - fraction)
}

/// From 0 on, where `below` turns from true to false: by bisection, to the last bit.
fn turning_point(below: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while below(high) && high < 1e9 {
        high *= 2.0;
    }
    loop {
        let middle = (low + high) / 2.0;
        // No number is left between the two.
        if middle <= low || middle >= high {
            return middle;
        }
        if below(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
}

/// The regularised incomplete beta function by Lentz's continued fraction (W. H. Press et al., "Numerical Recipes",
/// section 6.4).
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return if x <= 0.0 { 0.0 } else { 1.0 };
    }
    let front =
        (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln()).exp();
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - front * beta_fraction(1.0 - x, b, a) / b;
    }
    front * beta_fraction(x, a, b) / a
}

fn beta_fraction(x: f64, a: f64, b: f64) -> f64 {
    let away_from_zero = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for m in 1..1000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for term in [even, odd] {
            d = 1.0 / away_from_zero(1.0 + term * d);
            c = away_from_zero(1.0 + term / c);
            change = c * d;
            fraction *= change;
        }
        if (change - 1.0).abs() < 1e-16 {
            break;
        }
    }
    fraction
}

/// The logarithm of the gamma function for arguments above 0 (C. Lanczos, 1964; g = 7, nine coefficients).
fn ln_gamma(x: f64) -> f64 {
    const COEFFICIENTS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let series = COEFFICIENTS
        .iter()
        .zip(1u8..)
        .fold(0.999_999_999_999_809_9, |sum, (coefficient, k)| {
            sum + coefficient / (x + f64::from(k))
        });
    let t = x + 7.5;
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * t.ln() - t + series.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() <= 1e-9 * expected.abs().max(1.0),
            "{found}, expected {expected}"
        );
    }

    #[test]
    fn quantiles_of_t_are_those_of_the_tables() {
        close(t_quantile(0.975, 4.0), 2.776_445_105_197_793);
        close(t_quantile(0.975, 1.0), 12.706_204_736_174_7);
        close(t_quantile(0.8, 2.5), 1.010_163_874_722_238);
    }

    #[test]
    fn what_would_be_found_is_what_scipys_noncentral_t_says() {
        // brentq(lambda d: 1 - nct.cdf(t.ppf(1 - 0.025 / pairs, freedom), freedom, d) - 0.8, 0.01, 60)
        for (freedom, pairs, expected) in [
            (4.0, 1, 3.761_060_261),
            (2.5, 1, 4.741_038_069),
            (4.0, 3, 5.124_283_403),
            (18.0, 1, 2.962_675_797),
        ] {
            let found = detectable(0.5, freedom, pairs);
            assert!((found - 0.5 * expected).abs() < 1e-4, "{found} {expected}");
        }
    }

    #[test]
    fn a_side_of_one_seed_has_no_spread_and_no_test() {
        let one = spread(&[0.8]).unwrap();
        assert_eq!((one.deviation, one.seeds), (None, 1));
        assert_eq!(welch(&one, &spread(&[0.7, 0.75]).unwrap()), None);
        let alike = spread(&[0.5, 0.5]).unwrap();
        assert_eq!(welch(&alike, &alike), None);
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn three_seeds_a_side_can_never_be_told_apart_by_permutation_below_a_tenth() {
        assert_eq!(
            permutation_p(&[0.9, 0.91, 0.92], &[0.1, 0.11, 0.12]),
            Some(0.1)
        );
        let p = permutation_p(&[0.9, 0.91, 0.92, 0.93], &[0.1, 0.11, 0.12, 0.13]).unwrap();
        close(p, 2.0 / 70.0);
        assert_eq!(permutation_p(&[0.5, 0.5], &[0.5, 0.5]), Some(1.0));
        assert_eq!(permutation_p(&[0.5], &[0.5, 0.6]), None);
    }

    #[test]
    fn holm_multiplies_the_lowest_most_and_never_reorders() {
        assert_eq!(holm(&[0.04, 0.01, 0.03]), [0.06, 0.03, 0.06]);
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
        assert_eq!(holm(&[]), [0.0; 0]);
    }
}
