//! Numbers as people read them.

use std::time::Duration;

pub use domain::numbers::{count, grouped};

/// `0.6123` as `61.23 %`; nothing as `undefined`.
#[must_use]
pub fn percent(fraction: Option<f64>) -> String {
    fraction.map_or_else(
        || "undefined".into(),
        |fraction| format!("{:.2} %", 100.0 * fraction),
    )
}

/// A loss or a rate: as it is, or, where that would be a row of noughts, with an exponent.
#[must_use]
pub fn real(number: f64, decimals: usize) -> String {
    if number.is_finite() && number.abs() >= 1e6 {
        format!("{number:.decimals$e}")
    } else {
        format!("{number:.decimals$}")
    }
}

/// A number as it was given, with an exponent where it would be long.
#[must_use]
pub fn short(number: f64) -> String {
    if number != 0.0 && !(1e-6..1e6).contains(&number.abs()) {
        format!("{number:e}")
    } else {
        number.to_string()
    }
}

/// `58.2 MB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    match bytes as f64 {
        small if small < 1e6 => format!("{:.1} kB", small / 1e3),
        medium if medium < 1e9 => format!("{:.1} MB", medium / 1e6),
        large => format!("{:.1} GB", large / 1e9),
    }
}

/// `2.4 s`, `2 min 32 s`, `3 h 05 min`.
#[must_use]
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// How long something was waited for: `5 s`, `1.5 s`.
#[must_use]
pub fn patience(waited: Duration) -> String {
    let millis = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
    domain::run::Millis(millis).to_string()
}

/// Images per second: one decimal only where it says something.
#[must_use]
pub fn speed(images_per_second: f64) -> String {
    if images_per_second < 20.0 {
        format!("{images_per_second:.1} img/s")
    } else {
        format!("{} img/s", grouped(images_per_second.round() as u64))
    }
}

/// What helps a run that waits for pictures. Without decoding threads nothing is decoded ahead.
pub(crate) const MORE_PICTURES: &str = "keep decoded pictures with data.cache if they are not yet, or, where \
     processors are left, raise data.loader_threads (with any, data.prefetch helps too)";

/// What a run that waits for pictures is told: nothing up to a twentieth of its steps' time.
#[must_use]
pub fn input_bound(data_wait: f64) -> Option<String> {
    (data_wait > 0.05).then(|| {
        format!(
            "input-bound: {:.1} % of step time is spent waiting for pictures; {MORE_PICTURES}",
            100.0 * data_wait
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well_at_every_size() {
        assert_eq!(
            [0.04, 59.96, 60.0, 152.0, 11_100.0]
                .map(|seconds| duration(Duration::from_secs_f64(seconds))),
            ["0.0 s", "60.0 s", "1 min 00 s", "2 min 32 s", "3 h 05 min"]
        );
        assert_eq!(
            [800, 58_200_000, 7_000_000_000].map(bytes),
            ["0.8 kB", "58.2 MB", "7.0 GB"]
        );
        assert_eq!(
            [3.21, 431.4, 12_000.0].map(speed),
            ["3.2 img/s", "431 img/s", "12,000 img/s"]
        );
        assert_eq!(
            [5000, 1500].map(|millis| patience(Duration::from_millis(millis))),
            ["5 s", "1.5 s"]
        );
        assert_eq!(percent(Some(0.61234)), "61.23 %");
        assert_eq!(percent(None), "undefined");
    }
}
