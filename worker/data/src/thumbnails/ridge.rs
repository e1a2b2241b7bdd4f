//! Ridge regression of labels on thumbnails, in closed form: one Cholesky factor serves all classes.

/// Values of a thumbnail: 8 × 8 pixels of three bytes.
pub(super) const FEATURES: usize = 8 * 8 * 3;

/// Penalties per sample to choose from, a factor of ten apart: from hardly any to more than the features vary.
const PENALTIES: [f64; 5] = [1e-3, 1e-2, 1e-1, 1.0, 10.0];

type Row = [f64; FEATURES];

/// A linear function for each class.
pub(super) struct Ridge {
    standard: Standard,
    /// `[FEATURES, C]`.
    weights: Vec<f64>,
    /// `[C]`: the shares of the training pictures that show the class.
    shares: Vec<f64>,
    pub(super) penalty: f64,
}

impl Ridge {
    /// Fits `pixels` `[n, FEATURES]` to `labels` `[n, classes]`; `None` if n is 0.
    pub(super) fn fit(pixels: &[u8], labels: &[f32], classes: usize) -> Option<Self> {
        let thumbnails = pixels.as_chunks::<FEATURES>().0;
        if thumbnails.is_empty() {
            return None;
        }
        let n = thumbnails.len() as f64;
        let standard = Standard::of(thumbnails);
        let mut shares = vec![0.0; classes];
        // XᵀX, its lower half, and XᵀY. The features have mean 0, so that labels need no centring here.
        let mut products = vec![0.0; FEATURES * FEATURES];
        let mut right = vec![0.0; FEATURES * classes];
        for (thumbnail, label) in thumbnails.iter().zip(labels.chunks(classes.max(1))) {
            let x = standard.apply(thumbnail);
            for (i, row) in products.chunks_mut(FEATURES).enumerate() {
                add_scaled(&mut row[..=i], &x[..=i], x[i]);
            }
            for (class, _) in label.iter().enumerate().filter(|&(_, &y)| y > 0.5) {
                shares[class] += 1.0 / n;
                for (i, value) in x.iter().enumerate() {
                    right[i * classes + class] += value;
                }
            }
        }

        let candidates = PENALTIES.map(|penalty| {
            let factor = Cholesky::of(&products, penalty * n);
            let mut weights = right.clone();
            factor.solve(&mut weights, classes);
            let model = Self {
                standard: standard.clone(),
                weights,
                shares: shares.clone(),
                penalty,
            };
            (model.leave_one_out(&factor, thumbnails, labels), model)
        });
        candidates
            .into_iter()
            .min_by(|(a, _), (b, _)| a.total_cmp(b))
            .map(|(_, model)| model)
    }

    /// Writes the scores of a thumbnail, one per class.
    pub(super) fn score(&self, thumbnail: &[u8; FEATURES], scores: &mut [f32]) {
        let values = self.values(&self.standard.apply(thumbnail));
        for (score, value) in scores.iter_mut().zip(values) {
            *score = value as f32;
        }
    }

    fn values(&self, x: &Row) -> Vec<f64> {
        let mut values = self.shares.clone();
        for (weights, &value) in self.weights.chunks(self.shares.len().max(1)).zip(x) {
            add_scaled(&mut values, weights, value);
        }
        values
    }

    /// Sum of the squared errors that each picture would have if it had been left out, without fitting again: the
    /// residual over one minus the leverage (Allen 1974, <https://doi.org/10.1080/00401706.1974.10489157>).
    fn leave_one_out(
        &self,
        factor: &Cholesky,
        thumbnails: &[[u8; FEATURES]],
        labels: &[f32],
    ) -> f64 {
        let share = 1.0 / thumbnails.len() as f64;
        let classes = self.shares.len().max(1);
        let errors = thumbnails
            .iter()
            .zip(labels.chunks(classes))
            .map(|(thumbnail, label)| {
                let x = self.standard.apply(thumbnail);
                // A leverage of 1 is a picture that only itself explains.
                let rest = (1.0 - share - factor.leverage(&x)).max(1e-9);
                let residuals = self.values(&x).into_iter().zip(label);
                let squares: f64 = residuals.map(|(v, &y)| (f64::from(y) - v).powi(2)).sum();
                squares / (rest * rest)
            });
        errors.sum()
    }
}

