//! The PROXY protocol (the specification is HAProxy's doc/proxy-protocol.txt): who the client of a proxy in front is, said before
//! anything else on a connection. Version 1 is a line of text, version 2 is binary.
//!
//! A header is taken from the socket to its last byte and not one further: what follows is TLS or HTTP.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpStream;

/// The longest header of version 1 (§2.1), line end included.
const LONGEST_LINE: usize = 107;
/// What every header of version 2 begins with (§2.2).
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family and transport, length of what follows.
const FIXED: usize = 16;
/// The longest rest of a header of version 2: addresses take 216 bytes at most, the extensions behind them (TLVs) hold a
/// client's certificate at most.
const LONGEST_REST: usize = 4 << 10;
/// Two addresses and ports of IPv6.
const LONGEST_ADDRESSES: usize = 36;

/// Whom a proxy speaks for. Never IPv4 in IPv6 form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxied {
    /// The client's.
    pub source: SocketAddr,
    /// What the client has connected to.
    pub destination: SocketAddr,
}

/// Reads a PROXY header of either version. `None`: the connection is the peer's own (LOCAL), or of a kind that has no IP
/// address (UNKNOWN, a Unix socket): the peer counts as the client. Waits for as long as it takes: the caller has a timeout.
///
/// # Errors
/// There is none ([`ErrorKind::InvalidData`]), the connection has ended before its end, or failed.
pub async fn read(io: &TcpStream) -> io::Result<Option<Proxied>> {
    let mut first = [0];
    match io.peek(&mut first).await? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ if first[0] == b'P' => read_line(io).await,
        _ if first[0] == SIGNATURE[0] => read_binary(io).await,
        _ => Err(invalid("does not begin with a PROXY header")),
    }
}

async fn read_line(io: &TcpStream) -> io::Result<Option<Proxied>> {
    let (mut line, mut length) = ([0; LONGEST_LINE], 0);
    while let room @ [_, ..] = line.get_mut(length..).unwrap_or_default() {
        // What is there is looked at first: up to the end of the line it belongs to the header, and no further.
        let found = io.peek(room).await?;
        let seen = room.get_mut(..found).unwrap_or_default();
        let taken = memchr::memchr(b'\n', seen).map_or(found, |end| end + 1);
        if taken == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        take(io, room.get_mut(..taken).unwrap_or_default()).await?;
        length += taken;
        let so_far = line.get(..length).unwrap_or_default();
        if so_far.ends_with(b"\n") {
            return parse_line(so_far).map_err(invalid);
        }
    }
    Err(invalid("a PROXY header without an end"))
}

async fn read_binary(io: &TcpStream) -> io::Result<Option<Proxied>> {
    let mut fixed = [0; FIXED];
    take(io, &mut fixed).await?;
    let head = Head::parse(&fixed).map_err(invalid)?;
    let mut addresses = [0; LONGEST_ADDRESSES];
    let addresses = addresses.get_mut(..head.length.min(LONGEST_ADDRESSES)).unwrap_or_default();
    take(io, addresses).await?;
    // Nothing is asked of the extensions. Little by little: a connection has no room for all of them.
    let mut left = head.length - addresses.len();
    let mut rest = [0; 128];
    while left > 0 {
        let piece = rest.get_mut(..left.min(128)).unwrap_or_default();
        take(io, piece).await?;
        left -= piece.len();
    }
    head.addresses(addresses).map_err(invalid)
}

/// Fills the buffer, and reads nothing beyond it.
async fn take(io: &TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    let mut left = buffer;
    while !left.is_empty() {
        io.readable().await?;
        match io.try_read(left) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(taken) => left = left.get_mut(taken..).unwrap_or_default(),
            Err(why) if why.kind() == ErrorKind::WouldBlock => {}
            Err(why) => return Err(why),
        }
    }
    Ok(())
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

