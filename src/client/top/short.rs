//! Numbers in as few characters as a narrow terminal has room for. No I/O.

/// Formats bytes in at most five characters, such as `1.5K` or `1023M`.
pub(super) fn bytes(bytes: f64) -> String {
    const UNITS: [&str; 6] = ["", "K", "M", "G", "T", "P"];
    let (mut rest, mut unit) = (bytes, 0);
    // What rounds to 1024 is 1 of the next unit.
    while rest >= 1023.5 && unit < UNITS.len() - 1 {
        rest /= 1024.0;
        unit += 1;
    }
    match unit > 0 && rest < 9.95 {
        true => format!("{rest:.1}{}", UNITS[unit]),
        false => format!("{rest:.0}{}", UNITS[unit]),
    }
}

/// Formats an age in at most six characters, such as `3m05s`.
pub(super) fn age(seconds: f64) -> String {
    let s = seconds as u64;
    let (m, h, d) = (s / 60, s / 3600, s / 86_400);
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{m}m{:02}s", s % 60),
        3600..86_400 => format!("{h}h{:02}m", m % 60),
        _ if d < 100 => format!("{d}d{:02}h", h % 24),
        _ => format!("{d}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_five_characters_at_most() {
        let numbers = [
            0.0, 7.4, 1023.0, 1023.6, 1536.0, 10_188.0, 10_189.0, 1048524.0, 5e9, 1e18,
        ];
        let shown = numbers.map(bytes);
        let expected = [
            "0", "7", "1023", "1.0K", "1.5K", "9.9K", "10K", "1.0M", "4.7G", "888P",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn ages_have_two_units() {
        let shown = [0.9, 59.9, 60.0, 3599.0, 3600.0, 90_061.0, 1e7].map(age);
        assert_eq!(
            shown,
            ["0s", "59s", "1m00s", "59m59s", "1h00m", "1d01h", "115d"]
        );
    }
}
