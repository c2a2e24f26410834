//! Headers whole, in pieces, cut off and damaged; and what follows them is left where it is.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::testing::cases;

fn between(source: &str, destination: &str) -> Proxied {
    Proxied { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

/// A header of version 2.
fn binary(command: u8, kind: u8, rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16).to_be_bytes();
    [&SIGNATURE[..], &[command, kind], &length, rest].concat()
}

const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 4, 1, 187];

fn v6() -> Vec<u8> {
    let address = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
    [&address("2001:db8::1")[..], &address("::ffff:10.0.0.1"), &[0xdc, 4, 1, 187]].concat()
}

/// What is read of `sent`, which is sent in pieces of `piece` bytes, and what is left in the socket when the client has
/// ended its side.
async fn over_a_socket(sent: &[u8], piece: usize) -> (io::Result<Option<Proxied>>, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.set_nodelay(true).unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let writing = async {
        for piece in sent.chunks(piece.max(1)) {
            // The other side may have refused it by now.
            if client.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let _ = client.shutdown().await;
    };
    let reading = async {
        let outcome = read(&server).await;
        let mut rest = Vec::new();
        let _ = server.read_to_end(&mut rest).await;
        (outcome, rest)
    };
    tokio::join!(writing, reading).1
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Good headers and what they say.
fn good() -> Vec<(Vec<u8>, Option<Proxied>)> {
    let client = between("192.0.2.1:56324", "198.51.100.1:443");
    let tlvs = [&V4[..], &[4, 0, 3, 0, 0, 0], &[0xee; 300]].concat();
    vec![
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".to_vec(), Some(client)),
        (b"PROXY TCP6 2001:db8::1 ::ffff:10.0.0.1 0 65535\r\n".to_vec(), Some(between("[2001:db8::1]:0", "10.0.0.1:65535"))),
        (
            b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n".to_vec(),
            Some(between("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535")),
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n".to_vec(), None),
        (binary(0x21, 0x11, &V4), Some(client)),
        (binary(0x21, 0x12, &V4), Some(client)),
        (binary(0x21, 0x11, &tlvs), Some(client)),
        (binary(0x21, 0x21, &v6()), Some(between("[2001:db8::1]:56324", "10.0.0.1:443"))),
        (binary(0x20, 0x00, &[]), None),
        // The family of a LOCAL connection is ignored, even one that does not exist.
        (binary(0x20, 0xff, &V4), None),
        (binary(0x21, 0x00, &[1, 2, 3]), None),
        (binary(0x21, 0x31, &[b'/'; 216]), None),
        (binary(0x21, 0x11, &[&V4[..], &[0; LONGEST_REST - 12]].concat()), Some(client)),
    ]
}

#[test]
fn nothing_is_read_beyond_a_header() {
    run(async {
        for (header, expected) in good() {
            for piece in [1, 2, 7, usize::MAX] {
                for after in [&b""[..], b"G", b"GET / HTTP/1.1\r\n\r\n", b"\n", &SIGNATURE] {
                    let sent = [&header, after].concat();
                    let (outcome, rest) = over_a_socket(&sent, piece).await;
                    assert_eq!(outcome.unwrap(), expected, "{}", header.escape_ascii());
                    assert_eq!(rest, after, "{} in pieces of {piece}", header.escape_ascii());
                }
            }
        }
    });
}

#[test]
fn a_header_that_is_cut_off_is_an_error() {
    run(async {
        for (header, _) in good().into_iter().filter(|(header, _)| header.len() < 300) {
            for cut in 0..header.len() {
                let (outcome, _) = over_a_socket(&header[..cut], usize::MAX).await;
                assert_eq!(outcome.unwrap_err().kind(), ErrorKind::UnexpectedEof, "{cut} of {}", header.escape_ascii());
            }
        }
    });
}

#[test]
fn what_is_no_header_is_an_error() {
    let text = |text: &str| text.as_bytes().to_vec();
    let unending = [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat();
    let too_long = [&b"PROXY UNKNOWN "[..], &[b'x'; LONGEST_LINE - 15], b"\r\n"].concat();
    run(async {
        for wrong in [
            text("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            text("POST / HTTP/1.1\r\nHost: a\r\n\r\n"),
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(),
            text("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\n"),
            text("PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n"),
            text("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 \r\n"),
            text("PROXY TCP4  192.0.2.1 198.51.100.1 56324 443\r\n"),
            text("PROXY  TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"),
            text("PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n"),
            text("PROXY TCP4 192.0.2.1 198.51.100.1 +1 443\r\n"),
            text("PROXY TCP4 192.0.2.1 198.51.100.1 01 443\r\n"),
            text("PROXY TCP4 192.0.2.1 198.51.100.1 -1 443\r\n"),
            text("PROXY TCP4 192.0.2.256 198.51.100.1 1 443\r\n"),
            text("PROXY TCP4 192.0.02.1 198.51.100.1 1 443\r\n"),
            text("PROXY TCP4 2001:db8::1 2001:db8::1 1 443\r\n"),
            text("PROXY TCP6 192.0.2.1 198.51.100.1 1 443\r\n"),
            text("PROXY UDP4 192.0.2.1 198.51.100.1 1 443\r\n"),
            text("PROXY UNKNOWNS\r\n"),
            text("PROXY\r\n"),
            text("Proxy UNKNOWN\r\n"),
            unending.clone(),
            too_long.clone(),
            binary(0x11, 0x11, &V4),
            binary(0x01, 0x11, &V4),
            binary(0x22, 0x11, &V4),
            binary(0x21, 0x13, &V4),
            binary(0x21, 0x41, &V4),
            binary(0x21, 0x11, &V4[..11]),
            binary(0x21, 0x21, &V4),
            binary(0x21, 0x11, &[0; LONGEST_REST + 1]),
            binary(0x20, 0x00, &[0; LONGEST_REST + 1]),
            [&b"\r\n\r\n\0\r\nQUIT\r"[..], &[0x21, 0x11, 0, 12], &V4].concat(),
        ] {
            let (outcome, _) = over_a_socket(&wrong, usize::MAX).await;
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::InvalidData, "{}", wrong.escape_ascii());
        }
        // The longest that may be.
        let fits = [&b"PROXY UNKNOWN "[..], &[b'x'; LONGEST_LINE - 16], b"\r\n"].concat();
        assert_eq!((fits.len(), over_a_socket(&fits, 9).await.0.unwrap()), (LONGEST_LINE, None));
    });
}

fn any_header() -> impl Strategy<Value = Vec<u8>> {
    let index = 0..good().len();
    let damaged = (index, prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4));
    let damaged = damaged.prop_map(|(which, changes)| {
        let mut header = good().swap_remove(which).0;
        for (index, byte) in changes {
            let index = index.index(header.len());
            header[index] = byte;
        }
        header
    });
    let words = "PROXY (TCP4|TCP6|UNKNOWN)? ?([0-9a-f.: ]{0,60}|.{0,20})\r?\n?".prop_map(String::into_bytes);
    let rest = prop::collection::vec(any::<u8>(), 0..60);
    let version2 =
        (any::<u8>(), any::<u8>(), rest.clone()).prop_map(|(command, kind, rest)| binary(command, kind, &rest));
    prop_oneof![4 => damaged, 3 => words, 2 => version2, 1 => rest]
}

proptest! {
    #![proptest_config(cases(5_000))]

    /// No bytes are a panic; those that say of whom are read the same when they are written again.
    #[test]
    fn any_bytes_are_a_header_or_not(bytes in any_header()) {
        if let Ok(Some(proxied)) = parse_line(&bytes) {
            let Proxied { source, destination } = proxied;
            let family = match (source.ip(), destination.ip()) {
                (IpAddr::V4(_), IpAddr::V4(_)) => "TCP4",
                (IpAddr::V6(_), IpAddr::V6(_)) => "TCP6",
                _ => return Ok(()),
            };
            let again = format!("PROXY {family} {} {} {} {}\r\n", source.ip(), destination.ip(), source.port(), destination.port());
            prop_assert_eq!(parse_line(again.as_bytes()), Ok(Some(proxied)));
        }
        if let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>()
            && let Ok(head) = Head::parse(fixed)
        {
            prop_assert!(head.length <= LONGEST_REST);
            let said = head.addresses(rest);
            // What is long enough is never refused after its fixed part.
            prop_assert!(said.is_ok() || rest.len() < head.length);
        }
    }
}

proptest! {
    // A connection each, of which the system has only so many.
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Over a socket, in pieces: the same as at once, and no more is taken than the header.
    #[test]
    fn pieces_make_no_difference(header in any_header(), after in prop::collection::vec(any::<u8>(), 0..20), piece in 1usize..9) {
        let sent = [header, after].concat();
        let ((once, left), (pieces, left_of_pieces)) =
            run(async { (over_a_socket(&sent, usize::MAX).await, over_a_socket(&sent, piece).await) });
        match (once, pieces) {
            (Ok(once), Ok(pieces)) => {
                prop_assert_eq!(once, pieces);
                prop_assert_eq!(&left, &left_of_pieces);
                let length = match sent[0] {
                    b'P' => sent.iter().position(|byte| *byte == b'\n').unwrap() + 1,
                    _ => FIXED + usize::from(u16::from_be_bytes([sent[14], sent[15]])),
                };
                prop_assert_eq!(&left[..], &sent[length..]);
            }
            (Err(once), Err(pieces)) => prop_assert_eq!(once.kind(), pieces.kind()),
            (once, pieces) => prop_assert!(false, "{:?}, but in pieces {:?}", once, pieces),
        }
    }
}
