//! Watches the configuration's file and those that it names, and reloads when one has changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use smol::future::{FutureExt, pending};

use super::commands::Commander;
use super::fingerprint::Seen;
use crate::net::{Directories, Reactor};

/// How long the file must stay unchanged before it is read: a file being written changes more than
/// once.
const SETTLED: Duration = Duration::from_millis(250);
/// How often the file is checked while it changes all the time.
const SETTLED_MAX: Duration = Duration::from_secs(2);
/// The pause before retrying when a directory cannot be watched.
const RETRY: Duration = Duration::from_secs(5);

/// Reloads through `commander` whenever one of `files` changes, until cancelled. A change is a write
/// in place, a replacement by rename, or a link that leads elsewhere.
///
/// A change since the state with which a file comes counts.
pub(super) async fn watch(reactor: Rc<Reactor>, mut files: Vec<Seen>, commander: Commander) {
    let mut has_failed = false;
    loop {
        let all = files.iter().flat_map(|it| directories(&it.file));
        let mut all: Vec<_> = all.collect();
        all.sort_unstable();
        all.dedup();
        let directories = match Directories::watch(&reactor, all) {
            Ok(directories) => directories,
            Err(error) => {
                if !std::mem::replace(&mut has_failed, true) {
                    let file = files.first().map_or(Path::new(""), |it| &it.file);
                    log::warn!(target: "setup", "watch: cannot watch the directory of {}: {error}; checking the file every {} s; `coracle reload` applies a change at once",
                        file.display(), RETRY.as_secs());
                }
                reactor.sleep(RETRY).await;
                reload_if_other(&mut files, &commander);
                continue;
            }
        };
        has_failed = false;
        // A change made before the watch began has no event.
        let has_changed = files.iter().any(Seen::has_changed);
        if !has_changed && directories.changed().await.is_err() {
            reactor.sleep(RETRY).await;
        }
        settle(&reactor, &directories, files.clone()).await;
        reload_if_other(&mut files, &commander);
    }
}

/// Waits after a change in their directories until the files stay as they are. Changes of other
/// files there do not count.
async fn settle(reactor: &Rc<Reactor>, directories: &Directories, mut files: Vec<Seen>) {
    let mut settled_at = reactor.now() + SETTLED;
    let mut settled_at_last = None;
    loop {
        if update(&mut files) {
            settled_at = reactor.now() + SETTLED;
            settled_at_last.get_or_insert(reactor.now() + SETTLED_MAX);
        }
        let until = settled_at_last.map_or(settled_at, |last| settled_at.min(last));
        if reactor.now() >= until {
            return;
        }
        let change = async {
            if directories.changed().await.is_err() {
                pending().await
            }
        };
        change.or(reactor.sleep_until(until)).await;
    }
}

fn reload_if_other(files: &mut [Seen], commander: &Commander) {
    if update(files) {
        commander.reload("watch");
    }
}

/// Notes the present states. Returns whether one of them is another one.
fn update(files: &mut [Seen]) -> bool {
    let mut is_other = false;
    for it in files {
        let now = Seen::now(&it.file);
        is_other |= now != *it;
        *it = now;
    }
    is_other
}

/// Returns the directories in which something changes when the file does: its own, and those of the
/// links that lead to it.
fn directories(file: &Path) -> Vec<PathBuf> {
    /// As many links as the kernel follows.
    const LINKS: usize = 40;
    let mut directories = Vec::new();
    let mut file = file.to_owned();
    for _ in 0..LINKS {
        let parent = match file.parent() {
            Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
            Some(parent) => parent.to_owned(),
            None => break,
        };
        let target = fs::read_link(&file).map(|target| parent.join(target));
        // A directory may itself be a link, as in Kubernetes: its content and its location can
        // change independently.
        directories.push(fs::canonicalize(&parent).unwrap_or_else(|_| parent.clone()));
        directories.push(parent);
        match target {
            Ok(target) => file = target,
            Err(_) => break,
        }
    }
    directories
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn directories_of_all_links_are_watched() {
        let root = tempfile::tempdir().expect("a directory");
        let root = fs::canonicalize(root.path()).expect("it exists");
        for directory in ["mount", "mount/..1", "elsewhere"] {
            fs::create_dir(root.join(directory)).expect("a directory");
        }
        let file = root.join("mount/coracle.toml");
        symlink("..1", root.join("mount/..data")).expect("a link");
        symlink("..data/coracle.toml", &file).expect("a link");
        symlink(
            root.join("elsewhere/real.toml"),
            root.join("mount/..1/coracle.toml"),
        )
        .expect("a link");
        let watched = directories(&file);
        for directory in ["mount", "mount/..1", "elsewhere"] {
            assert!(
                watched.contains(&root.join(directory)),
                "{directory}: {watched:?}"
            );
        }
        assert_eq!(
            directories(Path::new("coracle.toml")).len(),
            2,
            "the current directory, by both names"
        );
    }
}
