//! The local window: the HTTP endpoint with metrics and health. It reads the state and changes nothing.
use std::{io, net::SocketAddr, rc::Rc};
/// x
#[derive(Debug)]
pub struct Listener;
impl Listener {
    /// x
    pub fn bind(_: SocketAddr) -> io::Result<Self> {
        Ok(Self)
    }
    /// x
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Other.into())
    }
}
/// x
pub async fn serve(_: Listener, _: Rc<smol::LocalExecutor<'static>>, _: Rc<crate::state::Shared>) {}