/// Brings each feature to mean 0 and variance 1 over the training pictures; one that never changes becomes 0.
#[derive(Clone)]
struct Standard {
    mean: Row,
    scale: Row,
}

impl Standard {
    fn of(thumbnails: &[[u8; FEATURES]]) -> Self {
        let n = thumbnails.len() as f64;
        // Sums of bytes and their squares are exact.
        let mut sums = [(0u64, 0u64); FEATURES];
        for thumbnail in thumbnails {
            for ((sum, squares), &byte) in sums.iter_mut().zip(thumbnail) {
                *sum += u64::from(byte);
                *squares += u64::from(byte) * u64::from(byte);
            }
        }
        let mean = sums.map(|(sum, _)| sum as f64 / n);
        let scale = sums.map(|(sum, squares)| {
            let variance = squares as f64 / n - (sum as f64 / n).powi(2);
            if variance > 1e-6 {
                variance.sqrt().recip()
            } else {
                0.0
            }
        });
        Self { mean, scale }
    }

    fn apply(&self, thumbnail: &[u8; FEATURES]) -> Row {
        std::array::from_fn(|i| (f64::from(thumbnail[i]) - self.mean[i]) * self.scale[i])
    }
}

/// `target += scale * source`.
fn add_scaled(target: &mut [f64], source: &[f64], scale: f64) {
    for (t, s) in target.iter_mut().zip(source) {
        *t += scale * s;
    }
}

/// L of LLᵀ = XᵀX + penalty·I, its lower half, `[FEATURES, FEATURES]`.
struct Cholesky(Vec<f64>);

impl Cholesky {
    /// Of a lower half; `penalty` > 0 makes the matrix positive definite.
    fn of(products: &[f64], penalty: f64) -> Self {
        let mut l = products.to_vec();
        for i in 0..FEATURES {
            let (above, rest) = l.split_at_mut(i * FEATURES);
            let row = &mut rest[..FEATURES];
            row[i] += penalty;
            for (j, other) in above.chunks(FEATURES).enumerate() {
                row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
            }
            row[i] = (row[i] - dot(&row[..i], &row[..i])).sqrt();
        }
        Self(l)
    }

    /// Solves for all `columns` of `right` `[FEATURES, columns]` in place.
    fn solve(&self, right: &mut [f64], columns: usize) {
        if columns == 0 {
            return;
        }
        for i in 0..FEATURES {
            let (above, rest) = right.split_at_mut(i * columns);
            let row = &mut rest[..columns];
            for (j, other) in above.chunks(columns).enumerate() {
                add_scaled(row, other, -self.at(i, j));
            }
            row.iter_mut().for_each(|value| *value /= self.at(i, i));
        }
        for i in (0..FEATURES).rev() {
            let (upper, below) = right.split_at_mut((i + 1) * columns);
            let row = &mut upper[i * columns..];
            for (j, other) in (i + 1..).zip(below.chunks(columns)) {
                add_scaled(row, other, -self.at(j, i));
            }
            row.iter_mut().for_each(|value| *value /= self.at(i, i));
        }
    }

    /// xᵀ(LLᵀ)⁻¹x.
    fn leverage(&self, x: &Row) -> f64 {
        let mut solved = *x;
        for (i, row) in self.0.chunks(FEATURES).enumerate() {
            solved[i] = (solved[i] - dot(&row[..i], &solved[..i])) / row[i];
        }
        dot(&solved, &solved)
    }

    fn at(&self, row: usize, column: usize) -> f64 {
        self.0[row * FEATURES + column]
    }
}

