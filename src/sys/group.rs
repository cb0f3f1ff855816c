//! Looks up user groups by name.

use std::fs;

/// Returns the number of the group `name`, which may itself be a number, or `None` if `/etc/group`
/// has no such group.
#[must_use]
pub fn id(name: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    // Read as bytes, so that one line with invalid UTF-8 does not hide the others.
    let groups = fs::read("/etc/group").ok()?;
    let of_name = |line: &[u8]| {
        // NAME:PASSWORD:NUMBER:MEMBERS, group(5).
        let mut fields = line.split(|byte| *byte == b':');
        let is_it = fields.next() == Some(name.as_bytes());
        let number = std::str::from_utf8(fields.nth(1)?).ok()?.parse().ok()?;
        is_it.then_some(number)
    };
    groups.split(|byte| *byte == b'\n').find_map(of_name)
}

#[cfg(test)]
mod tests {
    use super::id;

    #[test]
    fn group_is_found_by_name_and_number() {
        assert_eq!(id("root"), Some(0));
        assert_eq!(id("4242"), Some(4242));
        assert_eq!(id("there-is-no-such-group"), None);
        assert_eq!(id(""), None);
        assert_eq!(id("roo"), None);
    }
}
