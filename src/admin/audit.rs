//! The set beside the kernel's table, connection by connection, as JSON.

use std::fmt::Write;

use super::body::Body;
use super::kernel::{BETWEEN_READINGS, Kernel, READINGS};
use super::moments::Moments;
use super::park::Park;
use super::report::{Differences, Json, Report};

/// Compares until both agree, or what is left of the differences has lasted, and writes what was found to `body`.
///
/// An entry counts as missing in the kernel if it was in the set both before and after the kernel's table was read and has no
/// socket in it; a socket counts as missing in the set if it belongs to no entry of either moment.
///
/// Returns false when the loop does not answer.
pub async fn audit(moments: &Moments, kernel: &Kernel, park: &Park, body: &mut Body) -> bool {
    let mut earlier: Option<Differences> = None;
    for reading in 1..=READINGS {
        moments.turn().await;
        let Some(before) = moments.entries().await else {
            return false;
        };
        let Some((source, table, took)) = kernel.read(&before.catalogue, reading > 1) else {
            let _ = write!(
                body,
                "{{\"coracle\":{},\"error\":\"the kernel's table of sockets cannot be read: \
                neither sock_diag nor /proc is available\"}}",
                Json(env!("CARGO_PKG_VERSION"))
            );
            return true;
        };
        moments.turn().await;
        let Some(after) = moments.entries().await else {
            return false;
        };
        let mut report = Report::new(before, table, after, source, took);
        if let Some(earlier) = &earlier {
            report.differences = report.differences.shared_with(earlier);
        }
        if report.differences.is_empty() || reading == READINGS {
            // Writing to a body cannot fail.
            let _ = report.write(body).await;
            return true;
        }
        earlier = Some(report.differences);
        park.sleep(BETWEEN_READINGS).await;
    }
    true
}
