//! Long curves made short enough to be drawn, and how: stated beside every curve.

/// Points of a drawn curve, at most: more than there are columns of pixels says nothing more.
pub(super) const POINTS: usize = 300;

/// Consecutive points as one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bin {
    /// Mean of the points' places.
    pub(super) x: f64,
    /// Mean.
    pub(super) mean: f64,
    /// Least.
    pub(super) low: f64,
    /// Greatest.
    pub(super) high: f64,
}

/// Puts equally many consecutive points into each of at most `limit` bins; the last may hold fewer. Up to `limit`
/// points are a bin each. What is not finite is left out.
pub(super) fn bins(points: impl IntoIterator<Item = (f64, f64)>, limit: usize) -> Vec<Bin> {
    let finite = |(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
    let points: Vec<_> = points.into_iter().filter(finite).collect();
    let size = points.len().div_ceil(limit.max(1)).max(1);
    points.chunks(size).map(bin).collect()
}

/// Of at least one point.
fn bin(points: &[(f64, f64)]) -> Bin {
    let count = points.len().max(1) as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let values = || points.iter().map(|point| point.1);
    Bin {
        x: mean(|point| point.0),
        mean: mean(|point| point.1),
        low: values().fold(f64::INFINITY, f64::min),
        high: values().fold(f64::NEG_INFINITY, f64::max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_points_stay_and_many_keep_their_mean_and_their_extremes() {
        let few = bins((0..5).map(|i| (f64::from(i), 2.0)), 5);
        assert_eq!(few.len(), 5);
        assert_eq!(few[4].x, 4.0);

        let spike = |i: u32| if i == 777 { 50.0 } else { 1.0 };
        let many = bins((0..1000).map(|i| (f64::from(i), spike(i))), 300);
        assert!(many.len() <= 300, "{}", many.len());
        assert!(many.is_sorted_by(|a, b| a.x < b.x));
        assert_eq!(many.iter().map(|bin| bin.high).fold(0.0, f64::max), 50.0);
        assert_eq!(many.iter().filter(|bin| bin.high > 1.0).count(), 1);
    }

    #[test]
    fn what_is_no_number_is_left_out() {
        assert_eq!(bins([(0.0, f64::NAN), (f64::INFINITY, 1.0)], 10), []);
    }
}
