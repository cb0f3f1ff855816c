//! Bytes of servers and services: exact while connections are open and afterwards, also when a reload
//! removes a server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::support::backend::{Script, bound_but_not_listening, pattern};
use crate::support::http::get;
use crate::support::metrics::{bytes_add_up, scrape};
use crate::support::process::Coracle;
use crate::support::{DEADLINE, backend, lasting_address, rng, until};

/// How many bytes a client has sent to its server and received from it.
type Passed = [u64; 2];

/// A connection that has an echo of `n` bytes behind it.
fn echoed(address: SocketAddr, n: usize) -> (TcpStream, Passed) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let request = Script::Echo.request(0);
    stream.write_all(&request).unwrap();
    stream.write_all(&pattern(n)).unwrap();
    stream.read_exact(&mut vec![0; n]).unwrap();
    (stream, [(request.len() + n) as u64, n as u64])
}

fn sum(all: &[Passed]) -> Passed {
    all.iter()
        .fold([0; 2], |sum, it| [sum[0] + it[0], sum[1] + it[1]])
}

fn bytes(it: &Value) -> Passed {
    ["to_server_bytes", "to_client_bytes"].map(|key| it[key].as_u64().unwrap())
}

/// The bytes of an object of one list of the API; of its servers all together.
fn of(admin: SocketAddr, list: &str, key: &str, name: &str) -> Passed {
    let status: Value = serde_json::from_str(&get(admin, "/api/v1/status").2).unwrap();
    let all = status[list].as_array().unwrap().iter();
    let own: Vec<_> = all.filter(|it| it[key] == name).map(bytes).collect();
    sum(&own)
}

/// Waits until an object has passed on `expected`: a client may be faster than the count.
fn wait(admin: SocketAddr, list: &str, key: &str, name: &str, expected: Passed) {
    until(&format!("{list} with {key} {name}: {expected:?}"), || {
        (of(admin, list, key, name) == expected).then_some(())
    });
}

#[test]
fn bytes_of_servers_add_up_to_those_of_their_entrypoints() {
    let mut rng = rng::from_env();
    let dead = bound_but_not_listening();
    let dead = dead.local_addr().unwrap().as_socket().unwrap();
    let [first, second, third] = [(); 3].map(|()| backend::start());
    let [admin, web, ssh] = [(); 3].map(|()| lasting_address(&mut rng));
    let config = |web_servers: &[SocketAddr]| {
        let servers: Vec<_> = web_servers.iter().map(|it| format!("\"{it}\"")).collect();
        let servers = servers.join(", ");
        format!(
            "[admin]\nlisten = \"{admin}\"\nsocket = \"off\"\n\
             [entrypoints.web]\nlisten = \"{web}\"\nservice = \"pages\"\n\
             [entrypoints.ssh]\nlisten = \"{ssh}\"\nservice = \"shells\"\n\
             [services.pages]\nservers = [{servers}]\n\
             [services.shells]\nservers = [\"{third}\"]\n"
        )
    };
    // What a dead server was offered first counts for the one that took it.
    let coracle = Coracle::start(&config(&[dead, first, second]));
    let of_web: Vec<_> = (1..=12).map(|n| echoed(web, n * 1_000)).collect();
    let of_ssh: Vec<_> = (1..=5).map(|n| echoed(ssh, n * 100_000)).collect();
    let [pages, shells] = [&of_web, &of_ssh].map(|all| {
        let passed: Vec<_> = all.iter().map(|(_, passed)| *passed).collect();
        sum(&passed)
    });
    let all_agree = || {
        wait(admin, "entrypoints", "name", "web", pages);
        wait(admin, "entrypoints", "name", "ssh", shells);
        wait(admin, "services", "name", "pages", pages);
        wait(admin, "services", "name", "shells", shells);
        wait(admin, "servers", "service", "shells", shells);
    };
    all_agree();
    wait(admin, "servers", "service", "pages", pages);
    assert_eq!(of(admin, "servers", "name", &dead.to_string()), [0, 0]);
    let own = of(admin, "servers", "name", &second.to_string());
    assert!(own > [0, 0] && own < pages, "{own:?}");
    let metrics = scrape(admin);
    bytes_add_up(&metrics);
    for (direction, n) in ["to_server", "to_client"].iter().zip(own) {
        let labels = [
            "service=\"pages\"".to_owned(),
            format!("server=\"{second}\""),
            format!("direction=\"{direction}\""),
        ];
        let labels = labels.each_ref().map(String::as_str);
        let counted = metrics.sum_of("coracle_service_bytes_total", &labels);
        assert_eq!(counted, n as f64, "{direction}");
    }

    // A removed server counts until its last connection has ended, and for its service after that.
    assert!(coracle.reload(&config(&[dead, first])));
    all_agree();
    wait(admin, "servers", "service", "pages", pages);
    drop((of_web, of_ssh));
    until("all have left", || {
        (scrape(admin).sum("coracle_open_connections") == 0.0).then_some(())
    });
    all_agree();
    let rest = [pages[0] - own[0], pages[1] - own[1]];
    wait(admin, "servers", "service", "pages", rest);
    let metrics = scrape(admin);
    let second = format!("server=\"{second}\"");
    let mut series = metrics.series("coracle_service_bytes_total");
    assert!(series.all(|(labels, _)| !labels.contains(&second)));
}
