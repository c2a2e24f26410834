//! What a certificate says: whom it is for, and how long.
//!
//! Nothing is verified here. What is read of a certificate holds only as far as its signature has been checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

/// Names that are read of a client's certificate.
const MOST_IDENTITIES: usize = 64;

/// Bytes of a name; DNS allows 253 characters, and a longer name cannot be cut without becoming another's.
pub const LONGEST_NAME: usize = 255;

/// What a server's certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The DNS names that it is for, in lower case and without a dot at the end, and the IP addresses as text; its common
    /// names where it has neither. Each once, in its order.
    pub names: Vec<String>,
    /// Seconds since the epoch: it holds from here ...
    pub not_before: i64,
    /// ... to here, both included.
    pub not_after: i64,
}

impl Facts {
    /// Reads a certificate in DER; `None`: it is none.
    pub fn of(der: &[u8]) -> Option<Facts> {
        let certificate = parse(der)?;
        let names = names(&certificate, |name| match name {
            GeneralName::DNSName(name) => Some(dns(name)),
            GeneralName::IPAddress(bytes) => address(bytes),
            _ => None,
        });
        let validity = certificate.validity();
        let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        Some(Facts { names, not_before, not_after })
    }
}

/// Who a client's certificate (in DER) says that it is: its DNS names (in lower case), e-mail addresses, URIs and IP
/// addresses, in its order; its common names where there is none of these. At most 64, each once; names of more than 255
/// bytes, and such as no log and no header field could hold, are passed over. Empty for what is no certificate.
pub fn identities(der: &[u8]) -> Vec<String> {
    let Some(certificate) = parse(der) else { return Vec::new() };
    let mut names = names(&certificate, |name| match name {
        GeneralName::DNSName(name) => Some(dns(name)),
        GeneralName::RFC822Name(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    });
    names.truncate(MOST_IDENTITIES);
    names
}

/// The day of a moment (seconds since the epoch), in UTC: `2031-05-17`.
pub fn day(moment: i64) -> String {
    match ASN1Time::from_timestamp(moment) {
        Ok(time) => time.to_datetime().date().to_string(),
        // Of before the year -9999 or after 9999: no certificate can say that.
        Err(_) => format!("{moment} s"),
    }
}

fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate)
}

/// The alternative names that `wanted` takes; the common names where it takes none. One whose alternative names cannot be
/// read has no name: the common name must not stand in for them.
fn names(certificate: &X509Certificate<'_>, wanted: impl Fn(&GeneralName<'_>) -> Option<String>) -> Vec<String> {
    let mut names = Vec::new();
    let mut add = |name: String| {
        let fits = !name.is_empty() && name.len() <= LONGEST_NAME && !name.chars().any(char::is_control);
        if fits && !names.contains(&name) {
            names.push(name);
        }
    };
    let Ok(alternative) = certificate.subject_alternative_name() else { return Vec::new() };
    let alternative = alternative.iter().flat_map(|extension| &extension.value.general_names);
    let mut taken = alternative.filter_map(wanted).peekable();
    if taken.peek().is_some() {
        taken.for_each(add);
    } else {
        let common = certificate.subject().iter_common_name();
        common.filter_map(|name| name.as_str().ok()).for_each(|name| add(name.to_owned()));
    }
    names
}

