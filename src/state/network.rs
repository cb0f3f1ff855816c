//! A range of IP addresses, as in `10.0.0.0/8`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network: an IP address, and how many of its leading bits count.
///
/// IPv4-mapped IPv6 networks are IPv4 networks, as [`Peer`](super::Peer) has their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    /// The first address.
    first: IpAddr,
    bits: u8,
}

impl Network {
    /// Returns the network of the first `bits` of `ip`. More bits than it has are all of them.
    #[must_use]
    pub fn of(ip: IpAddr, bits: u8) -> Self {
        let bits = bits.min(bits_of(ip));
        let first = first_of(ip, bits);
        // A mapped address has bits set up to the 96th, so at least these count.
        let canonical = first.to_canonical();
        let bits = bits - (bits_of(first) - bits_of(canonical));
        Self {
            first: canonical,
            bits,
        }
    }

    /// Returns its first address.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// Returns how many leading bits count.
    #[must_use]
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Returns whether it is an IPv4 network, and its first and last address as numbers.
    pub(super) fn range(&self) -> (bool, u128, u128) {
        let bits = u32::from(self.bits);
        match self.first {
            IpAddr::V4(first) => {
                let others = u32::MAX.checked_shr(bits).unwrap_or(0);
                let first = first.to_bits();
                (true, first.into(), (first | others).into())
            }
            IpAddr::V6(first) => {
                let others = u128::MAX.checked_shr(bits).unwrap_or(0);
                (false, first.to_bits(), first.to_bits() | others)
            }
        }
    }

    /// Returns whether `ip` is in the network. An IPv4-mapped address is an IPv4 address.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.first.is_ipv4() && first_of(ip, self.bits) == self.first
    }
}

/// Returns the first address of the network of `bits` that contains `ip`.
fn first_of(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let kept = u32::MAX.checked_shl(u32::from(32 - bits)).unwrap_or(0);
            Ipv4Addr::from_bits(ip.to_bits() & kept).into()
        }
        IpAddr::V6(ip) => {
            let kept = u128::MAX.checked_shl(u32::from(128 - bits)).unwrap_or(0);
            Ipv6Addr::from_bits(ip.to_bits() & kept).into()
        }
    }
}

fn bits_of(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

impl FromStr for Network {
    type Err = String;

    /// Parses an address, alone or with the number of bits that count.
    fn from_str(text: &str) -> Result<Self, String> {
        let (ip, bits) = match text.split_once('/') {
            Some((ip, bits)) => (ip, Some(bits)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| {
            "not a network; write an IP address such as 192.168.1.7, or a network such as 192.168.1.0/24".to_owned()
        })?;
        let most = bits_of(ip);
        let bits = bits.map_or(Some(most), |bits| {
            let is_number = bits.bytes().all(|byte| byte.is_ascii_digit());
            bits.parse().ok().filter(|bits| is_number && *bits <= most)
        });
        let bits =
            bits.ok_or_else(|| format!("after the `/` there is no number from 0 to {most}"))?;
        let first = first_of(ip, bits);
        if first != ip {
            return Err(format!(
                "the address has bits set after the first {bits}; write {first}/{bits}"
            ));
        }
        Ok(Self::of(ip, bits))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, bits } = self;
        match *bits == bits_of(*first) {
            true => first.fmt(f),
            false => write!(f, "{first}/{bits}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().expect("a network")
    }

    #[test]
    fn networks_contain_their_addresses_and_no_others() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("192.168.1.7", "192.168.1.7", "192.168.1.6"),
            ("192.168.1.6/31", "::ffff:192.168.1.7", "192.168.1.8"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("fe80::1", "fe80::1", "fe80::2"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.0.0.0"),
            ("::ffff:0:0/96", "10.1.2.3", "::1"),
            ("::ffff:10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"),
            ("::/95", "::1", "0.0.0.1"),
        ] {
            let ip = |text: &str| text.parse().expect("an address");
            assert!(network(text).contains(ip(inside)), "{text} {inside}");
            assert!(!network(text).contains(ip(outside)), "{text} {outside}");
        }
    }

    #[test]
    fn text_round_trips() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.1/32", "10.0.0.1"),
            ("0:0::/0", "::/0"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ] {
            assert_eq!(network(text).to_string(), shown);
            assert_eq!(network(shown), network(text));
        }
    }

    #[test]
    fn mistakes_are_explained() {
        let why = |text: &str| text.parse::<Network>().expect_err(text);
        for text in [
            "",
            "10",
            "10.0.0.1:80",
            "localhost",
            "/8",
            "fe80::1%eth0",
            "10.0.0.0 /8",
        ] {
            assert!(
                why(text).starts_with("not a network"),
                "{text}: {}",
                why(text)
            );
        }
        for text in [
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "::/-1",
        ] {
            assert!(
                why(text).contains("no number from 0 to"),
                "{text}: {}",
                why(text)
            );
        }
        assert!(why("10.1.0.0/8").ends_with("write 10.0.0.0/8"));
        assert!(why("2001:db8::1/32").ends_with("write 2001:db8::/32"));
    }
}
