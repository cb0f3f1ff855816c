//! Tells protocols apart by the first bytes that a client sends.
//!
//! Only protocols whose client speaks first, and whose beginning no other has. No two of them match
//! the same bytes. Not among them: those whose server speaks first (SMTP, IMAP, FTP, MySQL, VNC),
//! and those whose beginning is short or free, such as telnet or OpenVPN with a static key.

mod signature;

/// A protocol that its first bytes reveal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TLS from version 1.0 on: a record that begins with a ClientHello (RFC 8446, sections 4 and
    /// 5.1). Not the hello of SSL 2, which is prohibited (RFC 6176).
    Tls,
    /// HTTP/1.0 and 1.1, WebSockets among them: a request line (RFC 9112, section 3).
    Http,
    /// HTTP/2 without TLS: the preface (RFC 9113, section 3.4).
    Http2,
    /// SSH: the identification string (RFC 4253, section 4.2). Some clients wait for the server's.
    Ssh,
    /// RDP: a connection request with a cookie, a routing token or a negotiation, as all clients
    /// since RDP 5.1 send it ([MS-RDPBCGR], section 2.2.1.1).
    Rdp,
    /// MQTT 3.1, 3.1.1 and 5: CONNECT (MQTT 5.0, section 3.1.2).
    Mqtt,
    /// Minecraft (Java Edition, since 1.7): the handshake packet (minecraft.wiki, "Java Edition
    /// protocol").
    Minecraft,
    /// SOCKS 5: the methods of authentication (RFC 1928, section 3).
    Socks5,
    /// PostgreSQL: StartupMessage, SSLRequest, GSSENCRequest or CancelRequest (PostgreSQL, "Message
    /// Formats"). A client that asks for TLS sends its ClientHello only after the server's answer.
    Postgres,
    /// OpenVPN over TCP with TLS: P_CONTROL_HARD_RESET_CLIENT_V2 or V3, plain or with `tls-auth`,
    /// `tls-crypt` or `tls-crypt-v2` (OpenVPN, `ssl_pkt.h` and "tls-crypt-v2.txt").
    OpenVpn,
    /// WireGuard, each datagram with its length in two bytes before it, as Mullvad's udp-over-tcp
    /// does: the initiation of a handshake (WireGuard's paper, section 5.4.2).
    WireGuardTcp,
    /// XMPP: the header of a stream, after an optional XML declaration (RFC 6120, section 4.2).
    Xmpp,
    /// AMQP 0-8 to 1.0: the protocol header (AMQP 1.0, section 2.2).
    Amqp,
    /// Redis: a command as an array of strings (Redis serialization protocol).
    Redis,
    /// RTSP: a request line (RFC 7826, section 20.1).
    Rtsp,
    /// SIP: a request line (RFC 3261, section 7.1).
    Sip,
    /// BitTorrent without encryption: the handshake (BEP 3).
    BitTorrent,
}

impl Protocol {
    /// All protocols.
    pub const ALL: [Self; 17] = [
        Self::Tls,
        Self::Http,
        Self::Http2,
        Self::Ssh,
        Self::Rdp,
        Self::Mqtt,
        Self::Minecraft,
        Self::Socks5,
        Self::Postgres,
        Self::OpenVpn,
        Self::WireGuardTcp,
        Self::Xmpp,
        Self::Amqp,
        Self::Redis,
        Self::Rtsp,
        Self::Sip,
        Self::BitTorrent,
    ];

    /// As many bytes always suffice to tell: a request line of the length that every server should
    /// accept (RFC 9112, section 3), and its end.
    pub const MOST_BYTES: usize = 8_002;

    /// Returns the name, as in a configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Ssh => "ssh",
            Self::Rdp => "rdp",
            Self::Mqtt => "mqtt",
            Self::Minecraft => "minecraft",
            Self::Socks5 => "socks5",
            Self::Postgres => "postgres",
            Self::OpenVpn => "openvpn",
            Self::WireGuardTcp => "wireguard-tcp",
            Self::Xmpp => "xmpp",
            Self::Amqp => "amqp",
            Self::Redis => "redis",
            Self::Rtsp => "rtsp",
            Self::Sip => "sip",
            Self::BitTorrent => "bittorrent",
        }
    }

    /// Returns whether a connection that begins with `bytes` speaks this protocol, or `None` if more
    /// bytes are needed to tell. Bytes that follow never change an answer.
    #[must_use]
    pub fn matches(self, bytes: &[u8]) -> Option<bool> {
        let bytes = &bytes[..bytes.len().min(Self::MOST_BYTES)];
        let answer = match self {
            Self::Tls => signature::tls(bytes),
            Self::Http => signature::request_line(bytes, b"HTTP/1."),
            Self::Http2 => signature::starts(bytes, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            Self::Ssh => signature::starts(bytes, b"SSH-"),
            Self::Rdp => signature::rdp(bytes),
            Self::Mqtt => signature::mqtt(bytes),
            Self::Minecraft => signature::minecraft(bytes),
            Self::Socks5 => signature::socks5(bytes),
            Self::Postgres => signature::postgres(bytes),
            Self::OpenVpn => signature::openvpn(bytes),
            // The length, the type and three reserved bytes.
            Self::WireGuardTcp => signature::starts(bytes, &[0, 148, 1, 0, 0, 0]),
            Self::Xmpp => signature::xmpp(bytes),
            Self::Amqp => signature::amqp(bytes),
            Self::Redis => signature::redis(bytes),
            Self::Rtsp => signature::request_line(bytes, b"RTSP/"),
            Self::Sip => signature::request_line(bytes, b"SIP/"),
            Self::BitTorrent => signature::starts(bytes, b"\x13BitTorrent protocol"),
        };
        answer.or((bytes.len() == Self::MOST_BYTES).then_some(false))
    }
}

#[cfg(test)]
mod tests;
