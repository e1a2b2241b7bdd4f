//! Numbers as people read them, alike in every sentence, table and page.

/// `82783` as `82,783`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with its noun: `1 class`, `1,200 classes`.
#[must_use]
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!(
        "{} {}",
        grouped(number),
        if number == 1 { one } else { many }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_told_apart_at_every_size() {
        assert_eq!(
            [0, 999, 1000, 82_783, 1_234_567].map(grouped),
            ["0", "999", "1,000", "82,783", "1,234,567"]
        );
        assert_eq!(
            [1, 1200].map(|number| count(number, "step", "steps")),
            ["1 step", "1,200 steps"]
        );
    }
}
