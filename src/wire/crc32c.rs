//! The checksum CRC-32C (RFC 3720, appendix B.4).

/// The polynomial 0x1EDC6F41, with its bits reversed.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// Returns the checksum of `bytes`.
///
/// Bit by bit, because a table would be larger than everything that is ever summed here.
pub(super) fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(byte);
        for _ in 0..8 {
            let is_odd = sum & 1 == 1;
            sum >>= 1;
            if is_odd {
                sum ^= POLYNOMIAL;
            }
        }
    }
    !sum
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn sums_are_those_of_the_specification() {
        // RFC 3720, appendix B.4, and the usual check value.
        assert_eq!(crc32c(std::iter::repeat_n(0, 32)), 0x8A91_36AA);
        assert_eq!(crc32c(std::iter::repeat_n(0xff, 32)), 0x62A8_AB43);
        assert_eq!(crc32c(0..32), 0x46DD_794E);
        assert_eq!(crc32c("123456789".bytes()), 0xE306_9283);
    }
}
