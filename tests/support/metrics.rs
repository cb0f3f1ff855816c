//! Scrapes: fetched over a raw socket, parsed, and checked for what must hold in each.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// The samples of one scrape, by series: `name{labels}`.
#[derive(Clone, Debug, Default)]
pub struct Metrics(pub BTreeMap<String, f64>);

impl Metrics {
    /// Reads text format 0.0.4.
    pub fn parse(text: &str) -> Self {
        let samples = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty());
        let samples = samples.map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        });
        Self(samples.collect())
    }

    /// The sum of all series of a metric.
    pub fn sum(&self, name: &str) -> f64 {
        self.sum_where(name, "")
    }

    /// The sum of the series of a metric whose labels contain `label`, such as `reason="done"`.
    pub fn sum_where(&self, name: &str, label: &str) -> f64 {
        self.sum_of(name, &[label])
    }

    /// The sum of the series of a metric that have all these labels.
    pub fn sum_of(&self, name: &str, labels: &[&str]) -> f64 {
        let has_all = |own: &str| labels.iter().all(|label| own.contains(label));
        let series = self.series(name).filter(|(own, _)| has_all(own));
        series.map(|(_, value)| value).sum()
    }

    /// Every series of a metric: its labels and its value.
    pub fn series<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.iter().filter_map(move |(series, value)| {
            let labels = series.strip_prefix(name)?;
            (labels.is_empty() || labels.starts_with('{')).then_some((labels, *value))
        })
    }
}

impl std::ops::Index<&str> for Metrics {
    type Output = f64;

    fn index(&self, series: &str) -> &f64 {
        &self.0[series]
    }
}

/// Fetches `/metrics` on its own connection.
pub fn scrape(admin: SocketAddr) -> Metrics {
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let (status, _, body) = super::http::http(admin, request);
    assert_eq!(status, 200, "{body}");
    Metrics::parse(&body)
}

/// Scrapes continuously and checks every scrape.
pub struct Scraper {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    checked: AtomicU64,
}

impl Scraper {
    /// For a program whose sets are whole and whose entrypoints and servers stay.
    pub fn start(admin: SocketAddr) -> Self {
        Self::start_with(admin, |last, now| {
            check(last, now);
            agrees(now);
            bytes_add_up(now);
        })
    }

    /// The same, with `check` applied to each scrape and the one before it.
    pub fn start_with(admin: SocketAddr, check: fn(&Metrics, &Metrics)) -> Self {
        let shared = Arc::<Shared>::default();
        let own = shared.clone();
        let thread = std::thread::spawn(move || {
            let mut last = Metrics::default();
            let mut client = super::http::Client::connect(admin);
            while !own.stop.load(Ordering::Relaxed) {
                let answer = client.get_if_open("/metrics").unwrap_or_else(|| {
                    // It was idle for too long, because this machine stalled.
                    client = super::http::Client::connect(admin);
                    client.get("/metrics")
                });
                let metrics = Metrics::parse(&answer.body);
                check(&last, &metrics);
                last = metrics;
                own.checked.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { shared, thread }
    }

    /// How many scrapes have been checked so far.
    pub fn checked(&self) -> u64 {
        assert!(!self.thread.is_finished(), "a scrape was wrong");
        self.shared.checked.load(Ordering::Relaxed)
    }

    /// Stops. Returns how many scrapes were checked.
    pub fn stop(self) -> u64 {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.shared.checked.load(Ordering::Relaxed)
    }
}

/// What holds in every scrape: per entrypoint `opened - sum(closed) = open`.
pub fn balances(metrics: &Metrics) {
    let mut entrypoints = 0;
    for (labels, open) in metrics.series("coracle_open_connections") {
        let own = labels.trim_end_matches('}');
        let closed = metrics.sum_where("coracle_connections_closed_total", own);
        let opened = metrics.sum_where("coracle_connections_opened_total", own);
        assert_eq!(
            opened - closed,
            open,
            "{labels}: opened {opened}, closed {closed}"
        );
        entrypoints += 1;
    }
    assert!(entrypoints > 0, "no entrypoint in the scrape");
}

/// What holds in every scrape of a program whose sets are whole: each entrypoint agrees with the
/// kernel, wherever its table can be read.
pub fn agrees(metrics: &Metrics) {
    for (labels, mismatch) in metrics.series("coracle_connection_mismatch") {
        assert_eq!(mismatch, 0.0, "{labels}");
    }
}

/// What holds in every scrape of a program whose entrypoints and servers stay: what the entrypoints
/// have passed on, the servers have.
pub fn bytes_add_up(metrics: &Metrics) {
    for direction in ["direction=\"to_server\"", "direction=\"to_client\""] {
        let [entrypoints, servers] = ["coracle_bytes_total", "coracle_service_bytes_total"]
            .map(|name| metrics.sum_where(name, direction));
        assert_eq!(entrypoints, servers, "{direction}");
    }
}

/// What holds in every scrape, and between two of them if no entrypoint comes or goes: no counter
/// decreases.
pub fn check(last: &Metrics, metrics: &Metrics) {
    balances(metrics);
    for (series, before) in &last.0 {
        let name = series.split('{').next().unwrap();
        let is_counter = ["_total", "_bucket", "_count", "_sum"]
            .iter()
            .any(|end| name.ends_with(end));
        if is_counter {
            let now = metrics
                .0
                .get(series)
                .unwrap_or_else(|| panic!("{series} is gone"));
            assert!(now >= before, "{series} decreased from {before} to {now}");
        }
    }
}