fn dns(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// RFC 5280 §4.2.1.6: four or sixteen octets.
fn address(bytes: &[u8]) -> Option<String> {
    let four = || <[u8; 4]>::try_from(bytes).ok().map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
    let sixteen = || <[u8; 16]>::try_from(bytes).ok().map(|octets| IpAddr::V6(Ipv6Addr::from(octets)));
    four().or_else(sixteen).map(|address| address.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, date_time_ymd};

    use super::*;

    fn certificate(common: &[&str], alternative: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for name in common {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.subject_alt_names = alternative;
        params.not_before = date_time_ymd(2020, 2, 29);
        params.not_after = date_time_ymd(2051, 12, 31);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn dns_name(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    fn all_kinds() -> Vec<SanType> {
        vec![
            SanType::Rfc822Name("Ops@example.com".try_into().unwrap()),
            dns_name("A.example.com"),
            dns_name("*.example.com"),
            dns_name("a.example.com"),
            SanType::URI("spiffe://example.com/Edge".try_into().unwrap()),
            SanType::IpAddress("192.0.2.7".parse().unwrap()),
            SanType::IpAddress("2001:db8::7".parse().unwrap()),
        ]
    }

    #[test]
    fn a_server_is_its_dns_names_and_addresses() {
        let facts = Facts::of(&certificate(&["common"], all_kinds())).unwrap();
        assert_eq!(facts.names, ["a.example.com", "*.example.com", "192.0.2.7", "2001:db8::7"]);
        assert_eq!((day(facts.not_before), day(facts.not_after)), ("2020-02-29".to_owned(), "2051-12-31".to_owned()));
        assert_eq!(facts.not_before, 1_582_934_400);
    }

    #[test]
    fn a_client_is_every_name_that_it_has() {
        let names = identities(&certificate(&["common"], all_kinds()));
        let kept = [
            "Ops@example.com",
            "a.example.com",
            "*.example.com",
            "spiffe://example.com/Edge",
            "192.0.2.7",
            "2001:db8::7",
        ];
        assert_eq!(names, kept);
    }

    #[test]
    fn the_common_name_stands_only_where_there_is_no_other() {
        let common = certificate(&["Ops of Example"], Vec::new());
        assert_eq!(identities(&common), ["Ops of Example"]);
        assert_eq!(Facts::of(&common).unwrap().names, ["Ops of Example"]);
        // Names that say nothing of hosts are none of a server, but enough for a client.
        let mail = vec![SanType::Rfc822Name("ops@example.com".try_into().unwrap())];
        let mail = certificate(&["edge.example.com"], mail);
        assert_eq!(identities(&mail), ["ops@example.com"]);
        assert_eq!(Facts::of(&mail).unwrap().names, ["edge.example.com"]);
        assert!(identities(&certificate(&[], Vec::new())).is_empty());
    }

    #[test]
    fn names_are_bounded_and_none_becomes_anothers() {
        let many: Vec<_> = (0..200).map(|i| dns_name(&format!("n{i}.example.com"))).collect();
        let names = identities(&certificate(&[], many));
        assert_eq!((names.len(), names.last().map(String::as_str)), (64, Some("n63.example.com")));
        let long = "a".repeat(256);
        assert_eq!(identities(&certificate(&["common"], vec![dns_name(&long), dns_name("b")])), ["b"]);
        // Its name is there and will not do: it is nobody, not its common name.
        assert!(identities(&certificate(&["common"], vec![dns_name(&long)])).is_empty());
        assert!(identities(&certificate(&["common"], vec![dns_name("a\0b"), dns_name("a\r\nX: y")])).is_empty());
        assert_eq!(identities(&certificate(&["common"], vec![dns_name(&long[..255])])).len(), 1);
    }

    #[test]
    fn alternative_names_that_cannot_be_read_are_no_reason_for_the_common_name() {
        let mut der = certificate(&["common"], vec![dns_name("a.example.com")]);
        let name = memchr::memmem::find(&der, b"a.example.com").unwrap();
        // The length of the list of names, two octets before the first name's tag.
        der[name - 3] += 1;
        assert!(identities(&der).is_empty());
        assert!(Facts::of(&der).is_none_or(|facts| facts.names.is_empty()));
    }

    #[test]
    fn what_is_no_certificate_has_no_name() {
        for bytes in [&b""[..], b"\x30", b"\x30\x82\xff\xff", b"hello"] {
            assert!(Facts::of(bytes).is_none() && identities(bytes).is_empty());
        }
        assert_eq!(day(i64::MAX), format!("{} s", i64::MAX));
    }

    static SOUND: LazyLock<Vec<u8>> = LazyLock::new(|| certificate(&["common"], all_kinds()));

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn bytes_of_any_kind_are_borne(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            _ = (Facts::of(&bytes), identities(&bytes));
        }

        #[test]
        fn a_certificate_with_changed_bytes_is_borne(
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<proptest::sample::Index>(),
            whole in any::<bool>(),
        ) {
            let mut bytes = SOUND.clone();
            for (at, to) in changes {
                let at = at.index(bytes.len());
                bytes[at] = to;
            }
            if !whole {
                bytes.truncate(cut.index(bytes.len()));
            }
            let names = identities(&bytes);
            prop_assert!(names.len() <= MOST_IDENTITIES);
            prop_assert!(names.iter().all(|name| name.len() <= LONGEST_NAME && !name.contains(['\0', '\n'])));
            _ = Facts::of(&bytes);
        }
    }
}
