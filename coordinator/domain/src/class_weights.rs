//! The weights of loss deepmar: made once, by the coordinator, so that all replicas compute with the same bits.

/// The weight of each class where it is shown and where it is not, `[classes]` each: `exp(1 - p)` and `exp(p)`, p being
/// the share of the samples that show it (Li, Chen, Huang 2015, "Multi-attribute learning for pedestrian attribute
/// recognition in surveillance scenarios", equation 3, with σ = 1).
#[must_use]
pub fn deepmar(support: &[u32], samples: u32) -> (Vec<f64>, Vec<f64>) {
    let shares = support
        .iter()
        .map(|shown| f64::from(*shown) / f64::from(samples.max(1)));
    shares.map(|p| ((1.0 - p).exp(), p.exp())).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rare_class_weighs_more_where_it_is_shown() {
        let (positive, negative) = deepmar(&[0, 25, 100], 100);
        let e = std::f64::consts::E;
        assert_eq!((positive[0], negative[0]), (1.0f64.exp(), 1.0));
        assert!((positive[1] - 0.75f64.exp()).abs() < 1e-15);
        assert!((negative[1] - 0.25f64.exp()).abs() < 1e-15);
        assert_eq!(positive[2], 1.0);
        assert!((negative[2] - e).abs() < 1e-15);
    }
}
