//! A machine as the documents have it, in a namespace, and programs that run there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};

use super::markdown::{blocks, read};
use super::process::{binary, follow};
use super::sources::root;
use super::until;

/// Prepares the namespace: a Raspberry Pi with two web servers, all of them this machine. Nothing
/// outside of it changes.
pub const SETUP: &str = "hostname raspberrypi; mount -t tmpfs tmpfs /run; cp -a /etc /run/etc; \
    mount --bind /run/etc /etc; mount -t tmpfs tmpfs /usr/local/bin; \
    for n in 2 5 10 11; do ip addr add 192.168.1.$n/32 dev lo; done; \
    rm -f /etc/hosts /etc/nsswitch.conf; echo 'hosts: files' >/etc/nsswitch.conf; \
    printf '127.0.0.1 localhost raspberrypi raspberrypi.lan\\n192.168.1.10 nas.lan\\n' >/etc/hosts; \
    mkdir -p /run/coracle /run/other /run/bin /run/work /etc/systemd/system; \
    ln -s ../coracle/control.sock /run/other/control.sock";

/// Puts the files there that the documents presuppose, which are those of a package.
pub fn furnish() {
    let work = Path::new("/run/work");
    symlink(root().join("packaging"), work.join("packaging")).unwrap();
    for file in ["coracle.service", "coracle.toml"] {
        symlink(root().join("packaging").join(file), work.join(file)).unwrap();
    }
    let built = fs::canonicalize(binary()).unwrap();
    for link in ["/run/work/coracle", "/run/bin/coracle"] {
        symlink(&built, link).unwrap();
    }
    fs::copy(&built, "/usr/local/bin/coracle").unwrap();
    fs::write("/run/bin/sudo", "#!/bin/sh\nexec \"$@\"\n").unwrap();
    fs::set_permissions("/run/bin/sudo", fs::Permissions::from_mode(0o755)).unwrap();
    // What the documents have `head` and `base64` make, and a copy of it for a client.
    for file in ["/etc/coracle.token", "/run/work/coracle.token"] {
        fs::write(file, "a-token-of-24-characters\n").unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o400)).unwrap();
    }
    write_configuration();
}

/// Writes the README's configuration, which it runs as /etc/coracle.toml, with a token for orders.
pub fn write_configuration() {
    let text = blocks(&read(Path::new("README.md")), "toml").remove(0);
    // The latter is for `coracle clients`.
    let more = "[admin]\ntoken_file = \"/etc/coracle.token\"\n\n[accounting]\n";
    let text = format!("{text}\n{more}");
    fs::write("/etc/coracle.toml", &text).unwrap();
    fs::write("/run/work/new.toml", text.replace("1h", "2h")).unwrap();
}

/// A shell that runs a command where it finds what the documents presuppose.
pub fn shell(command: &str) -> Command {
    let mut shell = Command::new("sh");
    let path = std::env::var("PATH").unwrap();
    shell.args(["-c", command]).current_dir("/run/work");
    shell
        .env("PATH", format!("/run/bin:{path}"))
        .env("no_proxy", "*");
    shell
}

/// A program that runs until it is stopped.
pub struct Lasting {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Lasting {
    /// Starts it and waits until it has printed a line with `ready`.
    pub fn start(command: &str, ready: &str) -> Result<Self, String> {
        let mut shell = shell(&format!("exec {command} >&2"));
        let child = shell.stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut it = Self {
            child: child.unwrap(),
            log: Arc::default(),
        };
        let _lines = follow(&mut it.child, it.log.clone());
        until(&format!("{command} prints {ready}"), || {
            let is_ready = it.printed().contains(ready);
            if let Some(status) = it.child.try_wait().unwrap() {
                return Some(Err(format!("{status}: {}", it.printed())));
            }
            is_ready.then_some(Ok(()))
        })?;
        Ok(it)
    }

    fn printed(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Stops it by a signal, after which it must exit with 0.
    pub fn stop(mut self, signal: Signal) -> Result<(), String> {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let status = until("it ends", || self.child.try_wait().unwrap());
        match status.success() {
            true => Ok(()),
            false => Err(format!("{status}: {}", self.printed())),
        }
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
