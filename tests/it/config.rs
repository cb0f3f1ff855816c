//! Configurations good and bad: what is wrong is told in full, and no text makes the reader panic.
use std::path::Path;
use std::time::Duration;

use coracle::config::{
    Admin, Config, ControlSocket, Diagnostic, Diagnostics, Forward, Listen, Location, OnRemoved,
    Overrides,
};

/// Texts with the mistakes in them: line, column and message, as they are told.
const WRONG: &[(&str, &[&str])] = &[
    // An empty file.
    (
        "",
        &["no entrypoints; add a table [entrypoints.NAME] with `listen` and `to`"],
    ),
    // Unknown keys.
    (
        "drain_timout = \"5s\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["1:1: unknown key `drain_timout`; did you mean `drain_timeout`?"],
    ),
    (
        "frobnicate = 1\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &[
            "1:1: unknown key `frobnicate`; expected one of `drain_timeout`, `watch`, `admin`, `log`, `metrics`, `entrypoints`, `services`",
        ],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\nmax_connections = 5\n",
        &[
            "4:1: unknown key `max_connections`; expected one of `listen`, `to`, `service`, `connect_timeout`, `dial_timeout`, `idle_timeout`, `half_close_timeout`, `keepalive`, `on_removed`, `reuse_port`, `socket_mode`, `socket_group`",
        ],
    ),
    (
        "[admin]\nlissen = \"off\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["2:1: unknown key `lissen`; did you mean `listen`?"],
    ),
    (
        "[log]\nLevel = \"info\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["2:1: unknown key `Level`; did you mean `level`?"],
    ),
    (
        "[entryPoints.a]\nlisten = \":80\"\nto = \"h:1\"\n",
        &["1:2: unknown key `entryPoints`; did you mean `entrypoints`?"],
    ),
    (
        "[entrypoints.a]\nlisten = \":80\"\nservice = \"s\"\n[services.s]\nservers = [\"h:1\"]\nbalance = \"x\"\n",
        &[
            "6:1: unknown key `balance`; expected one of `servers`, `connect_timeout`, `dial_timeout`",
        ],
    ),
    // Who may connect to a Unix socket.
    (
        "[entrypoints.a]\nlisten = \":80\"\nto = \"h:1\"\nsocket_mode = \"0660\"\nsocket_group = \"g\"\n",
        &[
            "4:1: `socket_mode` is for Unix sockets, and entrypoint `a` listens on none; remove it",
            "5:1: `socket_group` is for Unix sockets, and entrypoint `a` listens on none; remove it",
        ],
    ),
    (
        "[entrypoints.a]\nlisten = \"unix:/run/a\"\nto = \"h:1\"\nsocket_mode = 660\n",
        &["4:15: expected a string, found an integer; write it in quotes"],
    ),
    (
        "[entrypoints.a]\nlisten = \"unix:/run/a\"\nto = \"h:1\"\nsocket_mode = \"0888\"\n",
        &["4:15: `0888` is not a socket mode; write three octal digits, such as \"0660\""],
    ),
    (
        "[entrypoints.a]\nlisten = \"unix:/run/a\"\nto = \"h:1\"\nsocket_mode = \"4755\"\n",
        &["4:15: `4755` is not a socket mode; write three octal digits, such as \"0660\""],
    ),
    (
        "[entrypoints.a]\nlisten = \"unix:/run/a\"\nto = \"h:1\"\nsocket_mode = \"060\"\n",
        &["4:15: with mode `060` the socket's owner cannot connect; write one such as \"0660\""],
    ),
    (
        "[entrypoints.a]\nlisten = \"unix:/run/a\"\nto = \"h:1\"\nsocket_group = \"\"\n",
        &["4:16: `` is not a group name; write one such as \"www-data\", or its number"],
    ),
    // Wrong types.
    (
        "drain_timeout = 10\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["1:17: expected a string, found an integer; write \"10s\" for seconds"],
    ),
    (
        "drain_timeout = 1.5\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["1:17: expected a string, found a float; write a duration such as \"10s\""],
    ),
    (
        "admin = \"off\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["1:9: expected a table, found a string; write [admin] on a line of its own"],
    ),
    (
        "[[admin]]\nlisten = \"off\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["1:1: expected a table, found an array; write [admin] on a line of its own"],
    ),
    (
        "[log]\naccess = \"yes\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["2:10: expected true or false, found a string"],
    ),
    (
        "[log]\nlevel = true\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["2:9: expected a string, found a boolean"],
    ),
    (
        "entrypoints = \"x\"\n",
        &[
            "1:15: expected a table, found a string; write [entrypoints.NAME] on a line of its own for each",
        ],
    ),
    (
        "[entrypoints]\na = \"x\"\n",
        &["2:5: expected a table, found a string; write [entrypoints.a] on a line of its own"],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = 8080\n",
        &["3:10: expected a string, found an integer; write an address such as \"127.0.0.1:8080\""],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = [\":80\", 81]\n",
        &["3:18: expected a string, found an integer; write an address such as \"127.0.0.1:81\""],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = 2020-01-01\n",
        &[
            "3:6: expected a string, found a date or time; write an address such as \"192.168.1.10:80\"",
        ],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = { host = \"h\" }\n",
        &["3:6: expected a string, found a table; write an address such as \"192.168.1.10:80\""],
    ),
    (
        "[entrypoints.a]\nlisten = \":80\"\nservice = \"s\"\n[services.s]\nservers = \"h:1\"\n",
        &["5:11: expected an array of strings, found a string; write it in [ ]"],
    ),
    (
        "watch = \"yes\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["1:9: expected true or false, found a string"],
    ),
    // What a reload removes.
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\non_removed = \"kill\"\n",
        &["4:14: `kill` is not valid here; write \"keep\", \"drain\" or \"close\""],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\non_removed = true\n",
        &["4:14: expected a string, found a boolean"],
    ),
    (
        "on_removed = \"close\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &[
            "1:1: unknown key `on_removed`; expected one of `drain_timeout`, `watch`, `admin`, `log`, `metrics`, `entrypoints`, `services`",
        ],
    ),
    // Names of other programs.
    (
        "[metrics]\ncompat = [\"trafik\"]\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["2:11: unknown `compat` name `trafik`; did you mean `traefik`?"],
    ),
    (
        "[metrics]\ncompat = [\"traefik\", \"haproxy\", \"traefik\", 3]\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &[
            "2:22: unknown `compat` name `haproxy`; expected one of `traefik`",
            "2:33: `traefik` is in the list twice; remove one",
            "2:44: expected a string, found an integer",
        ],
    ),
    (
        "[metrics]\ncompat = \"traefik\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["2:10: expected an array of strings, found a string; write it in [ ]"],
    ),
    (
        "[metrics]\ncompta = []\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["2:1: unknown key `compta`; did you mean `compat`?"],
    ),
    // A port for several.
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\nreuse_port = \"yes\"\n",
        &["4:14: expected true or false, found a string"],
    ),
    (
        "[entrypoints.a]\nlisten = [\":80\", \"unix:/run/a\"]\nto = \"h:1\"\nreuse_port = true\n",
        &[
            "4:14: only TCP ports can be shared, and entrypoint `a` listens on `unix:/run/a`; give that an entrypoint of its own, or remove `reuse_port`",
        ],
    ),
    (
        "[entrypoints.a]\nlisten = \":80\"\nto = \"h:1\"\nreuse_port = true\n[entrypoints.b]\nlisten = \":80\"\nto = \"h:1\"\nreuse_port = true\n",
        &["6:10: entrypoint `a` already listens on `[::]:80` (line 2); change one"],
    ),
    // Durations and levels.
    (
        "drain_timeout = \"10\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["1:17: `10` has no unit; write \"10s\" for seconds"],
    ),
    (
        "drain_timeout = \"off\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["1:17: `off` is not allowed here; write a duration such as \"9s\", or \"0s\""],
    ),
    (
        "drain_timeout = \"5 parsecs\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["1:17: `parsecs` is not a unit of time; the units are ms, s, m, h and d"],
    ),
    (
        "drain_timeout = \"\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["1:17: the duration is empty; write one such as \"10s\""],
    ),
    (
        "drain_timeout = \"-5s\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["1:17: `-5s` is not a duration; write one such as \"10s\""],
    ),
    (
        "drain_timeout = \"99999999999999999999s\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["1:17: `99999999999999999999s` is too long or too precise"],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\nidle_timeout = \"0s\"\n",
        &["4:16: `0s` is too short; write a longer one, or \"off\""],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\nidle_timeout = \"400d\"\n",
        &["4:16: too long; the limit is 366 days"],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\nhalf_close_timeout = \"10us\"\n",
        &["4:22: `10us` is too short; write a longer one, or \"off\""],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\nconnect_timeout = \"0s\"\n",
        &["4:19: `0s` is too short; write a longer one, such as \"5s\""],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\nconnect_timeout = \"off\"\n",
        &["4:19: `off` is not allowed here; write a duration such as \"5s\""],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\nkeepalive = \"1500ms\"\n",
        &["4:13: keepalive is in whole seconds, at least 1; write \"60s\", or \"off\""],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\nkeepalive = \"0s\"\n",
        &["4:13: keepalive is in whole seconds, at least 1; write \"60s\", or \"off\""],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\nkeepalive = \"10h\"\n",
        &["4:13: too long; the limit is 32767s, the kernel's limit"],
    ),
    (
        "[log]\nlevel = \"inof\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["2:9: unknown level `inof`; did you mean `info`?"],
    ),
    (
        "[log]\nlevel = \"verbose\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["2:9: unknown level `verbose`; the levels are error, warn, info, debug, trace and off"],
    ),
    // Listeners.
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = \"localhost:80\"\n",
        &[
            "3:10: `localhost` is not an IP address; listen on one, such as `127.0.0.1:80`, or on all with `*:80`",
        ],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = \"0.0.0.0\"\n",
        &["3:10: `0.0.0.0` has no port; write `0.0.0.0:80`"],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = \"8080\"\n",
        &["3:10: `8080` has no host; write `127.0.0.1:8080`"],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = \":\"\n",
        &["3:10: `:` has no port; write `:80`"],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = \"\"\n",
        &["3:10: the address is empty; write one such as `127.0.0.1:80`"],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = \"::1:80\"\n",
        &["3:10: `::1:80`: IPv6 addresses must be in brackets, such as `[::1]:80`"],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = \"[::1]\"\n",
        &["3:10: `[::1]` has no port; write `[::1]:80`"],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = \"[::1:80\"\n",
        &["3:10: `[::1:80` has no closing bracket"],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = \"[127.0.0.1]:80\"\n",
        &["3:10: `127.0.0.1` is an IPv4 address; write it without brackets"],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = \"[fe80::1%eth0]:80\"\n",
        &[
            "3:10: `fe80::1%eth0` names a network interface, which is not supported; use an address without `%`",
        ],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = \"[fe80::1]:80\"\n",
        &[
            "3:10: `fe80::1` is link-local and needs an interface, which is not supported; use another address of that host",
        ],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = \"127.0.0.1:65536\"\n",
        &["3:10: port 65536 is too large; the largest is 65535"],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = \"127.0.0.1:http\"\n",
        &["3:10: `http` is not a port; a port is a number from 1 to 65535"],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = \"127.0.0.1:-1\"\n",
        &["3:10: `-1` is not a port; a port is a number from 1 to 65535"],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = \"127.0.0:80\"\n",
        &["3:10: `127.0.0` is not an IPv4 address, which is four numbers from 0 to 255"],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = \"127.0.0.1:80 \"\n",
        &["3:10: `127.0.0.1:80 ` contains a space; remove it"],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = []\n",
        &["3:10: the list is empty; write at least one address"],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = \"unix:run/x.sock\"\n",
        &[
            "3:10: `unix:run/x.sock` is not an absolute path; write one such as `unix:/run/app.sock`",
        ],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = \"unix:/run/\"\n",
        &[
            "3:10: `unix:/run/` is a directory; write the path of a socket, such as `unix:/run/app.sock`",
        ],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = \"unix:/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"\n",
        &["3:10: the socket path has 108 bytes; the limit is 107"],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = \"unix:/a\\u0000b\"\n",
        &["3:10: `unix:/a\\u{0}b` contains a control character"],
    ),
    (
        "[admin]\nhosts = [\"a:80\", 7]\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &[
            "2:10: host name `a:80` contains `:`; only letters, digits, `-`, `_` and dots are allowed",
            "2:18: expected a string, found an integer",
        ],
    ),
    (
        "[admin]\nhosts = \"a\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["2:9: expected an array of strings, found a string; write it in [ ]"],
    ),
    (
        "[admin]\nlisten = \"unix:/run/a.sock\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &[
            "2:10: the admin endpoint cannot listen on a Unix socket; write an address such as \"127.0.0.1:2672\", or \"off\"",
        ],
    ),
    (
        "[admin]\nlisten = \"on\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["2:10: `on` is neither an address, such as \"127.0.0.1:2672\", nor \"off\""],
    ),
    // The control socket.
    (
        "[admin]\nsocket = \"on\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &[
            "2:10: `on` is neither the path of a socket, such as \"/run/coracle/control.sock\", nor \"off\"",
        ],
    ),
    (
        "[admin]\nsocket = \"127.0.0.1:2672\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &[
            "2:10: `127.0.0.1:2672` is neither the path of a socket, such as \"/run/coracle/control.sock\", nor \"off\"",
        ],
    ),
    (
        "[admin]\nsocket = false\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["2:10: expected a string, found a boolean; write \"off\""],
    ),
    (
        "[admin]\nsocket = \"run/control.sock\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &[
            "2:10: `run/control.sock` is not an absolute path; write one such as `/run/coracle/control.sock`",
        ],
    ),
    (
        "[admin]\nsocket = \"unix:run/control.sock\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &[
            "2:10: `unix:run/control.sock` is not an absolute path; write one such as `/run/coracle/control.sock`",
        ],
    ),
    (
        "[admin]\nsocket = \"/run/coracle/\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &[
            "2:10: `/run/coracle/` is a directory; write the path of a socket, such as `/run/coracle/control.sock`",
        ],
    ),
    (
        "[admin]\nsocket = \"/a\\u0000b\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["2:10: `/a\\u{0}b` contains a control character"],
    ),
    (
        "[admin]\nsocket = \"/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["2:10: the socket path has 108 bytes; the limit is 107"],
    ),
    // Targets.
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"http://h:80\"\n",
        &["3:6: `http://h:80` is a URL; write only the host and the port, without `http://`"],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h\"\n",
        &["3:6: `h` has no port; write `h:80`"],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:0\"\n",
        &["3:6: cannot connect to port 0; a port is a number from 1 to 65535"],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \":80\"\n",
        &["3:6: the host to connect to is missing; write one, such as `192.168.1.10:80`"],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"*:80\"\n",
        &["3:6: the host to connect to is missing; write one, such as `192.168.1.10:80`"],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"a..b:80\"\n",
        &["3:6: host name `a..b` has an empty part; remove the extra dot"],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"a/b:80\"\n",
        &["3:6: host name `a/b` contains `/`; only letters, digits, `-`, `_` and dots are allowed"],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"-a.b:80\"\n",
        &["3:6: host name `-a.b` has a part that starts or ends with `-`"],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"münchen.de:80\"\n",
        &[
            "3:6: host name `münchen.de` contains `ü`; only letters, digits, `-`, `_` and dots are allowed",
        ],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"1.2.3.256:80\"\n",
        &["3:6: `1.2.3.256` is not an IPv4 address, which is four numbers from 0 to 255"],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.b:80\"\n",
        &[
            "3:6: host name `aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.b` has a part of 64 characters; the limit is 63",
        ],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.abc.ab:80\"\n",
        &["3:6: the host name has 254 characters; the limit is 253"],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"unix:app.sock\"\n",
        &["3:6: `unix:app.sock` is not an absolute path; write one such as `unix:/run/app.sock`"],
    ),
    // What does not go together.
    (
        "[entrypoints.a]\n",
        &[
            "1:14: entrypoint `a` has no `listen`; add one, such as listen = \"0.0.0.0:8080\"",
            "1:14: entrypoint `a` has neither `to` nor `service`; add one, such as to = \"192.168.1.10:80\"",
        ],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\nservice = \"s\"\n[services.s]\nservers = [\"h:1\"]\n",
        &["4:1: entrypoint `a` has both `to` and `service`; keep one of them"],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nservice = \"nsa\"\n[services.nas]\nservers = [\"h:1\"]\n",
        &["3:11: unknown service `nsa`; did you mean `nas`?"],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nservice = \"web\"\n",
        &["3:11: unknown service `web`; add a table [services.web] with `servers`"],
    ),
    (
        "[entrypoints.a]\nlisten = \":80\"\nservice = \"s\"\nconnect_timeout = \"5s\"\n[services.s]\nservers = [\"h:1\"]\n",
        &["4:1: `connect_timeout` goes with `to`; with `service`, set it in the service's table"],
    ),
    (
        "[entrypoints.a]\nlisten = \":80\"\nservice = \"s\"\ndial_timeout = \"5s\"\n[services.s]\nservers = [\"h:1\"]\n",
        &["4:1: `dial_timeout` goes with `to`; with `service`, set it in the service's table"],
    ),
    (
        "[entrypoints.a]\nlisten = \":80\"\nservice = \"s\"\n[services.s]\nservers = [\"h:1\"]\ndial_timeout = \"off\"\n",
        &["6:16: `off` is not allowed here; write a duration such as \"5s\""],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n[services.a]\nservers = [\"h:1\"]\n",
        &[
            "3:1: `to` creates a service `a`, but there is a table [services.a] too; rename one, or write service = \"a\" instead",
        ],
    ),
    (
        "[entrypoints.a]\nlisten = \":80\"\nservice = \"s\"\n[services.s]\nconnect_timeout = \"5s\"\n",
        &["4:11: service `s` has no `servers`; add some, such as servers = [\"192.168.1.10:80\"]"],
    ),
    (
        "[entrypoints.a]\nlisten = \":80\"\nservice = \"s\"\n[services.s]\nservers = []\n",
        &["5:11: the list is empty; write at least one server"],
    ),
    (
        "[entrypoints.a]\nlisten = \":80\"\nservice = \"s\"\n[services.s]\nservers = [\"h:1\", \"[::1]:1\", \"[0::1]:1\"]\n",
        &["5:30: server `[0::1]:1` is in the list twice; remove one"],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n[entrypoints.b]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["5:10: entrypoint `a` already listens on `127.0.0.1:80` (line 2); change one"],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = [\"0.0.0.0:80\", \"127.0.0.1:80\"]\n",
        &["3:25: `127.0.0.1:80` and `0.0.0.0:80` of entrypoint `a` (line 3) overlap; change one"],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = [\"[::1]:80\", \"[::]:80\"]\n",
        &["3:23: `[::]:80` and `[::1]:80` of entrypoint `a` (line 3) overlap; change one"],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = [\"127.0.0.1:80\", \"*:80\"]\n",
        &[
            "3:27: `*:80` takes IPv4 too, but entrypoint `a` listens on `127.0.0.1:80` (line 3); write `[::]:80` for IPv6 alone",
        ],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = [\"[::ffff:127.0.0.1]:80\", \"127.0.0.1:80\"]\n",
        &["3:36: entrypoint `a` already listens on `127.0.0.1:80` (line 3); change one"],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = \"127.0.0.1:2672\"\n",
        &["3:10: the admin endpoint already listens on `127.0.0.1:2672` (by default); change one"],
    ),
    (
        "[admin]\nlisten = \":80\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &[
            "2:10: `*:80` takes IPv4 too, but entrypoint `a` listens on `127.0.0.1:80` (line 4); write `[::]:80` for IPv6 alone",
        ],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = [\"unix:/a\", \"unix:/a\"]\n",
        &["3:22: entrypoint `a` already listens on `unix:/a` (line 3); change one"],
    ),
    (
        "[admin]\nsocket = \"/run/a\"\n[entrypoints.a]\nto = \"h:1\"\nlisten = [\":80\", \"unix:/run/a\"]\n",
        &["5:18: the control socket already listens on `unix:/run/a` (line 2); change one"],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = \"unix:/run/coracle/control.sock\"\n",
        &[
            "3:10: the control socket already listens on `unix:/run/coracle/control.sock` (by default); change one",
        ],
    ),
    (
        "[entrypoints.\"\"]\nlisten = \":80\"\nto = \"h:1\"\n",
        &["1:14: the name is empty"],
    ),
    (
        "[entrypoints.\"a\\nb\"]\nlisten = \":80\"\nto = \"h:1\"\n",
        &["1:14: name `a\\nb` contains a control character"],
    ),
    (
        "[entrypoints.nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn]\nlisten = \":80\"\nto = \"h:1\"\n",
        &["1:14: the name has 65 characters; the limit is 64"],
    ),
    // Entrypoints that lead back to themselves.
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"127.0.0.1:80\"\n",
        &[
            "3:6: entrypoint `a` listens on `127.0.0.1:80` itself and would forward to itself forever; use another server",
        ],
    ),
    (
        "[entrypoints.a]\nlisten = \"*:80\"\nto = \"localhost:80\"\n",
        &[
            "3:6: entrypoint `a` listens on `localhost:80` itself and would forward to itself forever; use another server",
        ],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"0.0.0.0:80\"\n",
        &[
            "3:6: entrypoint `a` listens on `0.0.0.0:80` itself and would forward to itself forever; use another server",
        ],
    ),
    (
        "[entrypoints.a]\nlisten = \"*:80\"\nservice = \"s\"\n[entrypoints.b]\nlisten = \"10.0.0.1:81\"\nto = \"h:1\"\n\
         [services.s]\nservers = [\"h:80\", \"10.0.0.1:80\"]\n",
        &[
            "8:20: entrypoint `a` listens on `10.0.0.1:80` itself and would forward to itself forever; use another server",
        ],
    ),
    (
        "[entrypoints.a]\nlisten = \"unix:/run/a\"\nto = \"unix:/run/a\"\n",
        &[
            "3:6: entrypoint `a` listens on `unix:/run/a` itself and would forward to itself forever; use another server",
        ],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"[::1]:81\"\n[entrypoints.b]\nlisten = \"[::]:81\"\nto = \"127.0.0.1:80\"\n",
        &[
            "3:6: `[::1]:81` is entrypoint `b`, which leads back to entrypoint `a` forever; use another server",
            "6:6: `127.0.0.1:80` is entrypoint `a`, which leads back to entrypoint `b` forever; use another server",
        ],
    ),
    // The same server, once an end and once a circle: the circle counts.
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nservice = \"s\"\n[entrypoints.b]\nlisten = \"127.0.0.1:81\"\nservice = \"s\"\n\
         [services.s]\nservers = [\"127.0.0.1:81\"]\n",
        &[
            "8:12: entrypoint `b` listens on `127.0.0.1:81` itself and would forward to itself forever; use another server",
        ],
    ),
    // Syntax.
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = 0.0.0.0:80\n",
        &["3:10: strings must be quoted; write \"0.0.0.0:80\""],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = [::]:80\n",
        &["3:10: strings must be quoted; write \"[::]:80\""],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = \n",
        &["3:1: `listen` has no value"],
    ),
    (
        "drain_timeout = 10s # soon\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["1:17: strings must be quoted; write \"10s\""],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = \"abc\n",
        &["3:14: unterminated string; add `\"`"],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\nto = \"i:1\"\n",
        &["4:1: `to` is set twice; keep one of them"],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &[
            "4:14: `a` is set twice; keep one of them",
            "5:1: `listen` is set twice; keep one of them",
            "6:1: `to` is set twice; keep one of them",
        ],
    ),
    (
        "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\nkeepalive: 5\n",
        &["4:1: expected KEY = VALUE"],
    ),
    (
        "[entrypoints.a\nlisten = \":80\"\nto = \"h:1\"\n",
        &["1:15: unclosed table, expected `]`"],
    ),
    (
        "entrypoints.a]\nlisten = \":80\"\nto = \"h:1\"\n",
        &["1:1: table names must be in brackets; write [entrypoints.a]"],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = [\":80\"\n",
        &["3:16: unclosed array, expected `]`"],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = [\":80\"\n[log]\nlevel = \"info\"\n",
        &["4:1: expected `,` or `]` before this"],
    ),
    (
        "[log]\nlevel = \"\"\"info\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["2:9: unterminated string; add the same three quotes at its end"],
    ),
    (
        "[log]\nlevel = \"\\q\"\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &[
            "2:11: missing escaped value, expected `b`, `e`, `f`, `n`, `r`, `\\`, `\"`, `x`, `u`, `U`",
        ],
    ),
    (
        "a = [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\n",
        &["1:85: arrays or tables are nested too deeply"],
    ),
    (
        "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a = 1\n",
        &["1:1: this key has too many parts"],
    ),
    // Advice for what new users write.
    (
        "[entrypoints.a]\nlisten = \":80\"\nto = [\"h:1\"]\nkeepalive = true\n",
        &[
            "3:6: expected a string, found an array; for several servers write `service = \"NAME\"` and a table [services.NAME]",
            "4:13: expected a string, found a boolean; write a duration such as \"60s\", or \"off\"",
        ],
    ),
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisten = “127.0.0.1:80”\n",
        &["3:10: strings must be quoted with `\"`; write \"127.0.0.1:80\""],
    ),
    (
        "; a note\n// another = one\n[entrypoints.a]\nlisten = \":80\"\nto = \"h:1\"\n",
        &[
            "1:1: comments start with `#`",
            "2:1: comments start with `#`",
        ],
    ),
    // Several at once, with what is in sound lines behind a mistake in the syntax.
    (
        "drain_timeout = 10s\nfoo = 1\n[log]\nlevl = 1\n[entrypoints.a]\nlisten = \"x:80\"\n",
        &[
            "1:17: strings must be quoted; write \"10s\"",
            "2:1: unknown key `foo`; expected one of `drain_timeout`, `watch`, `admin`, `log`, `metrics`, `entrypoints`, `services`",
            "4:1: unknown key `levl`; did you mean `level`?",
            "6:10: `x` is not an IP address; listen on one, such as `127.0.0.1:80`, or on all with `*:80`",
        ],
    ),
    // Tabs, long lines, byte order mark, line ends of Windows.
    (
        "[entrypoints.a]\r\n\tlisten =\t\"x:80\"\r\n\tto = \"h:1\"\r\n",
        &[
            "2:11: `x` is not an IP address; listen on one, such as `127.0.0.1:80`, or on all with `*:80`",
        ],
    ),
    (
        "\u{feff}foo = 1\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &[
            "1:1: unknown key `foo`; expected one of `drain_timeout`, `watch`, `admin`, `log`, `metrics`, `entrypoints`, `services`",
        ],
    ),
    (
        "[log] # ü\n\"ö\" = 1\n[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n",
        &["2:1: unknown key `ö`; expected one of `level`, `access`"],
    ),
    (
        "entrypoints.\"öä\" = 5\n",
        &["1:20: expected a table, found an integer; write [entrypoints.öä] on a line of its own"],
    ),
];

