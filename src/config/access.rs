//! Who may connect to an entrypoint: reads networks, from the configuration and from files, and
//! makes the list of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostic::{Collector, Mistake, Span, is_unprintable, shown, wrong};
use super::model::Access;
use super::origin::{Origin, report, warn};
use crate::state::{AccessList, AccessRule, Idle, Network, Verdict};

/// Reads a file that the configuration names.
///
/// Fails with the text to print, which begins with the file's name.
pub type ReadFile<'r> = &'r dyn Fn(&Path) -> Result<String, String>;

/// How many wrong lines of one file are reported one by one.
const MAX_LINES_TOLD: usize = 10;

/// Who may connect, as written.
#[derive(Default)]
pub(super) struct DraftAccess {
    /// The networks of `allow`, and where the list is, if there is one.
    pub(super) allow: Option<(Vec<Written>, Span)>,
    pub(super) deny: Option<(Vec<Written>, Span)>,
    pub(super) allow_file: Option<(PathBuf, Span)>,
    pub(super) deny_file: Option<(PathBuf, Span)>,
}

/// A network, and where it was written.
pub(super) type Written = (Network, Span);

/// Parses a network or an address.
pub(super) fn network(text: &str) -> Result<Network, Mistake> {
    text.parse()
        .or_else(|why: String| wrong(format!("`{}`: {why}", shown(text))))
}

/// Parses the path of a list.
pub(super) fn list_path(text: &str) -> Result<PathBuf, Mistake> {
    if !text.starts_with('/') {
        return wrong(format!(
            "`{}` is not an absolute path; write one such as `/etc/coracle/networks.txt`",
            shown(text)
        ));
    }
    if text.contains(is_unprintable) {
        return wrong(format!("`{}` contains a control character", shown(text)));
    }
    Ok(PathBuf::from(text))
}

impl DraftAccess {
    fn is_empty(&self) -> bool {
        let lists = self.allow.is_none() && self.deny.is_none();
        lists && self.allow_file.is_none() && self.deny_file.is_none()
    }

    /// Reads the files, and makes the list. Returns `None` if everybody may connect.
    pub(super) fn build(self, read: ReadFile<'_>, out: &mut Collector<'_>) -> Option<Arc<Access>> {
        if self.is_empty() {
            return None;
        }
        let mut rules = Vec::new();
        // The tag of a rule is the position of its place, and that of a file's line beyond them.
        let mut places = Vec::new();
        for (written, verdict) in [(&self.allow, Verdict::Allow), (&self.deny, Verdict::Deny)] {
            for (network, span) in written.iter().flat_map(|(networks, _)| networks) {
                rules.push(AccessRule {
                    network: *network,
                    verdict,
                    tag: places.len() as u32,
                });
                places.push(span.clone());
            }
        }
        for (file, verdict) in [
            (&self.allow_file, Verdict::Allow),
            (&self.deny_file, Verdict::Deny),
        ] {
            if let Some((path, span)) = file {
                match read(path) {
                    Ok(text) => lines(path, &text, span, out, |network| {
                        rules.push(AccessRule {
                            network,
                            verdict,
                            tag: u32::MAX,
                        });
                    }),
                    Err(why) => report(out, &Origin::File(span.clone()), &why),
                }
            }
        }
        let allow_at = self.allow.as_ref().map(|(_, at)| at);
        let allow_at = allow_at.or(self.allow_file.as_ref().map(|(_, at)| at));
        let otherwise = match allow_at {
            Some(_) => Verdict::Deny,
            None => Verdict::Allow,
        };
        let mut idle = Vec::new();
        let list = AccessList::new(&mut rules, otherwise, |rule, why| {
            if let Some(place) = places.get(rule.tag as usize) {
                idle.push((place, *rule, why));
            }
        });
        idle.sort_by_key(|(place, ..)| place.start);
        for (place, rule, why) in idle {
            warn(out, &Origin::File(place.clone()), &idle_words(&rule, why));
        }
        if let Some(at) = allow_at.filter(|_| list.admits_nobody()) {
            let why =
                "nobody can connect: the lists allow no address; allow a network, or remove this";
            warn(out, &Origin::File(at.clone()), why);
        }
        let networks = |written: Option<(Vec<Written>, Span)>| {
            written.map(|(networks, _)| networks.into_iter().map(|(it, _)| it).collect())
        };
        Some(Arc::new(Access {
            allow: networks(self.allow),
            deny: networks(self.deny),
            allow_file: self.allow_file.map(|(path, _)| path),
            deny_file: self.deny_file.map(|(path, _)| path),
            list: Arc::new(list),
        }))
    }
}

/// Reads the lines of a file: a network each, or nothing, and behind `#` a comment. Reports wrong
/// ones at `span`.
fn lines(
    path: &Path,
    text: &str,
    span: &Span,
    out: &mut Collector<'_>,
    mut take: impl FnMut(Network),
) {
    let origin = Origin::File(span.clone());
    let mut wrong = 0;
    // A byte order mark is not part of the first line.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (n, line) in text.lines().enumerate() {
        let (line, _) = line.split_once('#').unwrap_or((line, ""));
        match line.trim() {
            "" => {}
            line => match network(line) {
                Ok(network) => take(network),
                Err(Mistake(why)) => {
                    wrong += 1;
                    if wrong <= MAX_LINES_TOLD {
                        let path = shown(&path.to_string_lossy());
                        report(out, &origin, &format!("{path}:{}: {why}", n + 1));
                    }
                }
            },
        }
    }
    if wrong > MAX_LINES_TOLD {
        let path = shown(&path.to_string_lossy());
        let why = format!("{path}: and {} more wrong lines", wrong - MAX_LINES_TOLD);
        report(out, &origin, &why);
    }
}

/// Says why a network in the configuration could as well be left out.
fn idle_words(rule: &AccessRule, why: Idle) -> String {
    let network = rule.network;
    let done = match rule.verdict {
        Verdict::Allow => "allowed",
        Verdict::Deny => "denied",
    };
    match why {
        Idle::Covered(other, verdict) if other == network => match verdict == rule.verdict {
            true => format!("`{network}` is listed twice; remove one"),
            false => format!("`{network}` is denied too, and that counts; remove one"),
        },
        Idle::Covered(other, _) => {
            format!("`{network}` has no effect: all of `{other}` is {done}; remove one of them")
        }
        Idle::Otherwise => format!(
            "`{network}` has no effect: it is in no network that is allowed, so it is denied anyway; remove it"
        ),
    }
}
