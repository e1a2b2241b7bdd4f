//! Which classes each sample shows: a bit matrix, 12 bytes a sample at COCO's 80 classes.

/// A label outside the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "label (sample {sample}, class {class}) is outside a matrix of {samples} samples and {classes} classes: \
     check that scores and annotations are of the same split and class list"
)]
pub struct NoSuchLabel {
    sample: u32,
    class: u32,
    samples: u32,
    classes: u32,
}

/// Multi-label targets `[samples, classes]`, one bit each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    samples: u32,
    classes: u32,
    words_per_sample: usize,
    /// `[samples, words_per_sample]`; class `c` is bit `c % 64` of word `c / 64`.
    bits: Vec<u64>,
}

impl Labels {
    /// A matrix without any label.
    #[must_use]
    pub fn new(samples: u32, classes: u32) -> Self {
        let words_per_sample = classes.div_ceil(64) as usize;
        Self {
            samples,
            classes,
            words_per_sample,
            bits: vec![0; samples as usize * words_per_sample],
        }
    }

    /// A matrix from each sample's list of classes, in any order, repeated or not.
    ///
    /// # Errors
    /// [`NoSuchLabel`] for a class at or above `classes`.
    pub fn from_lists<L>(classes: u32, lists: &[L]) -> Result<Self, NoSuchLabel>
    where
        L: AsRef<[u32]>,
    {
        // A split is counted in u32 everywhere; a longer list cannot come from an annotation file.
        let samples = u32::try_from(lists.len()).unwrap_or(u32::MAX);
        let mut labels = Self::new(samples, classes);
        for (sample, list) in (0..samples).zip(lists) {
            for &class in list.as_ref() {
                labels.insert(sample, class)?;
            }
        }
        Ok(labels)
    }

    /// Marks that `sample` shows `class`.
    ///
    /// # Errors
    /// [`NoSuchLabel`] outside the matrix.
    pub fn insert(&mut self, sample: u32, class: u32) -> Result<(), NoSuchLabel> {
        if sample >= self.samples || class >= self.classes {
            return Err(NoSuchLabel {
                sample,
                class,
                samples: self.samples,
                classes: self.classes,
            });
        }
        let word = sample as usize * self.words_per_sample + class as usize / 64;
        self.bits[word] |= 1 << (class % 64);
        Ok(())
    }

    /// Whether `sample` shows `class`; never outside the matrix.
    #[must_use]
    pub fn contains(&self, sample: u32, class: u32) -> bool {
        class < self.classes
            && self
                .row(sample)
                .get(class as usize / 64)
                .is_some_and(|word| word >> (class % 64) & 1 == 1)
    }

    /// The classes of one sample, ascending.
    pub fn of(&self, sample: u32) -> impl Iterator<Item = u32> {
        (0u32..)
            .step_by(64)
            .zip(self.row(sample))
            .flat_map(|(base, &word)| {
                std::iter::successors((word != 0).then_some(word), |word| {
                    let rest = word & (word - 1);
                    (rest != 0).then_some(rest)
                })
                .map(move |word| base + word.trailing_zeros())
            })
    }

    /// How many samples.
    #[must_use]
    pub fn samples(&self) -> u32 {
        self.samples
    }

    /// How many classes.
    #[must_use]
    pub fn classes(&self) -> u32 {
        self.classes
    }

    /// How many samples show each class: `[classes]`.
    #[must_use]
    pub fn support(&self) -> Vec<u32> {
        // At most `samples` each, which is a u32.
        self.by_class()
            .iter()
            .map(|samples| samples.len() as u32)
            .collect()
    }

    /// The samples that show each class, ascending: `[classes]` lists.
    pub(crate) fn by_class(&self) -> Vec<Vec<u32>> {
        let mut by_class = vec![Vec::new(); self.classes as usize];
        for sample in 0..self.samples {
            for class in self.of(sample) {
                by_class[class as usize].push(sample);
            }
        }
        by_class
    }

    /// The matrix of some of the samples, in the order given.
    ///
    /// # Errors
    /// [`NoSuchLabel`] for a sample outside the matrix.
    pub fn select(&self, samples: &[u32]) -> Result<Self, NoSuchLabel> {
        let mut selected = Self::new(0, self.classes);
        for &sample in samples {
            if sample >= self.samples {
                let (samples, classes) = (self.samples, self.classes);
                return Err(NoSuchLabel {
                    sample,
                    class: 0,
                    samples,
                    classes,
                });
            }
            selected.bits.extend_from_slice(self.row(sample));
            selected.samples += 1;
        }
        Ok(selected)
    }

    /// Several matrices of the same classes below each other.
    #[must_use]
    pub fn stack(classes: u32, parts: &[&Self]) -> Self {
        let mut all = Self::new(0, classes);
        for part in parts.iter().filter(|part| part.classes == classes) {
            all.bits.extend_from_slice(&part.bits);
            all.samples += part.samples;
        }
        all
    }

    /// The words of one sample; none for a sample outside the matrix.
    fn row(&self, sample: u32) -> &[u64] {
        let start = sample as usize * self.words_per_sample;
        self.bits
            .get(start..start + self.words_per_sample)
            .unwrap_or(&[])
    }
}