/// Each message with its line and column.
fn messages(diagnostics: &Diagnostics) -> Vec<String> {
    let told = diagnostics.told.iter();
    told.map(|Diagnostic { location, message }| match location {
        Some(Location { line, column, .. }) => format!("{line}:{column}: {message}"),
        None => message.clone(),
    })
    .collect()
}

/// Texts that are allowed, with what is warned of.
const ODD: &[(&str, &[&str])] = &[
    (
        "[entrypoints.a]\nlisten = \":80\"\nto = \"h:80\"\n[services.s]\nservers = [\"h:1\"]\n",
        &[
            "4:11: no entrypoint uses service `s`; remove it, or write service = \"s\" in an entrypoint",
        ],
    ),
    (
        "[entrypoints.a]\nlisten = \":80\"\nto = \"127.0.0.1:2672\"\n",
        &[
            "3:6: `127.0.0.1:2672` is the admin endpoint; anyone who can reach the entrypoint can read it",
        ],
    ),
    (
        "[entrypoints.a]\nlisten = \":80\"\nto = \"127.0.0.1:81\"\n[entrypoints.b]\nlisten = \"127.0.0.1:81\"\nto = \"h:1\"\n",
        &["3:6: `127.0.0.1:81` is entrypoint `b`, so these connections pass through coracle twice"],
    ),
    (
        "[entrypoints.a]\nlisten = [\"224.0.0.1:80\", \"[ff02::1]:80\", \"255.255.255.255:81\", \"0.1.2.3:80\"]\nto = \"240.0.0.1:1\"\n",
        &[
            "2:11: `224.0.0.1:80` is a multicast address, which clients cannot connect to; listen on an address of this machine, or on all with `*:80`",
            "2:27: `[ff02::1]:80` is a multicast address, which clients cannot connect to; listen on an address of this machine, or on all with `*:80`",
            "2:43: `255.255.255.255:81` is the broadcast address, which clients cannot connect to; listen on an address of this machine, or on all with `*:81`",
            "2:65: `0.1.2.3:80` is a reserved address, which clients cannot connect to; listen on an address of this machine, or on all with `*:80`",
            "3:6: `240.0.0.1:1` is a reserved address, which no server can use",
        ],
    ),
    (
        "[admin]\nsocket = \"unix:/run/a\"\n[entrypoints.a]\nlisten = \":80\"\nto = \"unix:/run/a\"\n",
        &[
            "5:6: `unix:/run/a` is the control socket; anyone who can reach the entrypoint can send commands to coracle",
        ],
    ),
    (
        "[entrypoints.a]\nlisten = \":80\"\nto = \"unix:/run/coracle/control.sock\"\n",
        &[
            "3:6: `unix:/run/coracle/control.sock` is the control socket; anyone who can reach the entrypoint can send commands to coracle",
        ],
    ),
    // With the control socket off, its path is free.
    (
        "[admin]\nsocket = \"off\"\n[entrypoints.a]\nlisten = \"unix:/run/coracle/control.sock\"\nto = \"h:1\"\n",
        &[],
    ),
    // Not circles: another port, another family, another path, and a wildcard that leaves IPv4 to another entrypoint.
    (
        "[entrypoints.a]\nlisten = [\"127.0.0.1:80\", \"0.0.0.0:81\", \"unix:/a\"]\nservice = \"s\"\n\
         [services.s]\nservers = [\"127.0.0.1:82\", \"[::1]:81\", \"unix:/b\", \"192.168.1.1:81\"]\n",
        &[],
    ),
    (
        "[entrypoints.a]\nlisten = \"[::]:80\"\nto = \"127.0.0.1:80\"\n[entrypoints.b]\nlisten = \"0.0.0.0:80\"\nto = \"h:1\"\n",
        &["3:6: `127.0.0.1:80` is entrypoint `b`, so these connections pass through coracle twice"],
    ),
];

