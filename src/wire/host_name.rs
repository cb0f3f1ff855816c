//! Names of hosts, as clients send them.

/// The longest name, without the trailing dot (RFC 1035, section 2.3.4: 255 octets with a length
/// before each label and an empty label at the end).
const MOST_BYTES: usize = 253;

/// Returns `bytes` in lower case and without a trailing dot if they are the name of a host or an
/// IPv4 address.
///
/// Labels consist of letters, digits and hyphens (RFC 1123, section 2.1). An underscore is accepted
/// as well, as resolvers do.
pub(super) fn host_name(bytes: &[u8]) -> Option<Box<str>> {
    let bytes = bytes.strip_suffix(b".").unwrap_or(bytes);
    let is_name = bytes.len() <= MOST_BYTES && bytes.split(|&byte| byte == b'.').all(is_label);
    let name = std::str::from_utf8(bytes).ok().filter(|_| is_name)?;
    Some(name.to_ascii_lowercase().into())
}

/// Returns true if `name` is no name but an IPv4 address, in whatever notation: no top-level domain
/// begins with a digit (RFC 3696, section 2).
pub(super) fn is_ipv4(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    last.starts_with(|first: char| first.is_ascii_digit())
        && (last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_label(label: &[u8]) -> bool {
    let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=63).contains(&label.len())
        && label.iter().all(is_inner)
        && !label.starts_with(b"-")
        && !label.ends_with(b"-")
}

#[cfg(test)]
mod tests {
    use super::{host_name, is_ipv4};

    #[test]
    fn names_are_in_lower_case_and_without_a_trailing_dot() {
        for (bytes, name) in [
            ("nas.example.org", "nas.example.org"),
            ("NAS.Example.ORG.", "nas.example.org"),
            ("localhost", "localhost"),
            ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
            ("_dmarc.my_host.lan", "_dmarc.my_host.lan"),
            ("1.2.3.4", "1.2.3.4"),
            ("4x4.example", "4x4.example"),
        ] {
            assert_eq!(host_name(bytes.as_bytes()).as_deref(), Some(name));
        }
        let label = "a".repeat(63);
        let longest = [&*label, &label, &label, &label[2..]].join(".");
        assert_eq!(longest.len(), 253);
        assert_eq!(host_name(longest.as_bytes()).as_deref(), Some(&*longest));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bytes in [
            "",
            ".",
            "a..b",
            ".a",
            "a..",
            "*.lan",
            "a b",
            "a\0",
            "::1",
            "[::1]",
            "-a.b",
            "a-.b",
            "a:80",
            "münchen.example",
            "a/b",
            "a@b",
        ] {
            assert_eq!(host_name(bytes.as_bytes()), None, "{bytes:?}");
        }
        let label = "a".repeat(64);
        assert_eq!(host_name(label.as_bytes()), None);
        let long = [
            "a".repeat(63),
            "a".repeat(63),
            "a".repeat(63),
            "a".repeat(62),
        ]
        .join(".");
        assert_eq!(host_name(long.as_bytes()), None);
    }

    #[test]
    fn addresses_are_told_from_names() {
        for address in ["192.0.2.1", "1", "127.1", "0x7f000001", "1.2.3.0x4"] {
            assert!(is_ipv4(address), "{address}");
        }
        for name in ["a1", "1a", "1.2.3.4.example", "4x4", "xn--1"] {
            assert!(!is_ipv4(name), "{name}");
        }
    }
}