/// In eight partial sums: one sum alone waits for itself at every step.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a8, a_rest), (b8, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a8.iter().zip(b8) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pictures whose first bytes tell the one class, and noise.
    fn drawn(n: usize) -> (Vec<u8>, Vec<f32>) {
        let mut state = 1_u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        };
        let pixels: Vec<u8> = (0..n * FEATURES).map(|_| next()).collect();
        let labels = pixels
            .chunks(FEATURES)
            .map(|p| f32::from(p[0] > p[1]))
            .collect();
        (pixels, labels)
    }

    #[test]
    fn the_weights_solve_the_normal_equations() {
        // given
        let (pixels, labels) = drawn(400);
        // when
        let ridge = Ridge::fit(&pixels, &labels, 1).unwrap();
        // then Xᵀ(y - Xw) = penalty·n·w
        let mut left = [0.0; FEATURES];
        for (thumbnail, &y) in pixels.as_chunks().0.iter().zip(&labels) {
            let x = ridge.standard.apply(thumbnail);
            let residual = f64::from(y) - ridge.values(&x)[0];
            add_scaled(&mut left, &x, residual);
        }
        for (left, w) in left.iter().zip(&ridge.weights) {
            let right = ridge.penalty * 400.0 * w;
            assert!((left - right).abs() < 1e-8, "{left} against {right}");
        }
    }

    #[test]
    fn the_shortcut_for_leaving_one_out_is_what_fitting_without_it_gives() {
        // given many more pictures than the mean and variance notice one of
        let (pixels, labels) = drawn(250);
        let ridge = Ridge::fit(&pixels, &labels, 1).unwrap();
        let (standard, penalty) = (&ridge.standard, ridge.penalty * 250.0);
        let rows: Vec<Row> = pixels
            .as_chunks()
            .0
            .iter()
            .map(|t| standard.apply(t))
            .collect();
        let mut products = vec![0.0; FEATURES * FEATURES];
        let add = |products: &mut Vec<f64>, x: &Row, sign: f64| {
            for (i, row) in products.chunks_mut(FEATURES).enumerate() {
                add_scaled(row, x, sign * x[i]);
            }
        };
        rows.iter().for_each(|x| add(&mut products, x, 1.0));
        let shortcut = Cholesky::of(&products, penalty);
        // when the first is left out, without an intercept
        add(&mut products, &rows[0], -1.0);
        let mut weights = vec![0.0; FEATURES];
        for (x, &y) in rows.iter().zip(&labels).skip(1) {
            add_scaled(&mut weights, x, f64::from(y));
        }
        let y = f64::from(labels[0]);
        let mut all = weights.clone();
        add_scaled(&mut all, &rows[0], y);
        Cholesky::of(&products, penalty).solve(&mut weights, 1);
        shortcut.solve(&mut all, 1);
        // then
        let left_out = y - dot(&weights, &rows[0]);
        let by_leverage = (y - dot(&all, &rows[0])) / (1.0 - shortcut.leverage(&rows[0]));
        assert!(
            (left_out - by_leverage).abs() < 1e-9,
            "{left_out} against {by_leverage}"
        );
    }

    #[test]
    fn what_the_pixels_tell_is_learned_and_one_picture_alone_is_no_trouble() {
        let (pixels, labels) = drawn(2000);
        let ridge = Ridge::fit(&pixels[..1500 * FEATURES], &labels[..1500], 1).unwrap();
        let thumbnails = pixels.as_chunks::<FEATURES>().0;
        let right = thumbnails[1500..]
            .iter()
            .zip(&labels[1500..])
            .filter(|(t, y)| {
                let mut score = [0.0];
                ridge.score(t, &mut score);
                (score[0] > 0.5) == (**y > 0.5)
            });
        let right = right.count();
        assert!(right > 420, "{right} of 500");

        let alone = Ridge::fit(&pixels[..FEATURES], &[1.0, 0.0], 2).unwrap();
        let mut scores = [f32::NAN; 2];
        alone.score(&thumbnails[7], &mut scores);
        assert_eq!(scores, [1.0, 0.0]);
        assert!(Ridge::fit(&[], &[], 2).is_none());
    }
}