/// Version 1 (§2.1): `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443`, with the line's end.
fn parse_line(line: &[u8]) -> Result<Option<Proxied>, &'static str> {
    let line = line.strip_suffix(b"\r\n").ok_or("a PROXY header whose line does not end with CRLF")?;
    let line = str::from_utf8(line).map_err(|_| "a PROXY header that is not ASCII")?;
    let line = line.strip_prefix("PROXY ").ok_or("does not begin with a PROXY header")?;
    let mut fields = line.split(' ');
    let family = fields.next();
    if family == Some("UNKNOWN") {
        // Whatever follows says nothing.
        return Ok(None);
    }
    let (Some(source), Some(destination), Some(source_port), Some(destination_port), None) =
        (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err("a PROXY header without two addresses and two ports");
    };
    let address = |text: &str| match family {
        Some("TCP4") => text.parse().map(IpAddr::V4).map_err(|_| "a PROXY header with no IPv4 address"),
        Some("TCP6") => text.parse().map(IpAddr::V6).map_err(|_| "a PROXY header with no IPv6 address"),
        _ => Err("a PROXY header of an unknown family"),
    };
    Ok(Some(Proxied::new((address(source)?, port(source_port)?), (address(destination)?, port(destination_port)?))))
}

/// Decimal, without a sign or leading zeros.
fn port(text: &str) -> Result<u16, &'static str> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain).ok_or("a PROXY header with no port")
}

/// The fixed part of version 2 (§2.2).
#[derive(Debug, PartialEq, Eq)]
struct Head {
    family: Family,
    /// Of all that follows.
    length: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    /// Without an address that counts.
    None,
    V4,
    V6,
}

impl Head {
    fn parse(fixed: &[u8; FIXED]) -> Result<Head, &'static str> {
        let [signature @ .., command, kind, high, low] = fixed;
        if *signature != SIGNATURE {
            return Err("does not begin with a PROXY header");
        }
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length > LONGEST_REST {
            return Err("a PROXY header that is too long");
        }
        let family = match (command, kind) {
            // LOCAL: whatever follows says nothing.
            (0x20, _) => Family::None,
            (0x21, 0x11 | 0x12) => Family::V4,
            (0x21, 0x21 | 0x22) => Family::V6,
            // Unix sockets, and what has no family or no transport.
            (0x21, 0x00..=0x02 | 0x10 | 0x20 | 0x30..=0x32) => Family::None,
            (0x21, _) => return Err("a PROXY header of an unknown family"),
            (0x22..=0x2f, _) => return Err("a PROXY header with an unknown command"),
            _ => return Err("a PROXY header of an unknown version"),
        };
        let least = match family {
            Family::None => 0,
            Family::V4 => 12,
            Family::V6 => 36,
        };
        if length < least {
            return Err("a PROXY header that is too short for its addresses");
        }
        Ok(Head { family, length })
    }

    /// `rest` begins with what follows the fixed part.
    fn addresses(&self, rest: &[u8]) -> Result<Option<Proxied>, &'static str> {
        let short = "a PROXY header that is too short for its addresses";
        match self.family {
            Family::None => Ok(None),
            Family::V4 => {
                let [a, b, c, d, e, f, g, h, ports @ ..] = *rest.first_chunk::<12>().ok_or(short)?;
                Ok(Some(Proxied::between(Ipv4Addr::new(a, b, c, d).into(), Ipv4Addr::new(e, f, g, h).into(), ports)))
            }
            Family::V6 => {
                let (source, rest) = rest.split_first_chunk::<16>().ok_or(short)?;
                let (destination, rest) = rest.split_first_chunk::<16>().ok_or(short)?;
                let ports = *rest.first_chunk::<4>().ok_or(short)?;
                Ok(Some(Proxied::between(Ipv6Addr::from(*source).into(), Ipv6Addr::from(*destination).into(), ports)))
            }
        }
    }
}

impl Proxied {
    fn new(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Proxied {
        let address = |(address, port): (IpAddr, u16)| SocketAddr::new(address.to_canonical(), port);
        Proxied { source: address(source), destination: address(destination) }
    }

    fn between(source: IpAddr, destination: IpAddr, [a, b, c, d]: [u8; 4]) -> Proxied {
        Proxied::new((source, u16::from_be_bytes([a, b])), (destination, u16::from_be_bytes([c, d])))
    }
}

#[cfg(test)]
#[path = "proxy_protocol_tests.rs"]
mod tests;