#[test]
fn what_is_probably_not_meant_is_a_warning_with_its_place() {
    for (text, expected) in ODD {
        let config = Config::parse("c.toml", text, &[]).unwrap();
        let told = config.warnings.as_ref().map_or_else(Vec::new, messages);
        assert_eq!(told, *expected, "{text}");
    }
}

#[test]
fn warnings_of_the_command_line_name_the_flag() {
    let forward: Forward = "80:127.0.0.1:2672".parse().unwrap();
    let overrides = Overrides {
        forwards: vec![forward],
        ..Overrides::default()
    };
    let config = Config::with_overrides(None, &overrides).unwrap();
    assert_eq!(
        config.warnings.unwrap().to_string(),
        "command line: warning: -L 80:127.0.0.1:2672: `127.0.0.1:2672` is the admin endpoint; anyone who can reach the entrypoint can read it\n\n1 warning"
    );
    let forward: Forward = "80:127.0.0.1:80".parse().unwrap();
    let overrides = Overrides {
        forwards: vec![forward],
        ..Overrides::default()
    };
    let mistakes = Config::with_overrides(None, &overrides).unwrap_err();
    assert_eq!(
        messages(&mistakes),
        [
            "-L 80:127.0.0.1:80: entrypoint `127.0.0.1:80` listens on `127.0.0.1:80` itself and would forward to itself forever; use another server"
        ]
    );
}

