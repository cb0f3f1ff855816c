//! The set compared with the kernel's socket table, connection by connection, as JSON.

use std::fmt::Write;
use std::rc::Rc;

use super::comparison::{BETWEEN_READINGS, READINGS};
use super::kernel::Kernel;
use super::report::{Differences, Listed, Report};
use crate::admin::body::{Body, Room};
use crate::admin::json::Json;
use crate::admin::moments::Moments;
use crate::admin::park::Park;

/// Compares until both agree, or until the remaining differences have persisted, and writes a
/// report.
///
/// An entry counts as missing in the kernel if it was in the set both before and after the kernel's
/// table was read and has no socket in it. A socket counts as missing in the set if it belongs to
/// no entry of either moment.
///
/// Returns `None` if the data loop does not answer.
pub(crate) async fn audit(
    moments: &Moments,
    kernel: &Kernel,
    park: &Park,
    room: &Rc<Room>,
    listed: Listed,
) -> Option<Body> {
    // Held from here on: both sides of the comparison are large, too.
    let _making = room.free().await;
    let mut earlier: Option<Differences> = None;
    for reading in 1.. {
        moments.rested().await;
        let before = moments.entries().await?;
        let Some((source, table, took)) = kernel.read(&before.addresses, reading > 1) else {
            return Some(unreadable(room));
        };
        moments.rested().await;
        let after = moments.entries().await?;
        let mut report = Report::new(before, table, after, source, took);
        if let Some(earlier) = &earlier {
            report.differences = report.differences.shared_with(earlier);
        }
        if report.differences.is_empty() || reading == READINGS {
            let mut body = Body::in_room(room);
            // Writing to a body cannot fail.
            let _ = report.write(&mut body, listed).await;
            return Some(body);
        }
        earlier = Some(report.differences);
        park.sleep(BETWEEN_READINGS).await;
    }
    None
}

fn unreadable(room: &Rc<Room>) -> Body {
    let mut body = Body::in_room(room);
    let version = Json(env!("CARGO_PKG_VERSION"));
    let why =
        "the kernel's table of sockets cannot be read: neither sock_diag nor /proc is available";
    let _ = write!(body, "{{\"coracle\":{version},\"error\":{}}}", Json(why));
    body
}
