//! HAProxy and nginx, which end with the test.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{kernel, until};

/// A program of somebody else's, which ends with the test.
pub struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    /// Starts it and waits until it listens on all of these ports.
    pub fn start(command: &mut Command, ports: &[SocketAddr]) -> Self {
        let mut it = Self(command.stdout(Stdio::null()).spawn().unwrap());
        for port in ports {
            until(&format!("{command:?} listens on {port}"), || {
                assert_eq!(it.0.try_wait().unwrap(), None, "{command:?} has ended");
                kernel::listens(port.port()).then_some(())
            });
        }
        it
    }

    /// Starts HAProxy with these sections in its configuration.
    pub fn haproxy(folder: &Path, config: &str, ports: &[SocketAddr]) -> Self {
        let timeouts = "timeout client 1h\ntimeout server 1h\ntimeout connect 1h\n";
        let file = folder.join("haproxy.cfg");
        fs::write(&file, format!("defaults\n{timeouts}{config}")).unwrap();
        Self::start(Command::new("haproxy").args(["-db", "-f"]).arg(file), ports)
    }

    /// Starts nginx with these blocks in its configuration.
    pub fn nginx(folder: &Path, config: &str, ports: &[SocketAddr]) -> Self {
        let file = folder.join("nginx.conf");
        let main =
            "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr;\nevents {}\n";
        let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
        let load = match Path::new(module).exists() {
            true => format!("load_module {module};\n"),
            false => String::new(),
        };
        fs::write(&file, format!("{load}{main}{config}")).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-p").arg(folder).arg("-c").arg(file);
        Self::start(command.args(["-e", "stderr"]), ports)
    }
}