#[test]
fn every_mistake_is_told_with_its_place() {
    for (text, expected) in WRONG {
        let mistakes = Config::parse("t.toml", text, &[]).unwrap_err();
        assert_eq!(messages(&mistakes), *expected, "in\n{text}");
    }
}

/// The complete output.
const RENDERED: &[(&str, &str)] = &[
    (
        "[entrypoints.a]\nto = \"h:1\"\nlisen = \"0.0.0.0:80\"\nkeepalive = 5\n",
        r#"t.toml:3:1: unknown key `lisen`; did you mean `listen`?
  |
3 | lisen = "0.0.0.0:80"
  | ^^^^^

t.toml:4:13: expected a string, found an integer; write "5s" for seconds
  |
4 | keepalive = 5
  |             ^

2 errors"#,
    ),
    (
        "\n\n\n\n\n\n\n\n\n[log]\r\n\tlevel =\t\"ö\" # \u{e9}\r\n[entrypoints.a]\nto = \"h:1\"\nlisten = \":80\"",
        "\
t.toml:11:10: unknown level `ö`; the levels are error, warn, info, debug, trace and off
   |
11 |     level =    \"ö\" # é
   |                ^^^

1 error",
    ),
    // The caret counts terminal columns: wide, combining and joined characters, a tab, CRLF and a byte order mark.
    (
        "\u{feff}log = { level = \"\u{65e5}\u{672c}\",\t\"e\u{301}\u{1f600}\" = 1, access = 5 }\r\n[entrypoints.a]\nto = \"h:1\"\nlisten = \":80\"",
        "\
t.toml:1:17: unknown level `\u{65e5}\u{672c}`; the levels are error, warn, info, debug, trace and off
  |
1 | log = { level = \"\u{65e5}\u{672c}\",    \"e\u{301}\u{1f600}\" = 1, access = 5 }
  |                 ^^^^^^

t.toml:1:23: unknown key `e\u{301}\u{1f600}`; expected one of `level`, `access`
  |
1 | log = { level = \"\u{65e5}\u{672c}\",    \"e\u{301}\u{1f600}\" = 1, access = 5 }
  |                            ^^^^^

t.toml:1:43: expected true or false, found an integer
  |
1 | log = { level = \"\u{65e5}\u{672c}\",    \"e\u{301}\u{1f600}\" = 1, access = 5 }
  |                                                ^

3 errors",
    ),
    (
        "",
        "\
t.toml: no entrypoints; add a table [entrypoints.NAME] with `listen` and `to`

1 error",
    ),
];

#[test]
fn a_mistake_is_shown_in_its_line() {
    for (text, expected) in RENDERED {
        let mistakes = Config::parse("t.toml", text, &[]).unwrap_err();
        assert_eq!(mistakes.to_string(), *expected);
    }
}

#[test]
fn a_long_line_is_cut_around_the_place() {
    let text = format!(
        "[log]\nlevel = \"info\" # {0}\n[x.{0}]\n{0} = [5]\n",
        "y".repeat(5000)
    );
    let told = Config::parse("t.toml", &text, &[]).unwrap_err().to_string();
    assert!(
        told.lines().all(|line| line.chars().count() < 250),
        "{told}"
    );
}

#[test]
fn many_mistakes_are_told_up_to_a_number() {
    let text: String = (0..1000).map(|n| format!("key{n} = {n}\n")).collect();
    let mistakes = Config::parse("t.toml", &text, &[]).unwrap_err();
    assert_eq!(mistakes.told.len(), Diagnostics::MAX_TOLD);
    let told = mistakes.to_string();
    assert!(told.ends_with("and 901 more\n\n1001 errors"), "{told}");
}

#[test]
fn a_control_character_never_reaches_the_terminal() {
    let text =
        "[log]\nlevel = \"a\u{1b}[31m\u{202e}\"\n\"\u{9b}\" = 1\n[entrypoints.\"\\u001b\"]\n";
    let told = Config::parse("\u{1b}", text, &[]).unwrap_err().to_string();
    let bad = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!told.contains(bad), "{told:?}");
}

const FULL: &str = r#"# Everything there is.
drain_timeout = "0s"
watch = true
admin.listen = "off"
admin.socket = "/run/control.sock"
admin.hosts = ["nas.example.org", "coracle"]
[log]
level = "debug"
access = true
[metrics]
compat = ["traefik"]
[entrypoints."ssh to nas"]
listen = ["0.0.0.0:2222", "[::]:2222", "unix:/run/ssh.sock"]
to = "nas.lan.:22"
connect_timeout = "1500ms"
dial_timeout = "4s"
idle_timeout = "1h 30m"
half_close_timeout = "30s"
keepalive = "off"
on_removed = "drain"
reuse_port = false
[entrypoints.web]
listen = "*:80"
reuse_port = true
service = "web"
[entrypoints.any]
on_removed = "close"
listen = [":0", "127.0.0.1:0", ":0"]
to = "unix:/run/app.sock"
[services.web]
servers = ["192.168.1.10:80", "[fd00::10]:80"]
[services.unused]
servers = ["h:1"]
"#;

#[test]
fn every_key_is_read() {
    let config = Config::parse("t.toml", FULL, &[]).unwrap();
    assert_eq!(config.drain_timeout, Duration::ZERO);
    assert!(config.watch);
    assert_eq!(config.admin.listen, None);
    assert_eq!(
        config.admin.socket,
        ControlSocket::At("/run/control.sock".into())
    );
    assert_eq!(config.admin_hosts, ["nas.example.org", "coracle"]);
    assert_eq!(config.log.level, log::LevelFilter::Debug);
    assert!(config.log.access);
    assert!(config.metrics.traefik);
    let names = |config: &Config| -> Vec<String> {
        config
            .entrypoints
            .iter()
            .map(|it| it.name.clone())
            .collect()
    };
    assert_eq!(names(&config), ["ssh to nas", "web", "any"]);
    let ssh = &config.entrypoints[0];
    assert_eq!(ssh.idle_timeout, Some(Duration::from_secs(5400)));
    assert_eq!(ssh.half_close_timeout, Some(Duration::from_secs(30)));
    assert_eq!(ssh.keepalive, None);
    let on_removed: Vec<_> = config.entrypoints.iter().map(|it| it.on_removed).collect();
    assert_eq!(
        on_removed,
        [OnRemoved::Drain, OnRemoved::Keep, OnRemoved::Close]
    );
    let reuse: Vec<_> = config.entrypoints.iter().map(|it| it.reuse_port).collect();
    assert_eq!(reuse, [false, true, false]);
    let v6only = |listen: &Listen| matches!(listen, Listen::Tcp { v6only: true, .. });
    let v6only =
        |at: usize| -> Vec<bool> { config.entrypoints[at].listen.iter().map(v6only).collect() };
    assert_eq!(v6only(0), [false, true, false]);
    assert_eq!(v6only(1), [false]);
    assert_eq!(v6only(2), [false, false, false]);
    let services: Vec<_> = config.services.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(services, ["web", "unused", "ssh to nas", "any"]);
    let service = |at: usize| &config.services[config.entrypoints[at].service];
    assert_eq!(service(0).servers[0].to_string(), "nas.lan.:22");
    assert_eq!(service(0).connect_timeout, Duration::from_millis(1500));
    assert_eq!(service(0).dial_timeout, Duration::from_secs(4));
    assert_eq!(service(1).servers[1].to_string(), "[fd00::10]:80");
    assert_eq!(service(2).servers[0].to_string(), "unix:/run/app.sock");
}

#[test]
fn defaults_are_the_documented_ones() {
    let text = "entrypoints.a = { listen = \"127.0.0.1:80\", to = \"h:1\" }";
    let config = Config::parse("t.toml", text, &[]).unwrap();
    assert_eq!(config.drain_timeout, Duration::from_secs(9));
    assert!(!config.watch);
    assert_eq!(config.admin.listen.unwrap().to_string(), "127.0.0.1:2672");
    assert_eq!(config.admin.socket, ControlSocket::Default);
    assert_eq!(
        config.admin.socket.path(),
        Some(Path::new("/run/coracle/control.sock"))
    );
    assert_eq!(config.log.level, log::LevelFilter::Info);
    assert!(!config.log.access);
    assert!(!config.metrics.traefik);
    let entrypoint = &config.entrypoints[0];
    assert_eq!(entrypoint.idle_timeout, None);
    assert_eq!(entrypoint.half_close_timeout, None);
    assert_eq!(entrypoint.keepalive, Some(Duration::from_secs(60)));
    assert_eq!(entrypoint.on_removed, OnRemoved::Keep);
    assert!(!entrypoint.reuse_port);
    assert_eq!(config.services[0].connect_timeout, Duration::from_secs(5));
    assert_eq!(config.services[0].dial_timeout, Duration::from_secs(10));
}

#[test]
fn the_most_servers_are_allowed_and_no_more() {
    let text = |n: usize| {
        let servers: Vec<_> = (1..=n).map(|port| format!("\"h:{port}\"")).collect();
        let servers = servers.join(",");
        format!(
            "[entrypoints.a]\nlisten = \":80\"\nservice = \"s\"\n[services.s]\nservers = [{servers}]"
        )
    };
    assert_eq!(
        Config::parse("t", &text(1024), &[]).unwrap().services[0]
            .servers
            .len(),
        1024
    );
    let mistakes = Config::parse("t", &text(1025), &[]).unwrap_err();
    assert_eq!(
        mistakes.told[0].message,
        "the list has 1025 servers; the limit is 1024"
    );
}

#[test]
fn forwards_are_read_as_ssh_does() {
    const GOOD: &[(&str, &str, &str)] = &[
        ("8080:192.168.1.10:80", "127.0.0.1:8080", "192.168.1.10:80"),
        ("0:h:80", "127.0.0.1:0", "h:80"),
        ("*:8080:h:80", "[::]:8080", "h:80"),
        (":8080:h:80", "[::]:8080", "h:80"),
        ("0.0.0.0:8080:h:80", "0.0.0.0:8080", "h:80"),
        ("[::1]:8080:[fd00::1]:80", "[::1]:8080", "[fd00::1]:80"),
        ("8080:[fd00::1]:80", "127.0.0.1:8080", "[fd00::1]:80"),
        (
            "8080:unix:/run/app.sock",
            "127.0.0.1:8080",
            "unix:/run/app.sock",
        ),
        ("[::]:8080:unix:/run/a:b", "[::]:8080", "unix:/run/a:b"),
        ("unix:/run/x.sock:h:80", "unix:/run/x.sock", "h:80"),
        ("unix:/run/x:y:[::1]:80", "unix:/run/x:y", "[::1]:80"),
        ("unix:/run/x:unix:/run/y", "unix:/run/x", "unix:/run/y"),
    ];
    for (text, listen, to) in GOOD {
        let forward: Forward = text.parse().unwrap();
        assert_eq!(forward.listen.to_string(), *listen, "{text}");
        assert_eq!(forward.to.to_string(), *to, "{text}");
    }
}

#[test]
fn a_bad_forward_is_told_by_its_part() {
    const BAD: &[(&str, &str)] = &[
        (
            "",
            "the port to listen on, the host and the port to connect to are missing",
        ),
        ("8080", "the host and the port to connect to are missing"),
        ("8080:h", "the port to connect to is missing"),
        (
            "8080:/run/app.sock",
            "the port to connect to is missing; write `unix:/run/app.sock` for a Unix socket",
        ),
        (
            "h:80:8080",
            "listening port: `h` is not a port; a port is a number from 1 to 65535",
        ),
        (
            "udp/53:h:53",
            "listening port: `udp/53` is not a port; a port is a number from 1 to 65535",
        ),
        (
            "70000:h:80",
            "listening port: port 70000 is too large; the largest is 65535",
        ),
        (
            "8080:h:0",
            "target: cannot connect to port 0; a port is a number from 1 to 65535",
        ),
        (
            "8080:h:http",
            "target: `http` is not a port; a port is a number from 1 to 65535",
        ),
        (
            "8080::80",
            "target: the host to connect to is missing; write one, such as `192.168.1.10:80`",
        ),
        (
            "8080:a..b:80",
            "target: host name `a..b` has an empty part; remove the extra dot",
        ),
        (
            "localhost:8080:h:80",
            "bind address: `localhost` is not an IP address; listen on one, such as `127.0.0.1:8080`, or on all with `*:8080`",
        ),
        (
            "8080:fd00::1:80",
            "too many parts; IPv6 addresses must be in brackets, such as [::1]",
        ),
        ("[::1:8080:h:80", "missing `]`"),
        ("[::1]8080:h:80", "missing `:` after `]`"),
        (
            "[::g]:8080:h:80",
            "bind address: `::g` is not an IPv6 address",
        ),
        ("unix:/run/x", "the host and port to connect to are missing"),
        (
            "unix:/run/x:80",
            "the host and port to connect to are missing",
        ),
        (
            "unix:run/x:h:80",
            "`unix:run/x` is not an absolute path; write one such as `unix:/run/app.sock`",
        ),
        (
            "8080:unix:app",
            "`unix:app` is not an absolute path; write one such as `unix:/run/app.sock`",
        ),
        ("a:b:8080:unix:/x", "too many parts before `unix:`"),
    ];
    for (text, why) in BAD {
        let mistake = text.parse::<Forward>().unwrap_err().to_string();
        let form = "(the form is [BIND:]PORT:HOST:HOSTPORT, for example 8080:192.168.1.10:80)";
        assert_eq!(mistake, format!("`{text}` is not a forward: {why} {form}"));
    }
}

#[test]
fn forwards_join_the_file() {
    let text = "[entrypoints.\"127.0.0.1:0\"]\nlisten = \":80\"\nto = \"h:1\"\n";
    let forwards = ["0:a:1", "0:b:1", "*:81:c:1", "unix:/run/d:h:1"].map(|it| it.parse().unwrap());
    let config = Config::parse("t.toml", text, &forwards).unwrap();
    let names: Vec<_> = config
        .entrypoints
        .iter()
        .map(|it| it.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "127.0.0.1:0",
            "127.0.0.1:0-2",
            "127.0.0.1:0-3",
            "*:81",
            "unix:d"
        ]
    );
    let servers = config
        .entrypoints
        .iter()
        .map(|it| &config.services[it.service].servers[0]);
    let servers: Vec<_> = servers.map(ToString::to_string).collect();
    assert_eq!(servers, ["h:1", "a:1", "b:1", "c:1", "h:1"]);

    let again = ["127.0.0.1:80:h:1".parse().unwrap()];
    let mistakes = Config::parse("t.toml", text, &again).unwrap_err();
    assert_eq!(
        mistakes.told[0].message,
        "`*:80` takes IPv4 too, but entrypoint `127.0.0.1:80` listens on `127.0.0.1:80` (-L 127.0.0.1:80:h:1); write `[::]:80` for IPv6 alone"
    );
}

#[test]
fn forwards_do_without_a_file() {
    let mut overrides = Overrides {
        forwards: vec!["8080:h:80".parse().unwrap()],
        ..Overrides::default()
    };
    let config = Config::with_overrides(None, &overrides).unwrap();
    assert_eq!(config.entrypoints[0].name, "127.0.0.1:8080");
    overrides.forwards.clear();
    let none = Config::with_overrides(None, &overrides).unwrap_err();
    let none = none.to_string();
    assert!(none.starts_with("command line: no entrypoints"), "{none}");
}

#[test]
fn the_command_line_has_the_last_word() {
    let text =
        "admin.socket = \"/run/c\"\n[entrypoints.a]\nlisten = \"127.0.0.1:2672\"\nto = \"h:1\"\n";
    let mut overrides = Overrides {
        admin: Some("off".parse().unwrap()),
        access_log: true,
        ..Overrides::default()
    };
    let config = Config::with_overrides(Some(("t.toml", text)), &overrides).unwrap();
    let admin = Admin {
        listen: None,
        socket: ControlSocket::At("/run/c".into()),
    };
    assert_eq!(config.admin, admin);
    assert!(config.log.access);
    overrides.admin = Some("0.0.0.0:2672".parse().unwrap());
    let mistakes = Config::with_overrides(Some(("t.toml", text)), &overrides).unwrap_err();
    assert_eq!(
        mistakes.told[0].message,
        "`127.0.0.1:2672` and `0.0.0.0:2672` of the admin endpoint (--admin) overlap; change one"
    );
}

#[test]
fn deep_nesting_ends_in_a_mistake() {
    for text in [
        "a = ".to_owned() + &"[".repeat(200_000),
        "{a = ".repeat(100_000),
        "a.".repeat(100_000) + "a = 1",
        "[".repeat(100_000),
    ] {
        Config::parse("t.toml", &text, &[]).unwrap_err();
    }
}

/// Seeded mutations of sound texts: whatever comes of them, the reader says it with a place inside the text.
#[test]
fn no_text_makes_the_reader_panic() {
    const ROUNDS: usize = 10_000;
    let mut random = Random(fastrand::Rng::with_seed(0x2672));
    let wrong = WRONG.iter().map(|(text, _)| *text);
    let seeds: Vec<&str> = std::iter::once(FULL).chain(wrong).collect();
    let mut accepted = 0;
    for round in 0..ROUNDS {
        let seed = if round % 2 == 0 {
            FULL
        } else {
            seeds[random.below(seeds.len())]
        };
        let mut bytes = seed.as_bytes().to_vec();
        for _ in 0..=random.below(4) {
            mutate(&mut bytes, &seeds, &mut random);
        }
        let text = String::from_utf8_lossy(&bytes);
        let Err(mistakes) = Config::parse("t.toml", &text, &[]) else {
            accepted += 1;
            continue;
        };
        assert!(!mistakes.to_string().is_empty());
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let lines: Vec<_> = text.split('\n').collect();
        for location in mistakes.told.iter().filter_map(|it| it.location.as_ref()) {
            let line = lines.get(location.line - 1);
            let columns = line.map_or(0, |line| line.chars().count() + 1);
            assert!(
                (1..=columns).contains(&location.column),
                "round {round}: {location:?}\n{text}"
            );
        }
    }
    assert!(
        (ROUNDS / 100..ROUNDS / 2).contains(&accepted),
        "{accepted} accepted"
    );
}

fn mutate(bytes: &mut Vec<u8>, seeds: &[&str], random: &mut Random) {
    const TELLING: &[u8] = b"\"'[]{}=.,:#\\\n\r\t 0-*%\x00\x7f\xc3\xef";
    let from = random.below(bytes.len() + 1);
    let to = (from + random.below(12)).min(bytes.len());
    let at = random.below(bytes.len() + 1);
    match random.below(6) {
        0 if from < bytes.len() => bytes[from] ^= 1 << random.below(8),
        1 if from < bytes.len() => bytes[from] = TELLING[random.below(TELLING.len())],
        2 => drop(bytes.drain(from..to)),
        3 => {
            let part = bytes[from..to].to_vec();
            bytes.splice(at..at, part);
        }
        4 if from < bytes.len() && at < bytes.len() => bytes.swap(from, at),
        _ => {
            let other = seeds[random.below(seeds.len())].as_bytes();
            let start = random.below(other.len() + 1);
            let end = (start + random.below(40)).min(other.len());
            bytes.splice(at..at, other[start..end].iter().copied());
        }
    }
}

/// Choices from a fixed seed: each run makes the same ones.
struct Random(fastrand::Rng);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0.usize(..n)
    }
}
